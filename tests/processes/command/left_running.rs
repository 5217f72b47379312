//! Tests of processes that the command's main process leaves running when it ends. They are terminated, or leaderrun
//! waits for them.

use nix::sys::signal::{Signal, kill};

use testkit::{Candidate, Running, TestLock, Witnesses, descendants, eventually, is_alive};

/// A script that leaves a daemon running in its own session. The daemon prints which signals it receives.
const DAEMON: &str = r#"
setsid sh -c 'trap "echo reloaded" HUP; trap "echo stopping; exit 0" TERM; echo up; while :; do sleep 0.02; done' &
sleep 0.3
exit 0
"#;

fn start_daemon(lock: &TestLock, options: &[&str]) -> Running {
    let running = Candidate::new("a", lock).args(options).run_script(DAEMON);
    eventually("the daemon is running", || running.output().contains("up"));
    running
}

#[testkit::test]
fn the_log_names_the_processes_that_are_terminated_and_a_remedy() {
    let mut a = start_daemon(&TestLock::file(), &[]);
    a.wait_for_exit(0);
    let log = a.log();
    let warning = log.lines().find(|line| line.contains("warning")).unwrap_or_default();
    assert!(warning.contains("terminating what it left running: sh ("), "{log}");
    assert!(warning.ends_with("try running the command in the foreground, or --wait-for all"), "{log}");
    assert!(a.output().contains("stopping"), "{}", a.output());
}

#[testkit::test]
fn processes_that_end_before_the_command_or_are_stopped_with_it_cause_no_warning() {
    for script in ["true", "sleep 0.1 & wait", "echo a | cat; exit 3", "(sleep 0.05 &); sleep 0.3"] {
        let mut a = Candidate::new("a", &TestLock::file()).run_script(script);
        a.wait();
        assert!(!a.log().contains("left running"), "{script}: {}", a.log());
    }
    let mut a = Candidate::new("a", &TestLock::file()).run_script("trap 'exit 0' TERM; echo up; sleep 1000 & wait");
    eventually("the command is running", || a.output().contains("up"));
    a.stop();
    assert!(!a.log().contains("left running"), "{}", a.log());
}

#[testkit::test]
fn with_wait_for_all_a_daemon_is_treated_as_part_of_the_command() {
    let lock = TestLock::file();
    let mut a = start_daemon(&lock, &["--wait-for", "all"]);
    a.wait_for_log("waiting for what it left running: sh (");
    let witnesses = Witnesses::new();
    let mut b = Candidate::new("b", &lock).run_witness(&witnesses, &[]);
    b.wait_for_log("held by a");
    a.signal(Signal::SIGHUP);
    eventually("the signal is relayed", || a.output().contains("reloaded"));
    a.signal(Signal::SIGTERM);
    eventually("the daemon gets SIGTERM", || a.output().contains("stopping"));
    a.wait_for_exit(0);
    witnesses.wait_for("b", 1);
    b.stop();
}

#[testkit::test]
fn with_wait_for_all_leaderrun_exits_when_the_daemon_ends() {
    let script = "setsid sleep 0.6 & exit 7";
    let mut a = Candidate::new("a", &TestLock::file()).args(["--wait-for", "all"]).run_script(script);
    a.wait_for_log("waiting for what it left running: ");
    a.wait_for_exit(7);
    assert!(!a.log().contains("killing"), "{}", a.log());
}

#[testkit::test]
fn a_daemon_is_stopped_when_the_elector_is_killed() {
    let lock = TestLock::file();
    let mut a = start_daemon(&lock, &["--wait-for", "all"]);
    a.wait_for_log("waiting for what it left running");
    let processes = descendants(a.supervisor());
    // The supervisor then stops the command, because the lock is no longer renewed.
    kill(a.elector(), Signal::SIGKILL).expect("the process is alive");
    eventually("the daemon is dead", || processes.iter().all(|process| !is_alive(process)));
    a.wait();
    assert!(a.output().contains("stopping"), "{}", a.output());
}

#[testkit::test]
fn a_daemon_that_ignores_sigterm_is_killed_when_kill_after_has_passed() {
    let script = "setsid sh -c 'trap \"\" TERM; echo up; while :; do sleep 0.02; done' & sleep 0.3";
    let mut a =
        Candidate::new("a", &TestLock::file()).args(["--wait-for", "all", "--kill-after", "200ms"]).run_script(script);
    a.wait_for_log("waiting for what it left running");
    a.signal(Signal::SIGTERM);
    a.wait_for_exit(0);
    assert!(a.log().contains("the command did not end within --kill-after"), "{}", a.log());
}
