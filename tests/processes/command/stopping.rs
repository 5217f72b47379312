//! Tests of an orderly stop: no other candidate leads before all processes of the command are dead.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use testkit::{Candidate, Cluster, Running, TestLock, Witnesses, descendants, eventually, is_alive};

/// Sends a signal to leader A, and waits until standby B leads and ends.
fn hand_over(lock: &TestLock, words: &[&str], arguments: &[&str], signal: Signal) -> (Witnesses, Running, Running) {
    let witnesses = Witnesses::new();
    let mut a = Candidate::new("a", lock).args(arguments).run_witness(&witnesses, words);
    witnesses.wait_for("a", if words.contains(&"hidden") { 2 } else { 1 });
    let mut b = Candidate::new("b", lock).run_witness(&witnesses, &[]);
    b.wait_for_log("held by a");
    a.signal(signal);
    a.wait();
    witnesses.wait_for("b", 1);
    b.stop();
    witnesses.assert_one_at_a_time(2);
    assert!(witnesses.lifetimes().iter().all(|life| !is_alive(life.pid)));
    (witnesses, a, b)
}

#[testkit::test]
fn the_lease_is_renewed_while_the_command_ends() {
    for lock in [TestLock::lease(), TestLock::file()] {
        let (witnesses, mut a, _) = hand_over(&lock, &["linger"], &[], Signal::SIGTERM);
        a.wait_for_exit(0);
        let life = &witnesses.lifetimes_of("a")[0];
        assert!(life.last_seen_at - life.signaled_at > 2_900_000_000, "the command ended in less than three seconds");
    }
}

/// A cgroup whose processes are frozen, even if they were killed, until this is dropped.
struct Freezer(PathBuf);

impl Freezer {
    const ROOT: &str = "/sys/fs/cgroup/freezer";

    fn check_available() -> Result<(), String> {
        let probe = Path::new(Self::ROOT).join(format!("leaderrun-probe-{}", std::process::id()));
        fs::create_dir(&probe).map_err(|failure| format!("no freezer of cgroup v1: {failure}"))?;
        fs::remove_dir(probe).map_err(|failure| failure.to_string())
    }

    fn freeze(processes: &[Pid]) -> Self {
        let folder = Path::new(Self::ROOT).join(format!("leaderrun-test-{}", std::process::id()));
        fs::create_dir(&folder).expect("a cgroup");
        let freezer = Self(folder);
        processes.iter().for_each(|process| freezer.write("tasks", &process.to_string()));
        freezer.write("freezer.state", "FROZEN");
        freezer
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.0.join(file), text).expect("a file of the cgroup");
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        self.write("freezer.state", "THAWED");
        // If the test has failed, the processes may be alive. They are killed later.
        let is_removed = || fs::remove_dir(&self.0).is_ok();
        if !is_removed() && !thread::panicking() {
            eventually("its processes are dead", is_removed);
        }
    }
}

#[testkit::test(requires = Freezer::check_available())]
fn a_killed_process_that_does_not_end_is_logged_and_keeps_the_lock() {
    let lock = TestLock::file();
    let script = "trap '' TERM; echo ready; while :; do sleep 1000; done";
    let mut a = Candidate::new("a", &lock).args(["--kill-after", "100ms"]).run_script(script);
    eventually("it is ready", || a.output().contains("ready") && descendants(a.supervisor()).len() == 2);
    let freezer = Freezer::freeze(&descendants(a.supervisor()));
    let b = Candidate::new("b", &lock).run_script("exit 0");
    b.wait_for_log("held by a");
    a.signal(Signal::SIGTERM);
    a.wait_for_log("cannot kill sh (");
    let log = a.log();
    assert!(log.contains("a cgroup freezer stops it; thaw its cgroup; the lock is not released before"), "{log}");
    assert_eq!(log.matches("cannot kill").count(), 1, "{log}");
    assert!(!b.log().contains("started") && a.is_running(), "the lock is held");
    drop(freezer);
    a.wait_until_killed_by(Signal::SIGKILL);
    b.wait_for_log("started the command");
}

