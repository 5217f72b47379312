//! Tests of commands that are stopped on request. Another candidate may lead only after all of the command's processes
//! are dead.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use testkit::{Candidate, Cluster, Running, TestLock, Witnesses, descendants, eventually, is_alive};

/// Sends a signal to the leader `a`, and checks that the standby `b` acquires the lock, but only after `a`'s command is
/// dead. `witness_arguments` select the behavior of `a`'s witness. Returns the witnesses and `a`.
fn assert_hand_over_after_signal(
    lock: &TestLock,
    witness_arguments: &[&str],
    options: &[&str],
    signal: Signal,
) -> (Witnesses, Running) {
    let witnesses = Witnesses::new();
    let mut a = Candidate::new("a", lock).args(options).run_witness(&witnesses, witness_arguments);
    // With the argument `hidden`, the command's grandchild is a second witness.
    witnesses.wait_for("a", if witness_arguments.contains(&"hidden") { 2 } else { 1 });
    let mut b = Candidate::new("b", lock).run_witness(&witnesses, &[]);
    b.wait_for_log("held by a");
    a.signal(signal);
    a.wait();
    witnesses.wait_for("b", 1);
    b.stop();
    witnesses.assert_runs_one_at_a_time(2);
    assert!(witnesses.lifetimes().iter().all(|life| !is_alive(life.pid)));
    (witnesses, a)
}

#[testkit::test]
fn the_lock_is_held_until_the_command_has_ended() {
    for lock in [TestLock::lease(), TestLock::file()] {
        let (witnesses, mut a) = assert_hand_over_after_signal(&lock, &["linger"], &[], Signal::SIGTERM);
        a.wait_for_exit(0);
        let life = &witnesses.lifetimes_of("a")[0];
        // The witness takes three seconds to end.
        let alive_after_signal = Duration::from_nanos(life.last_seen_at - life.signaled_at);
        assert!(
            alive_after_signal > Duration::from_millis(2900),
            "the command lived for only {alive_after_signal:?} after the stop signal"
        );
    }
}

/// A cgroup whose processes stay frozen, even if they are killed. Dropping this value thaws them.
struct Freezer(PathBuf);

impl Freezer {
    const ROOT: &str = "/sys/fs/cgroup/freezer";

    /// Returns an error if this machine has no cgroup v1 freezer.
    fn check_available() -> Result<(), String> {
        let probe = Path::new(Self::ROOT).join(format!("leaderrun-probe-{}", std::process::id()));
        fs::create_dir(&probe).map_err(|error| format!("no cgroup v1 freezer: {error}"))?;
        fs::remove_dir(probe).map_err(|error| error.to_string())
    }

    fn freeze(processes: &[Pid]) -> Self {
        let directory = Path::new(Self::ROOT).join(format!("leaderrun-test-{}", std::process::id()));
        fs::create_dir(&directory).expect("the cgroup can be created");
        let freezer = Self(directory);
        processes.iter().for_each(|process| freezer.write("tasks", &process.to_string()));
        freezer.write("freezer.state", "FROZEN");
        freezer
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.0.join(file), text).expect("the cgroup can be changed");
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        self.write("freezer.state", "THAWED");
        // If the test has failed, the processes may still be alive. They are killed when the candidates are dropped.
        let try_remove = || fs::remove_dir(&self.0).is_ok();
        if !try_remove() && !thread::panicking() {
            eventually("the frozen processes are dead", try_remove);
        }
    }
}

#[testkit::test(requires = Freezer::check_available())]
fn a_killed_process_that_does_not_end_is_logged_and_keeps_the_lock() {
    let lock = TestLock::file();
    let script = "trap '' TERM; echo ready; while :; do sleep 1000; done";
    let mut a = Candidate::new("a", &lock).args(["--kill-after", "100ms"]).run_script(script);
    eventually("the command is ready", || a.output().contains("ready") && descendants(a.supervisor()).len() == 2);
    let freezer = Freezer::freeze(&descendants(a.supervisor()));
    let b = Candidate::new("b", &lock).run_script("exit 0");
    b.wait_for_log("held by a");
    a.signal(Signal::SIGTERM);
    a.wait_for_log("cannot kill sh (");
    let log = a.log();
    assert!(log.contains("its cgroup is frozen; thaw the cgroup; the lock stays held until"), "{log}");
    assert_eq!(log.matches("cannot kill").count(), 1, "{log}");
    assert!(!b.log().contains("started") && a.is_running(), "the lock should still be held");
    drop(freezer);
    a.wait_until_killed_by(Signal::SIGKILL);
    b.wait_for_log("started the command");
}

