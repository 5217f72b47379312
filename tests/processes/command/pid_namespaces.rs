//! Tests of commands that start processes in an existing PID namespace, as `nsenter` and `runc exec` do. The init
//! process of that namespace adopts orphans, which are then no longer descendants of leaderrun.

use std::ffi::OsString;
use std::process::Command;
use std::sync::LazyLock;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

use testkit::exit_status::LOST;
use testkit::{
    Candidate, Cluster, Proxy, Running, TestLock, Witnesses, children, descendants, eventually, eventually_some,
    is_alive, scratch,
};

/// `Ok` if this user is root and may create and enter PID namespaces; otherwise what is missing.
static CAN_ENTER_NAMESPACES: LazyLock<Result<(), String>> = LazyLock::new(|| {
    if !geteuid().is_root() {
        return Err("only root may enter a PID namespace".to_owned());
    }
    let tried = Command::new("unshare").args(["--pid", "--fork", "nsenter", "--version"]).output();
    match tried {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(format!("unshare: {error}")),
    }
});

/// Creates a PID namespace. Returns the `unshare` process, which must stay alive, and the namespace's init process.
fn start_namespace() -> (Running, Pid) {
    let arguments = ["--pid", "--fork", "--mount-proc", "--kill-child", "sleep", "1000"];
    let running = Candidate::program("namespace", "unshare").args(arguments).start();
    let init = eventually_some("the namespace has an init process", || children(running.pid()).first().copied());
    eventually("the init process runs sleep", || {
        std::fs::read_to_string(format!("/proc/{init}/comm")).is_ok_and(|comm| comm.trim_end() == "sleep")
    });
    (running, init)
}

/// Durations that are long enough for a candidate to keep the lock while thousands of processes keep the machine busy.
const LONG_TIMING: [&str; 6] = ["--lease-duration", "30s", "--renew-deadline", "20s", "--retry-period", "2s"];

/// The arguments of a witness that ignores SIGTERM and belongs to the run of the leader `a`.
const IGNORES_SIGTERM: [&str; 2] = ["ignore", "run=1.a"];

/// Returns a command that runs `script` in the namespace of `init`. In the script, `"$@"` runs `witness`. `environment`
/// is an env(1) command that changes the script's environment; it may be empty.
fn command_in_namespace(init: Pid, witness: Vec<OsString>, environment: &[&str], script: &str) -> Vec<OsString> {
    let enter = ["nsenter".into(), "--target".into(), init.to_string(), "--pid".into()];
    let shell = ["sh".into(), "-c".into(), script.into(), "sh".into()];
    let command = enter.into_iter().chain(environment.iter().map(|argument| (*argument).to_owned())).chain(shell);
    command.map(OsString::from).chain(witness).collect()
}

/// Starts the leader `a` with a command from [`command_in_namespace`], whose witness gets `witness_arguments`, and
/// calls `end` to end the command. Checks that the standby `b` leads next, but only after `a`'s witness is dead.
fn assert_witness_dead_before_next_command(
    witness_arguments: &[&str],
    environment: &[&str],
    script: &str,
    end: impl FnOnce(&Running),
) {
    let (_namespace, init) = start_namespace();
    let (lock, witnesses) = (TestLock::file(), Witnesses::new());
    let a = Candidate::with_timing("a", &lock, LONG_TIMING).args(["--kill-after", "1s"]);
    let a = a.run(command_in_namespace(init, witnesses.command(witness_arguments), environment, script));
    witnesses.wait_for("a", 1);
    let mut b = Candidate::with_timing("b", &lock, LONG_TIMING).run_witness(&witnesses, &["run=2.b"]);
    b.wait_for_log("held by a");
    end(&a);
    witnesses.wait_for("b", 1);
    b.stop();
    witnesses.assert_runs_one_at_a_time(2);
}

/// An env(1) command that removes the run ID from the environment. leaderrun finds orphans by this ID.
const WITHOUT_RUN_ID: [&str; 3] = ["env", "-u", "LEADERRUN_RUN_ID"];

