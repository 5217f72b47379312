//! Tests of `leaderrun check`, which the leader's command calls.

use nix::sys::signal::{Signal, kill};

use testkit::exit_status::{FAILED, LOST};
use testkit::{Candidate, Cluster, Proxy, TIMING, TestLock, eventually, leaderrun};

use crate::other_users::check_root;

/// Returns a script that defines a function `check` and then runs `text`. The function runs `leaderrun check` and
/// prints its exit status.
fn script(text: &str) -> String {
    format!("check() {{ {} check \"$@\"; echo \"check $?\"; }}; {text}", leaderrun())
}

/// Starts a leader behind a proxy. Its command runs the [`script`] with this text.
fn start_leader_behind_proxy(text: &str) -> (Proxy, testkit::Running) {
    let proxy = Proxy::start(Cluster::shared());
    let a = Candidate::new("a", &TestLock::lease_through(proxy.kubeconfig())).run_script(&script(text));
    (proxy, a)
}

#[testkit::test]
fn check_with_min_remaining_fails_before_the_stop_signal() {
    let (proxy, mut a) =
        start_leader_behind_proxy("trap 'echo TERM; check; exit' TERM; while :; do check --min-remaining 2s; done");
    eventually("the lock is held", || a.output().contains("check 0\n"));
    proxy.partition();
    a.wait_for_exit(LOST);
    let output = a.output();
    let (before, after) = output.split_once("TERM\n").expect("the command has printed TERM");
    // The stop signal may also have ended a check that was running.
    let before = before.trim_end_matches("check 143\n");
    assert!(before.ends_with("check 1\n"), "{output}");
    assert_eq!(after, "check 1\n", "check should fail once the stop signal has arrived");
}

#[testkit::test]
fn check_keeps_failing_when_renewals_succeed_again() {
    let (proxy, mut a) =
        start_leader_behind_proxy("trap 'echo TERM; while :; do check; done' TERM; check; while :; do sleep 0.1; done");
    eventually("the lock is held", || a.output().contains("check 0\n"));
    proxy.partition();
    eventually("the stop signal arrives", || a.output().contains("TERM\n"));
    proxy.heal();
    a.wait_for_exit(LOST);
    let output = a.output();
    let (_, after) = output.split_once("TERM\n").expect("the command has printed TERM");
    assert!(after.contains("check 1\n") && !after.contains("check 0"), "{output}");
}

#[testkit::test(requires = check_root())]
fn check_without_proc_says_what_to_mount() {
    let without_proc = "umount -l /proc && check";
    let a = Candidate::program("a", "unshare").args(["--mount", leaderrun(), "--lock", &TestLock::file().name]);
    let mut a = a.run_script(&script(without_proc));
    a.wait_for_exit(0);
    assert_eq!(a.output(), format!("check {FAILED}\n"), "{}", a.log());
    assert!(a.log().contains("cannot read /proc/self/ns/time: No such file or directory; mount /proc"), "{}", a.log());
}

#[testkit::test]
fn check_fails_when_both_processes_are_frozen() {
    let a = Candidate::new("a", &TestLock::file()).run_script(&script("while :; do check; done"));
    eventually("the lock is held", || a.output().ends_with("check 0\n"));
    let supervisor = a.supervisor();
    kill(supervisor, Signal::SIGSTOP).expect("the supervisor is alive");
    a.signal(Signal::SIGSTOP);
    eventually("the lock is no longer held", || a.output().ends_with("check 1\n"));
    a.signal(Signal::SIGCONT);
    kill(supervisor, Signal::SIGCONT).expect("the supervisor is alive");
}

#[testkit::test]
fn check_works_in_nested_shells() {
    let check = format!("{} check", leaderrun());
    for shell in ["sh", "dash", "bash", "busybox sh"] {
        let skip_if_missing = format!("command -v {shell} >/dev/null || exit 0");
        let nested = format!(
            "{skip_if_missing}; {shell} -c '({check}) && {shell} -c \"{check}\" && exec {shell} -c \"exec {check}\"'"
        );
        Candidate::new("a", &TestLock::file()).run_script(&nested).wait_for_exit(0);
    }
}

#[testkit::test]
fn check_works_in_another_session() {
    let check = format!("{} check", leaderrun());
    let script = format!("setsid sh -c 'sleep 0.1; {check}; echo $?' & wait");
    let mut a = Candidate::new("a", &TestLock::file()).run_script(&script);
    a.wait_for_exit(0);
    assert_eq!(a.output(), "0\n", "{}", a.log());
}