#[testkit::test]
fn processes_that_the_command_left_running_are_dead_before_the_release() {
    let (witnesses, mut a) = assert_hand_over_after_signal(&TestLock::lease(), &["hidden"], &[], Signal::SIGTERM);
    a.wait_for_exit(0);
    assert!(
        witnesses.lifetimes_of("a").iter().all(|life| life.signaled_at > 0),
        "every process should get SIGTERM before it is killed"
    );
    assert!(a.log().contains("killing what the command left running"), "{}", a.log());
}

#[testkit::test]
fn processes_that_the_main_process_left_running_are_dead_when_leaderrun_exits() {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let mut a = Candidate::new("a", &lock).run_witness(&witnesses, &["hidden", "ends"]);
    a.wait_for_exit(0);
    let spec = Cluster::shared().admin().get(&lock.lease_path()).expect("the lease can be read")["spec"].clone();
    assert_eq!(spec["holderIdentity"], "");
    let mut b = Candidate::new("b", &lock).run_witness(&witnesses, &["ends"]);
    b.wait_for_exit(0);
    witnesses.assert_runs_one_at_a_time(2);
}

#[testkit::test]
fn signals_are_relayed_to_the_command() {
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
fn a_command_that_ignores_the_signal_is_killed_when_kill_after_has_passed() {
    let (_, mut a) = assert_hand_over_after_signal(
        &TestLock::lease(),
        &["ignore", "hidden"],
        &["--kill-after", "500ms"],
        Signal::SIGTERM,
    );
    a.wait_for_exit(137);
}

#[testkit::test]
fn repeated_signals_do_not_delay_the_kill() {
    let witnesses = Witnesses::new();
    let mut a =
        Candidate::new("a", &TestLock::file()).args(["--kill-after", "2s"]).run_witness(&witnesses, &["ignore"]);
    witnesses.wait_for("a", 1);
    eventually("the kill is logged", || {
        a.signal(Signal::SIGTERM);
        thread::sleep(Duration::from_millis(100));
        a.log().contains("killing")
    });
    a.wait_for_exit(137);
}

#[testkit::test]
fn a_tree_of_many_processes_is_killed() {
    // Each shell has seven children, for three generations. All processes ignore SIGTERM.
    let script = "trap '' TERM; grow() { [ $1 = 0 ] && exec sleep 1000; i=0; while [ $i -lt 7 ]; do (grow $(($1 - 1))) & i=$((i+1)); done; wait; }; grow 3 & read line; exit 3";
    let (reader, writer) = std::io::pipe().expect("a pipe can be created");
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
fn a_frozen_command_receives_sigterm() {
    let witnesses = Witnesses::new();
    let mut a = Candidate::new("a", &TestLock::file()).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let command = Pid::from_raw(witnesses.lifetimes_of("a")[0].pid as i32);
    nix::sys::signal::kill(command, Signal::SIGSTOP).expect("the process is alive");
    a.signal(Signal::SIGTERM);
    a.wait_for_exit(0);
    assert!(witnesses.lifetimes_of("a")[0].signaled_at > 0);
}

/// A dead command cannot be reaped until its debugger has waited for it. gdb does not wait while it shows its prompt.
#[testkit::test]
fn a_dead_command_that_a_debugger_keeps_as_a_zombie_does_not_keep_the_lock() {
    for kills_supervisor in [false, true] {
        let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
        let a = Candidate::new("a", &lock).args(["--kill-after", "1s"]).run_witness(&witnesses, &["ignore"]);
        witnesses.wait_for("a", 1);
        let mut b = Candidate::new("b", &lock).run_witness(&witnesses, &[]);
        b.wait_for_log("held by a");
        let pid = witnesses.lifetimes_of("a")[0].pid as libc::pid_t;
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: the call attaches to another process and uses no memory of this one.
        let attached = unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, none, none) };
        assert_eq!(attached, 0, "this process should be allowed to trace the command");
        if kills_supervisor {
            nix::sys::signal::kill(a.supervisor(), Signal::SIGKILL).expect("the process is alive");
        } else {
            a.signal(Signal::SIGTERM);
        }
        witnesses.wait_for("b", 1);
        b.stop();
        witnesses.assert_runs_one_at_a_time(2);
        // SAFETY: a null status is allowed.
        let reaped = unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL) };
        assert_eq!(reaped, pid, "the command should have been a zombie until now");
    }
}