#[testkit::test(requires = CAN_ENTER_NAMESPACES.clone())]
fn an_orphan_with_the_run_id_in_its_environment_is_dead_before_the_next_command_starts() {
    let script = r#"(setsid "$@" &); until [ -e "$END" ]; do sleep 0.05; done"#;
    // The main thread of the second witness has ended, so its environment can be read only through its other thread
    // (/proc/PID/task/TID/environ).
    for arguments in [&IGNORES_SIGTERM[..], &["ignore", "worker", "run=1.a"]] {
        let end = scratch::directory("end").join("now");
        let environment = format!("END={}", end.display());
        assert_witness_dead_before_next_command(arguments, &["env", &environment], script, |_| {
            std::fs::write(&end, "").expect("the file can be written")
        });
    }
}

/// The search for orphans with the run ID begins while the other processes are being killed.
#[testkit::test(requires = CAN_ENTER_NAMESPACES.clone())]
fn an_orphan_with_the_run_id_in_its_environment_is_dead_before_the_next_command_starts_when_the_command_is_killed() {
    let script = r#"(setsid "$@" &); trap '' TERM; while :; do sleep 1; done"#;
    assert_witness_dead_before_next_command(&IGNORES_SIGTERM, &[], script, |a| a.signal(Signal::SIGTERM));
    assert_witness_dead_before_next_command(&IGNORES_SIGTERM, &[], script, |a| {
        kill(a.supervisor(), Signal::SIGKILL).expect("the process is alive")
    });
}

#[testkit::test(requires = CAN_ENTER_NAMESPACES.clone())]
fn an_orphan_that_was_seen_as_a_descendant_is_dead_before_the_next_command_starts() {
    assert_witness_dead_before_next_command(&IGNORES_SIGTERM, &WITHOUT_RUN_ID, r#"setsid "$@" & sleep 1000"#, |a| {
        a.signal(Signal::SIGTERM)
    });
}

#[testkit::test(requires = CAN_ENTER_NAMESPACES.clone())]
fn an_orphan_is_dead_before_the_next_command_starts_when_the_supervisor_dies() {
    assert_witness_dead_before_next_command(&IGNORES_SIGTERM, &[], r#"setsid "$@" & sleep 1000"#, |a| {
        kill(a.supervisor(), Signal::SIGKILL).expect("the process is alive")
    });
}

/// Only the supervisor has seen the orphan, which is not a descendant of the elector.
#[testkit::test(requires = CAN_ENTER_NAMESPACES.clone())]
fn an_orphan_that_the_supervisor_has_seen_is_dead_before_the_next_command_starts_when_the_supervisor_dies() {
    assert_witness_dead_before_next_command(&IGNORES_SIGTERM, &WITHOUT_RUN_ID, r#"setsid "$@" & sleep 1000"#, |a| {
        let supervisor = a.supervisor();
        a.signal(Signal::SIGTERM);
        eventually("only the orphan is left", || children(supervisor).is_empty());
        // On a busy machine, the supervisor may have ended already.
        let _ = kill(supervisor, Signal::SIGKILL);
    });
}

#[testkit::test(requires = CAN_ENTER_NAMESPACES.clone())]
fn processes_that_ignore_sigterm_are_dead_before_the_next_command_starts() {
    // The shell ignores SIGTERM, too, so all processes are alive until they are killed. If the shell were killed first,
    // the witness would become an orphan. Therefore leaderrun kills these processes from the leaves up.
    assert_witness_dead_before_next_command(
        &IGNORES_SIGTERM,
        &WITHOUT_RUN_ID,
        r#"trap '' TERM; setsid "$@" & setsid sleep 1000 & wait"#,
        |a| a.signal(Signal::SIGTERM),
    );
}

