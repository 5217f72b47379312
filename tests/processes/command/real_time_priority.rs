//! Tests of leaderrun's scheduling while its command runs: real-time priority, or else a short time slice.

use std::fs;
use std::os::unix::process::CommandExt;

use nix::errno::Errno;
use nix::unistd::Pid;

use testkit::{Candidate, TestLock, eventually};

/// Returns the nice value and the scheduling policy of a process.
fn scheduling(process: Pid) -> (i32, i32) {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("the process exists");
    let fields: Vec<i32> = stat
        .rsplit(')')
        .next()
        .expect("rsplit returns at least one part")
        .split_whitespace()
        .map(|field| field.parse().unwrap_or(0))
        .collect();
    // proc(5) numbers the fields from 1. The first field after the name is field 3.
    (fields[19 - 3], fields[41 - 3])
}

/// The shortest time slice that the kernel grants, in nanoseconds.
const SHORTEST_TIME_SLICE: u64 = 100_000;

/// Returns the time slice of a thread in nanoseconds. The result is 0 before Linux 6.12, where a thread cannot have its
/// own time slice.
fn time_slice(thread: i32) -> u64 {
    let mut attributes = [0_u64; 6];
    let size = size_of_val(&attributes);
    // SAFETY: the kernel writes at most `size` bytes during the call.
    let result = unsafe { libc::syscall(libc::SYS_sched_getattr, thread, attributes.as_mut_ptr(), size, 0) };
    Errno::result(result).expect("the thread exists");
    // The field `sched_runtime` of `struct sched_attr` is at byte 24.
    attributes[3]
}

/// Returns an error if the kernel does not support separate time slices for threads.
fn check_time_slices() -> Result<(), String> {
    if time_slice(0) > 0 {
        Ok(())
    } else {
        Err("Linux before 6.12 has no time slices for individual threads".to_owned())
    }
}

/// The test drops `CAP_SYS_NICE`, which most containers also lack.
#[testkit::test(requires = check_time_slices())]
fn without_a_real_time_priority_leaderrun_has_a_short_time_slice_but_its_command_does_not() {
    const CAP_SYS_NICE: libc::c_ulong = 23;
    let candidate = Candidate::new("a", &TestLock::file()).configure(|command| {
        // SAFETY: only system calls are made between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_CAPBSET_DROP, CAP_SYS_NICE, 0, 0, 0);
                Ok(())
            });
        }
    });
    let mut a = candidate.run_script("echo $$; exec sleep 1000");
    eventually("the command is running", || !a.output().is_empty());
    let command: i32 = a.output().trim().parse().expect("the output is a PID");
    assert_eq!(time_slice(command), time_slice(0), "the command should have the default time slice");
    let threads = fs::read_dir(format!("/proc/{}/task", a.elector())).expect("the threads can be listed").flatten();
    let election = threads
        .into_iter()
        .find(|thread| fs::read_to_string(thread.path().join("comm")).is_ok_and(|name| name.trim() == "election"));
    let election = election
        .expect("the elector has an election thread")
        .file_name()
        .into_string()
        .expect("the thread ID is UTF-8");
    for thread in [a.elector().as_raw(), a.supervisor().as_raw(), election.parse().expect("the thread ID is a number")]
    {
        eventually("the thread has the shortest time slice", || time_slice(thread) == SHORTEST_TIME_SLICE);
    }
    a.stop();
}

/// Returns an error if this user is not allowed to set a real-time priority.
fn check_can_set_real_time_priority() -> Result<(), String> {
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
    if allowed { Ok(()) } else { Err("this user is not allowed to set a real-time priority".to_owned()) }
}

#[testkit::test(requires = check_can_set_real_time_priority())]
fn leaderrun_has_a_real_time_priority_only_while_its_command_runs() {
    let lock = TestLock::file();
    let mut a = Candidate::new("a", &lock).run_script("echo $$; exec sleep 1000");
    eventually("the command is running", || !a.output().is_empty());
    let command = Pid::from_raw(a.output().trim().parse().expect("the output is a PID"));
    let initial_scheduling = scheduling(Pid::this());
    assert_eq!(
        scheduling(command),
        initial_scheduling,
        "the command should have the priority that leaderrun was started with"
    );
    for process in [a.elector(), a.supervisor()] {
        assert_eq!(scheduling(process).1, libc::SCHED_RR);
    }
    let standby = Candidate::new("b", &lock).run_script("sleep 1000");
    standby.wait_for_log("held by a");
    assert_eq!(scheduling(standby.supervisor()), initial_scheduling);
    assert_eq!(scheduling(standby.elector()), initial_scheduling);
    a.stop();
}