#[testkit::test]
fn check_fails_if_less_time_is_left_than_required() {
    let mut a = Candidate::new("a", &TestLock::file()).run_script(&script("check --min-remaining 1h"));
    a.wait_for_exit(0);
    assert_eq!(a.output(), "check 1\n", "check should fail if less than an hour is left");
}

#[testkit::test]
fn check_names_the_variable_or_descriptor_that_it_cannot_use() {
    let check = format!("{} check; echo $?", leaderrun());
    for (change, expected) in [
        (
            "unset LEADERRUN_TENURE_FD",
            "LEADERRUN_TENURE_FD is not set: leaderrun check works only inside a command that leaderrun runs",
        ),
        ("unset LEADERRUN_RUN_ID", "LEADERRUN_RUN_ID is not set"),
        ("LEADERRUN_TENURE_FD=-1", "LEADERRUN_TENURE_FD \"-1\" is not the number of a descriptor"),
        ("LEADERRUN_TENURE_FD=x", "LEADERRUN_TENURE_FD \"x\" is not the number of a descriptor"),
        ("LEADERRUN_TENURE_FD=99", "descriptor 99 is closed"),
        ("LEADERRUN_TENURE_FD=0", "descriptor 0 no longer refers to the file that leaderrun created"),
        ("LEADERRUN_RUN_ID=another", "was opened by another run, not by the one in LEADERRUN_RUN_ID"),
    ] {
        let mut a = Candidate::new("a", &TestLock::file()).run_script(&format!("{change}; {check}"));
        a.wait_for_exit(0);
        assert_eq!(a.output(), format!("{FAILED}\n"), "{change}: {}", a.log());
        assert!(a.log().contains(expected), "{change}: {}", a.log());
    }
    let mut outside = Candidate::without_default_options("check").args(["check"]).start();
    outside.wait_for_exit(FAILED);
    let expected =
        "leaderrun: LEADERRUN_TENURE_FD is not set: leaderrun check works only inside a command that leaderrun runs\n";
    assert_eq!(outside.log(), expected);
}

#[testkit::test]
fn check_inside_a_nested_run_checks_the_lock_of_the_nested_run() {
    let proxy = Proxy::start(Cluster::shared());
    let (outer, inner) = (TestLock::file(), TestLock::lease_through(proxy.kubeconfig()));
    let program = leaderrun();
    let kubeconfig = inner.kubeconfig.as_ref().expect("the lock has a kubeconfig").display();
    let timing = TIMING.join(" ");
    let inner_script = format!(
        "trap \"echo TERM; {program} check; echo inner \\$?; exit\" TERM; {program} check; echo inner $?; while :; do sleep 0.1; done"
    );
    let nested = format!(
        "{program} --lock {} --kubeconfig {kubeconfig} {timing} -- sh -c '{inner_script}'; echo $?; check",
        inner.name
    );
    let mut a = Candidate::new("a", &outer).run_script(&script(&nested));
    eventually("the inner leaderrun leads", || a.output().contains("inner 0\n"));
    proxy.partition();
    a.wait_for_exit(0);
    assert_eq!(a.output(), format!("inner 0\nTERM\ninner 1\n{LOST}\ncheck 0\n"), "{}", a.log());
}

/// The offsets of the tests' time namespaces, in seconds. The boot time in a namespace must not be negative, so the
/// machine must have been up for longer than 30 seconds.
const TIME_OFFSETS: [i32; 2] = [-30, 30];

/// Returns an error if this user cannot create time namespaces, or the machine has not been up for long enough.
fn check_can_create_time_namespaces() -> Result<(), String> {
    let offset = TIME_OFFSETS[0].to_string();
    let output =
        std::process::Command::new("unshare").args(["--time", "--boottime", &offset, "--fork", "true"]).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(format!("unshare: {error}")),
    }
}

#[testkit::test(requires = check_can_create_time_namespaces())]
fn check_works_in_another_time_namespace() {
    let check = format!("{} check", leaderrun());
    for offset in TIME_OFFSETS {
        let shifted = format!("unshare --time --boottime {offset} --fork {check}");
        let text = format!("{shifted}; echo $?; {shifted} --min-remaining 20s; echo $?");
        let mut a = Candidate::new("a", &TestLock::file()).run_script(&text);
        a.wait_for_exit(0);
        assert_eq!(a.output(), "0\n1\n", "{offset}: {}", a.log());
    }
}
