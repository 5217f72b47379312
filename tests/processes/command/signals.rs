//! Tests of signals that are sent to leaderrun alone, or to all of its processes and the command.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use testkit::exit_status::TIMED_OUT;
use testkit::{Candidate, Running, TestLock, Witnesses, descendants, eventually, is_alive, leaderrun};

/// A script that counts the SIGTERM and SIGINT signals that it receives, and ends one second after the first of them.
const COUNTING_SCRIPT: &str = r#"
n=0
trap 'n=$((n+1)); echo "got $n"' TERM INT
echo ready
while [ $n = 0 ]; do sleep 0.02; done
i=0
while [ $i -lt 50 ]; do sleep 0.02; i=$((i+1)); done
exit 0
"#;

fn start_signal_counter() -> Running {
    let running = Candidate::new("a", &TestLock::file()).run_script(COUNTING_SCRIPT);
    eventually("the trap is set", || running.output().contains("ready"));
    running
}

fn send(processes: &[Pid], signal: i32) {
    for process in processes {
        // nix's `kill` does not support real-time signals.
        // SAFETY: the call takes two integers.
        unsafe { libc::kill(process.as_raw(), signal) };
    }
}

/// With `KillMode=control-group`, systemd sends a signal to all processes, in any order.
#[testkit::test]
fn a_command_gets_a_signal_once_if_it_is_sent_to_all_processes() {
    for order in [[0, 1, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut a = start_signal_counter();
        let all = [a.elector(), a.supervisor(), descendants(a.supervisor())[0]];
        send(&order.map(|number: usize| all[number]), libc::SIGTERM);
        a.wait_for_exit(0);
        assert_eq!(a.output().matches("got").count(), 1, "order {order:?}: {}", a.output());
    }
}

/// `start-stop-daemon --exec` sends the signal to leaderrun's two processes, but not to the command.
#[testkit::test]
fn a_signal_to_both_of_leaderruns_processes_is_relayed_to_a_command_that_does_not_handle_it() {
    let mut a = Candidate::new("a", &TestLock::file()).run_script("echo ready; exec sleep 1000");
    eventually("the command is running", || a.output().contains("ready"));
    send(&[a.elector(), a.supervisor()], libc::SIGTERM);
    a.wait_until_killed_by(Signal::SIGTERM);
}

/// The command may have received the first signal itself, and would handle it twice if leaderrun relayed it.
#[testkit::test]
fn if_the_command_handles_a_signal_sent_to_both_of_leaderruns_processes_only_a_repeat_is_relayed() {
    let mut a = start_signal_counter();
    send(&[a.elector(), a.supervisor()], libc::SIGTERM);
    std::thread::sleep(std::time::Duration::from_millis(700));
    a.signal(Signal::SIGTERM);
    a.wait_for_exit(0);
    assert_eq!(a.output().matches("got").count(), 1, "only the second signal should be relayed: {}", a.output());
}

/// timeout(1) sends the signal to leaderrun, and then to its own process group, to which leaderrun belongs.
#[testkit::test]
fn a_command_under_timeout_gets_one_signal() {
    let lock = TestLock::file();
    let mut a = Candidate::program("timeout", "timeout")
        .args(["1", leaderrun(), "--lock", &lock.name, "--", "sh", "-c", COUNTING_SCRIPT])
        .start();
    assert_eq!(a.wait().code(), Some(TIMED_OUT));
    assert_eq!(a.output().matches("got").count(), 1, "{}", a.output());
}

#[testkit::test]
fn a_standby_exits_on_every_signal_that_container_images_use_as_their_stop_signal() {
    let (lock, witnesses) = (TestLock::file(), Witnesses::new());
    let _a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    for (signal, status) in [
        (libc::SIGUSR1, 128 + libc::SIGUSR1),
        (libc::SIGUSR2, 128 + libc::SIGUSR2),
        (libc::SIGRTMIN() + 3, 128 + libc::SIGRTMIN() + 3),
        // By default, SIGWINCH does not end a process, so leaderrun exits with this status instead of killing itself.
        (libc::SIGWINCH, 128 + libc::SIGWINCH),
    ] {
        let mut b = Candidate::new("b", &lock).run_script("true");
        b.wait_for_log("held by a");
        send(&[b.elector()], signal);
        b.wait_for_exit(status);
    }
}

#[testkit::test]
fn the_log_says_that_a_suspended_command_keeps_the_lock() {
    let mut a = Candidate::new("a", &TestLock::file()).run_script("echo ready; while :; do sleep 0.02; done");
    eventually("the command is running", || a.output().contains("ready"));
    let command = descendants(a.supervisor())[0];
    for (process, signal) in [(command, Signal::SIGSTOP), (a.elector(), Signal::SIGTSTP)] {
        kill(process, signal).expect("the process is alive");
        a.wait_for_log(&format!(
            "{signal} has suspended the command, and the lock stays held; to continue the command, run kill -CONT {command}"
        ));
        kill(command, Signal::SIGCONT).expect("the process is alive");
    }
    a.signal(Signal::SIGTERM);
    a.wait_until_killed_by(Signal::SIGTERM);
}

#[testkit::test]
fn kill_after_is_counted_from_the_configured_stop_signal() {
    let script = "trap '' USR1; echo ready; while :; do sleep 0.02; done";
    let mut a = Candidate::new("a", &TestLock::file())
        .args(["--stop-signal", "USR1", "--kill-after", "300ms"])
        .run_script(script);
    eventually("the command is running", || a.output().contains("ready"));
    a.signal(Signal::SIGUSR1);
    a.wait_until_killed_by(Signal::SIGKILL);
}

#[testkit::test]
fn signals_that_the_c_library_reserves_do_not_end_leaderrun() {
    let (lock, witnesses) = (TestLock::file(), Witnesses::new());
    let mut a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let mut b = Candidate::new("b", &lock).run_script("true");
    b.wait_for_log("held by a");
    for process in [a.elector(), a.supervisor(), b.elector(), b.supervisor()] {
        // glibc reserves the signals 32 and 33 for its thread functions.
        send(&[process], 32);
        send(&[process], 33);
        assert!(is_alive(process));
    }
    kill(b.elector(), Signal::SIGUSR1).expect("the process is alive");
    b.wait_until_killed_by(Signal::SIGUSR1);
    a.stop();
}

#[testkit::test]
fn the_command_inherits_the_dispositions_of_signals_that_the_c_library_reserves() {
    let print_ignored = "grep SigIgn /proc/self/status";
    let script = format!("{print_ignored}; exec {} --lock {} -- {print_ignored}", leaderrun(), TestLock::file().name);
    let mut a = Candidate::program("a", "sh").args(["-c", &script]).start();
    a.wait_for_exit(0);
    let lines: Vec<_> = a.output().lines().map(str::to_owned).collect();
    assert!(lines.len() == 2 && lines[0] == lines[1], "{lines:?}");
}
