//! Tests of Kubernetes Events about the lock.

use std::fs;
use std::os::unix::process::CommandExt;

use hyper::Method;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use testkit::exit_status::LOST;
use testkit::{CANDIDATE_VERBS, Candidate, Cluster, Match, Proxy, TIMING, TestLock, Witnesses, eventually, rbac_rule};

use crate::other_users::{become_user, is_root, open_folder, program};

/// Returns the Events in the namespace of a lock.
fn events(lock: &TestLock) -> Vec<Value> {
    let path = format!("/api/v1/namespaces/{}/events", lock.namespace());
    let list = Cluster::shared().admin().get(&path).expect("events");
    list["items"].as_array().cloned().unwrap_or_default()
}

/// Returns the messages of the Events in the namespace of a lock.
fn messages(lock: &TestLock) -> Vec<String> {
    events(lock).iter().map(|event| event["message"].as_str().expect("a message").to_owned()).collect()
}

#[testkit::test]
fn an_event_is_written_when_leadership_begins_and_when_it_ends() {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let mut a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    eventually("the first Event is written", || messages(&lock) == ["a became leader"]);
    let lease = Cluster::shared().admin().get(&lock.lease_path()).expect("the lease");
    let event = events(&lock).remove(0);
    let about = json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "namespace": lock.namespace(),
        "name": "job",
        "uid": lease["metadata"]["uid"],
    });
    assert_eq!(event["involvedObject"], about);
    assert_eq!((&event["type"], &event["reason"]), (&"Normal".into(), &"LeaderElection".into()));
    assert_eq!((&event["source"]["component"], &event["count"]), (&"leaderrun".into(), &1.into()));
    assert!(event["firstTimestamp"].is_string() && event["firstTimestamp"] == event["lastTimestamp"], "{event}");
    a.stop();
    eventually("the second Event is written", || {
        let mut messages = messages(&lock);
        messages.sort();
        messages == ["a became leader", "a stopped leading"]
    });
}

#[testkit::test]
fn events_are_written_for_each_object_of_a_lock() {
    let lock = TestLock::of_kind("configmap+lease");
    Candidate::new("a", &lock).run_script("true").wait_for_exit(0);
    let admin = Cluster::shared().admin();
    for (kind, path) in [("Lease", lock.lease_path()), ("ConfigMap", lock.object_path("configmaps"))] {
        let uid = admin.get(&path).expect("the object")["metadata"]["uid"].clone();
        let about = |event: &Value| event["involvedObject"]["kind"] == kind && event["involvedObject"]["uid"] == uid;
        eventually("two Events are written", || events(&lock).iter().filter(|event| about(event)).count() == 2);
    }
}

#[testkit::test]
fn a_loss_is_recorded_as_an_event() {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let mut a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let other_holder =
        json!({ "spec": { "holderIdentity": "b", "leaseDurationSeconds": 60 }, "metadata": { "annotations": null } });
    Cluster::shared().admin().merge_patch(&lock.lease_path(), &other_holder).expect("the lease");
    a.wait_for_exit(LOST);
    eventually("the Event is written", || messages(&lock).contains(&"a stopped leading".to_owned()));
}

#[testkit::test]
fn an_event_that_cannot_be_written_is_left_out() {
    let lock = TestLock::lease_through(Cluster::shared().kubeconfig_for("candidate"));
    Cluster::shared().grant(lock.namespace(), "candidate", json!([rbac_rule("leases", &["job"], &CANDIDATE_VERBS)]));
    let mut a = Candidate::new("a", &lock).run_script("true");
    a.wait_for_exit(0);
    assert!(!a.log().contains("warning"), "{}", a.log());
    assert_eq!(events(&lock), [Value::Null; 0]);
}

#[testkit::test]
fn events_that_are_not_answered_delay_neither_renewals_nor_the_exit() {
    let proxy = Proxy::start(Cluster::shared());
    let (lock, witnesses) = (TestLock::lease_through(proxy.kubeconfig()), Witnesses::new());
    let held_events = proxy.hold_requests(Match::method(Method::POST).on("/events"));
    let mut a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
    held_events.wait_until_held();
    let renewals = || proxy.requests().iter().filter(|request| request.method == Method::PUT).count();
    let before = renewals();
    eventually("the lock is still renewed", || renewals() >= before + 6);
    a.signal(Signal::SIGTERM);
    a.wait_for_exit(0);
    let event_connection =
        proxy.requests().iter().find(|request| request.path.contains("/events")).map(|request| request.connection);
    let carries_renewals = |connection| {
        proxy.requests().iter().any(|request| request.method == Method::PUT && request.connection == connection)
    };
    assert!(!event_connection.is_some_and(carries_renewals), "Events should have a connection of their own");
    assert!(!a.log().contains("warning"), "{}", a.log());
}

/// A Python program that starts as many processes as the limit permits, and ends with status 7 on SIGTERM.
const FORK_UNTIL_REFUSED: &str = "
import os, signal, time
signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
while True:
    try:
        if os.fork() == 0: signal.pause()
    except BlockingIOError: break
print('no more processes', flush=True)
while True: signal.pause()
";

/// The look-up of the API server's name for a new connection needs a thread, which the limit may refuse.
#[testkit::test(requires = is_root())]
fn a_command_that_has_reached_the_process_limit_does_not_prevent_renewals_or_its_own_end() {
    let (lock, proxy) = (TestLock::lease(), Proxy::start(Cluster::shared()));
    let kubeconfig = open_folder("by-name", 0o755).join("kubeconfig");
    let text = fs::read_to_string(proxy.kubeconfig()).expect("a kubeconfig");
    fs::write(&kubeconfig, text.replace("127.0.0.1", "localhost")).expect("a file");
    // This user has no other processes that would count towards the limit.
    let user = 100_000 + 16 * std::process::id();
    let mut a = Candidate::program("a", program())
        .args(["--identity", "a", "--lock", &lock.name, "--kubeconfig"])
        .args([kubeconfig])
        .args(TIMING)
        .configure(|command| {
            become_user(command, user);
            // SAFETY: only one system call is made between fork and exec.
            unsafe { command.pre_exec(|| setrlimit(Resource::RLIMIT_NPROC, 40, 40).map_err(Into::into)) };
        })
        .run(["python3", "-c", FORK_UNTIL_REFUSED]);
    eventually("the limit is reached", || a.output().contains("no more processes"));
    // The look-up is only repeated after five seconds. When it fails, the addresses of the first look-up are still
    // used.
    for _ in 0..10 {
        proxy.break_existing();
        Cluster::shared().wait_for_renewals(&lock, 1);
    }
    a.signal(Signal::SIGTERM);
    a.wait_for_exit(7);
    assert!(!a.log().contains("panicked"), "{}", a.log());
    Candidate::new("b", &lock).run(["true"]).wait_for_exit(0);
}