#[testkit::test]
fn processes_that_the_command_left_running_are_dead_before_the_release() {
    let (witnesses, mut a, _) = hand_over(&TestLock::lease(), &["hidden"], &[], Signal::SIGTERM);
    a.wait_for_exit(0);
    assert!(witnesses.lifetimes_of("a").iter().all(|life| life.signaled_at > 0), "no SIGTERM before the kill");
    assert!(a.log().contains("killing what the command left running"), "{}", a.log());
}

#[testkit::test]
fn children_are_terminated_when_the_main_process_ends() {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let mut a = Candidate::new("a", &lock).run_witness(&witnesses, &["hidden", "ends"]);
    a.wait_for_exit(0);
    let spec = Cluster::shared().admin().get(&lock.lease_path()).expect("the lease")["spec"].clone();
    assert_eq!(spec["holderIdentity"], "");
    let mut b = Candidate::new("b", &lock).run_witness(&witnesses, &["ends"]);
    b.wait_for_exit(0);
    witnesses.assert_one_at_a_time(2);
}

#[testkit::test]
fn every_signal_is_relayed_to_the_command() {
    for signal in [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGWINCH,
        Signal::SIGTERM,
    ] {
        let name = signal.as_str().trim_start_matches("SIG");
        let script = format!("trap 'echo got {name}; exit 0' {name}; echo ready; while :; do sleep 0.01; done");
        let mut a = Candidate::new("a", &TestLock::file()).run_script(&script);
        eventually("the trap is set", || a.output().contains("ready"));
        a.signal(signal);
        a.wait_for_exit(0);
        assert!(a.output().contains(&format!("got {name}")));
    }
}

#[testkit::test]
fn kill_after_kills_a_command_that_ignores_the_signal() {
    let (_, mut a, _) =
        hand_over(&TestLock::lease(), &["ignore", "hidden"], &["--kill-after", "500ms"], Signal::SIGTERM);
    a.wait_for_exit(137);
}

#[testkit::test]
fn a_second_signal_does_not_extend_the_deadline() {
    let witnesses = Witnesses::new();
    let mut a =
        Candidate::new("a", &TestLock::file()).args(["--kill-after", "2s"]).run_witness(&witnesses, &["ignore"]);
    witnesses.wait_for("a", 1);
    eventually("the deadline passes", || {
        a.signal(Signal::SIGTERM);
        std::thread::sleep(std::time::Duration::from_millis(100));
        a.log().contains("killing")
    });
    a.wait_for_exit(137);
}

#[testkit::test]
fn a_tree_of_many_processes_is_killed() {
    // Each shell has seven children, in three generations, all of which ignore SIGTERM.
    let script = "trap '' TERM; grow() { [ $1 = 0 ] && exec sleep 1000; i=0; while [ $i -lt 7 ]; do (grow $(($1 - 1))) & i=$((i+1)); done; wait; }; grow 3 & read line; exit 3";
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let mut a = Candidate::new("a", &TestLock::file()).args(["--lost-grace", "500ms"]);
    a = a.configure(move |command| {
        command.stdin(reader);
    });
    let mut a = a.run_script(script);
    let supervisor = a.supervisor();
    eventually("the tree has grown", || descendants(supervisor).len() > 7 * 7 * 7);
    let all = descendants(supervisor);
    drop(writer);
    a.wait_for_exit(3);
    assert!(all.into_iter().all(|process| !is_alive(process)));
}

#[testkit::test]
fn a_stopped_command_receives_the_termination_signal() {
    let witnesses = Witnesses::new();
    let mut a = Candidate::new("a", &TestLock::file()).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let command = nix::unistd::Pid::from_raw(witnesses.lifetimes_of("a")[0].pid as i32);
    nix::sys::signal::kill(command, Signal::SIGSTOP).expect("the process is alive");
    a.signal(Signal::SIGTERM);
    a.wait_for_exit(0);
    assert!(witnesses.lifetimes_of("a")[0].signaled_at > 0);
}
