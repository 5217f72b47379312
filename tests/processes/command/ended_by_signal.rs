//! Tests that leaderrun kills itself with the signal that killed its command, or with the signal that it received as a
//! standby.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use nix::sys::signal::Signal;

use testkit::{Candidate, TestLock, Witnesses, scratch};

#[testkit::test]
fn leaderrun_kills_itself_with_the_signal_that_killed_the_command() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGKILL, Signal::SIGUSR1, Signal::SIGSEGV] {
        let script = format!("kill -{} $$", signal as i32);
        let mut a = Candidate::new("a", &TestLock::file()).run_script(&script);
        a.wait_until_killed_by(signal);
    }
}

#[testkit::test]
fn leaderrun_kills_itself_with_the_real_time_signal_that_killed_the_command() {
    let mut a = Candidate::new("a", &TestLock::file()).run_script("kill -37 $$");
    assert_eq!(a.wait().signal(), Some(37), "{}", a.log());
}

#[testkit::test]
fn a_standby_kills_itself_with_the_signal_that_it_received() {
    let (lock, witnesses) = (TestLock::file(), Witnesses::new());
    let _a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        let mut b = Candidate::new("b", &lock).run_script("true");
        b.wait_for_log("held by a");
        b.signal(signal);
        b.wait_until_killed_by(signal);
    }
}

#[testkit::test]
fn no_core_file_is_written_for_a_command_that_crashed() {
    let directory = scratch::directory("core");
    let in_directory = |command: &mut Command| {
        command.current_dir(&directory);
    };
    // The command itself writes no core file because of its own limit.
    let script = "ulimit -c 0; kill -SEGV $$";
    let mut a = Candidate::program("a", "sh")
        .args(["-c", "ulimit -c unlimited; exec \"$0\" \"$@\"", testkit::leaderrun()])
        .args(["--lock", &TestLock::file().name, "--", "sh", "-c", script])
        .configure(in_directory)
        .start();
    a.wait_until_killed_by(Signal::SIGSEGV);
    assert_eq!(std::fs::read_dir(&directory).expect("the directory can be read").count(), 0);
}
