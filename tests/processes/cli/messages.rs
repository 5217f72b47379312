//! Tests of the messages about failures. The messages about command lines are tested in `command_line.rs` and in
//! `src/cli/tests.rs`.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;
use testkit::exit_status::{NOT_ACQUIRED, NOT_FOUND, UNAVAILABLE};
use testkit::{Candidate, Cluster, Proxy, Running, TestLock, eventually, scratch};

/// Returns the message in the last line of the log: the line without its prefix.
fn last_message(running: &Running) -> String {
    let log = running.log();
    let line = log.lines().last().unwrap_or_default();
    line.split_once(": ").map_or(line, |(_, message)| message).to_owned()
}

/// Runs a candidate that gives up with this status. Returns the last message in its log.
fn run_until_it_gives_up(candidate: Candidate, status: i32) -> String {
    let mut running = candidate.run(["true"]);
    running.wait_for_exit(status);
    last_message(&running)
}

fn lock_file_path(lock: &TestLock) -> &str {
    lock.name.strip_prefix("file:").expect("the lock is a file lock")
}

#[testkit::test]
fn the_last_line_says_why_a_candidate_gave_up() {
    let candidate = |lock: &TestLock| Candidate::new("b", lock).args(["--wait", "0s"]);
    let (lease, file) = (TestLock::lease(), TestLock::file());
    let name = &lease.name;

    let nowhere = TestLock { name: "nowhere/job".into(), ..lease.clone() };
    assert_eq!(
        run_until_it_gives_up(candidate(&nowhere), UNAVAILABLE),
        "warning: could not use nowhere/job within --wait 0s: there is no namespace \"nowhere\"; try kubectl create namespace \
         nowhere, or use an existing namespace for the lock"
    );

    let stranger = lease.through(Cluster::shared().kubeconfig_for("stranger"));
    assert_eq!(
        run_until_it_gives_up(candidate(&stranger), UNAVAILABLE),
        format!(
            "warning: could not use {name} within --wait 0s: not allowed to get leases.coordination.k8s.io \"job\" in namespace \
             {:?}",
            lease.namespace()
        )
    );

    let a = Candidate::new("a", &lease).run_script("echo leads; exec sleep 1000");
    eventually("a leads", || !a.output().is_empty());
    assert_eq!(
        run_until_it_gives_up(candidate(&lease), NOT_ACQUIRED),
        format!("could not acquire {name} within --wait 0s: it is held by a")
    );
    drop(a);

    fs::write(lock_file_path(&file), "some text").expect("the file can be written");
    let message = run_until_it_gives_up(candidate(&file), UNAVAILABLE);
    assert!(message.contains("it is not a leaderrun record: its contents are not JSON; move it away"), "{message}");
    let link = TestLock { name: format!("file:{}", scratch::directory("link").join("x").display()), kubeconfig: None };
    symlink(lock_file_path(&file), lock_file_path(&link)).expect("the link can be created");
    let message = run_until_it_gives_up(candidate(&link), UNAVAILABLE);
    assert!(message.contains("it is a symbolic link; try the path that it points to"), "{message}");

    let mut quoted = Candidate::new("b", &TestLock::file()).run(["sleep 1"]);
    quoted.wait_for_exit(NOT_FOUND);
    assert_eq!(
        last_message(&quoted),
        "error: cannot execute sleep 1: No such file or directory; the command and its arguments were quoted as one word; try -- sleep 1"
    );
}

/// The Role has many lines, so it is not printed again when another permission is missing.
#[testkit::test]
fn the_missing_role_is_printed_once() {
    let lock = TestLock::lease_through(Cluster::shared().kubeconfig_for("stranger"));
    let mut b = Candidate::new("b", &lock).args(["--wait", "4s"]).run(["true"]);
    b.wait_for_log("kind: Role");
    Cluster::shared().set_permissions(
        lock.namespace(),
        "stranger",
        json!([testkit::rbac_rule("leases", &["job"], &["get"])]),
    );
    b.wait_for_exit(UNAVAILABLE);
    let log = b.log();
    assert_eq!(log.matches("kind: Role\n").count(), 1, "{log}");
    let manifest = format!("; leaderrun manifest --lock {} prints the whole Role", lock.name);
    assert_eq!(log.matches(&manifest).count(), 1, "{log}");
}

#[testkit::test]
fn a_leader_that_loses_a_permission_prints_a_role_that_can_be_copied() {
    let lock = TestLock::lease_through(Cluster::shared().kubeconfig_for("deputy"));
    let set_verbs = |verbs: &[&str]| {
        let rules = json!([testkit::rbac_rule("leases", &["job"], verbs)]);
        Cluster::shared().set_permissions(lock.namespace(), "deputy", rules);
    };
    set_verbs(&["get", "create", "update", "watch"]);
    let mut a = Candidate::new("a", &lock).run_script("echo leads; exec sleep 1000");
    eventually("a leads", || !a.output().is_empty());
    set_verbs(&["get", "watch"]);
    a.wait_for_log("kind: Role\n");
    let log = a.log();
    let (before, _) = log.split_once("\napiVersion: ").expect("the log contains a Role");
    let line = before.lines().last().expect("a line precedes the Role");
    assert!(line.contains("; the command will be stopped in "), "{log}");
    assert!(line.ends_with("unless a renewal succeeds; bind this Role to the user or service account:"), "{log}");
    a.stop();
}

#[testkit::test]
fn the_message_about_an_outage_states_when_the_command_is_stopped() {
    let proxy = Proxy::start(Cluster::shared());
    let lock = TestLock::lease_through(proxy.kubeconfig());
    let mut a = Candidate::new("a", &lock).run_script("echo leads; exec sleep 1000");
    eventually("a leads", || !a.output().is_empty());
    proxy.partition();
    a.wait_for_log("does not respond; trying again; the command will be stopped in ");
    let log = a.log();
    let (_, rest) = log.split_once("the command will be stopped in ").expect("the message states a time");
    let (left, rest) = rest.split_once(" unless").expect("the time is followed by a condition");
    let left = humantime::parse_duration(left).expect("the time is a duration");
    assert!(left < Duration::from_secs(4), "{log}");
    assert!(rest.starts_with(" a renewal succeeds"), "{log}");
    proxy.heal();
    a.wait_for_log("succeed again");
    a.signal(Signal::SIGTERM);
    a.wait();
}

#[testkit::test]
fn verbose_logs_contain_no_debug_formatting() {
    let lock = TestLock::lease();
    let mut a = Candidate::new("a", &lock).args(["-v"]).run_script("exit 0");
    a.wait_for_exit(0);
    // Parts of Rust values as `{:?}` prints them.
    for fragment in ["Some(", "None", "Ok(", "Err(", "{ ", "::", "=\""] {
        assert!(!a.log().contains(fragment), "{fragment:?}: {}", a.log());
    }
}
