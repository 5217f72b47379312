//! The real-time priority of leaderrun while its command runs.

use std::fs;

use nix::unistd::Pid;

use testkit::{Candidate, TestLock, eventually};

/// Returns the nice value and the scheduling policy of a process, from /proc.
fn scheduling(process: Pid) -> (i32, i32) {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("a process");
    let fields: Vec<i32> =
        stat.rsplit(')').next().expect("fields").split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
    // Fields are numbered from 1, and the first one after the name is field 3.
    (fields[19 - 3], fields[41 - 3])
}

/// Checks whether this process may set a real-time priority.
fn real_time() -> Result<(), String> {
    // SAFETY: all zeros are a valid value.
    let mut parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    parameters.sched_priority = 1;
    // SAFETY: the child only makes system calls; the kernel reads the parameters during the call.
    let allowed = unsafe {
        match libc::fork() {
            0 => libc::_exit(libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters).abs()),
            child => {
                let mut status = 0;
                libc::waitpid(child, &mut status, 0);
                status == 0
            }
        }
    };
    if allowed { Ok(()) } else { Err("no right to a real-time priority".to_owned()) }
}

#[testkit::test(requires = real_time())]
fn leaderrun_has_a_real_time_priority_only_while_its_command_runs() {
    let lock = TestLock::file();
    let mut a = Candidate::new("a", &lock).run_script("echo $$; exec sleep 1000");
    eventually("the command runs", || !a.output().is_empty());
    let command = Pid::from_raw(a.output().trim().parse().expect("a pid"));
    let own = scheduling(Pid::this());
    assert_eq!(scheduling(command), own, "the command has the priority that leaderrun was started with");
    for process in [a.elector(), a.supervisor()] {
        assert_eq!(scheduling(process).1, libc::SCHED_RR);
    }
    let standby = Candidate::new("b", &lock).run_script("sleep 1000");
    standby.wait_for_log("held by a");
    assert_eq!(scheduling(standby.supervisor()), own);
    assert_eq!(scheduling(standby.elector()), own);
    a.stop();
}