#[testkit::test(requires = CAN_ENTER_NAMESPACES.clone())]
fn a_process_whose_main_thread_has_ended_is_dead_before_the_next_command_starts() {
    let arguments = ["ignore", "worker", "run=1.a"];
    assert_witness_dead_before_next_command(&arguments, &WITHOUT_RUN_ID, r#"setsid "$@" & sleep 1000"#, |a| {
        a.signal(Signal::SIGTERM)
    });
    assert_witness_dead_before_next_command(&arguments, &WITHOUT_RUN_ID, r#"setsid "$@" & sleep 1000"#, |a| {
        kill(a.supervisor(), Signal::SIGKILL).expect("the process is alive")
    });
}

#[testkit::test(alone, requires = CAN_ENTER_NAMESPACES.clone())]
fn thousands_of_orphans_are_dead_before_the_next_command_starts() {
    // leaderrun remembers up to 8,192 processes. The test uses fewer, which can be started and killed within seconds.
    const COUNT: usize = 2500;
    let (_namespace, init) = start_namespace();
    let (lock, directory) = (TestLock::file(), scratch::directory("many"));
    // The subshells never exec a program, so they share their parent's memory. Each one blocks while it opens the FIFO,
    // which nobody writes to.
    let spawn = format!(
        r#"setsid sh -c 'mkfifo fifo; n=0; while [ $n -lt {COUNT} ]; do {{ read line < fifo; }} & n=$((n+1)); done; : > made; wait' & sleep 1000"#
    );
    let mut command: Vec<OsString> = ["env", "-C"].map(OsString::from).to_vec();
    command.push(directory.clone().into());
    command.extend(command_in_namespace(init, Vec::new(), &WITHOUT_RUN_ID, &spawn));
    let a = Candidate::with_timing("a", &lock, LONG_TIMING).args(["--kill-after", "1s"]).run(command);
    eventually("all processes exist", || directory.join("made").exists());
    let started = descendants(a.supervisor());
    assert!(started.len() > COUNT, "{}", started.len());
    let mut b = Candidate::with_timing("b", &lock, LONG_TIMING).run_script("echo leads; exec sleep 1000");
    b.wait_for_log("held by a");
    a.signal(Signal::SIGTERM);
    eventually("b leads", || !b.output().is_empty());
    let left: Vec<&Pid> = started.iter().filter(|process| is_alive(process)).collect();
    assert!(left.is_empty(), "{} processes are alive", left.len());
    b.stop();
}

/// The loss makes the process an orphan, because the stop signal ends its parent.
#[testkit::test(requires = CAN_ENTER_NAMESPACES.clone())]
fn a_process_that_was_started_just_before_a_loss_is_dead_before_the_next_command_starts() {
    let (_namespace, init) = start_namespace();
    let (lock, witnesses, proxy) = (TestLock::lease(), Witnesses::new(), Proxy::start(Cluster::shared()));
    // The process is started less than 1.5 s before the stop signal.
    let late = r#"while "$0" check --min-remaining 1500ms; do sleep 0.02; done; exec "$@""#;
    let mut command: Vec<OsString> = ["sh", "-c", late, env!("CARGO_BIN_EXE_leaderrun")].map(OsString::from).to_vec();
    command.extend(command_in_namespace(
        init,
        witnesses.command(&IGNORES_SIGTERM),
        &WITHOUT_RUN_ID,
        r#"setsid "$@" & sleep 1000"#,
    ));
    let mut a = Candidate::new("a", &lock.through(proxy.kubeconfig())).run(command);
    a.wait_for_log("started the command");
    let mut b = Candidate::with_timing("b", &lock, LONG_TIMING).run_witness(&witnesses, &["run=2.b"]);
    b.wait_for_log("held by a");
    proxy.partition();
    a.wait_for_exit(LOST);
    witnesses.wait_for("b", 1);
    b.stop();
    // On a busy machine, the witness may be killed before it has started.
    let runs = if witnesses.lifetimes_of("a").is_empty() { 1 } else { 2 };
    witnesses.assert_runs_one_at_a_time(runs);
}
