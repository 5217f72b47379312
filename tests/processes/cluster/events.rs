//! Tests of Kubernetes Events about the lock.

use hyper::Method;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use testkit::exit_status::LOST;
use testkit::{CANDIDATE_VERBS, Candidate, Cluster, Match, Proxy, TestLock, Witnesses, eventually};

/// Returns the Events in the namespace of a lock.
fn events(lock: &TestLock) -> Vec<Value> {
    let path = format!("/api/v1/namespaces/{}/events", lock.namespace());
    let list = Cluster::shared().admin().get(&path).expect("the Events can be listed");
    list["items"].as_array().cloned().unwrap_or_default()
}

/// Returns the messages of the Events in the namespace of a lock.
fn messages(lock: &TestLock) -> Vec<String> {
    events(lock).iter().map(|event| event["message"].as_str().expect("an Event has a message").to_owned()).collect()
}

#[testkit::test]
fn an_event_is_written_when_leadership_begins_and_when_it_ends() {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let mut a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    eventually("the first Event is written", || messages(&lock) == ["a became leader"]);
    let lease = Cluster::shared().admin().get(&lock.lease_path()).expect("the lease can be read");
    let event = events(&lock).remove(0);
    let lease_reference = json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "namespace": lock.namespace(),
        "name": "job",
        "uid": lease["metadata"]["uid"],
    });
    assert_eq!(event["involvedObject"], lease_reference);
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
        let uid = admin.get(&path).expect("the object can be read")["metadata"]["uid"].clone();
        let is_about = |event: &Value| event["involvedObject"]["kind"] == kind && event["involvedObject"]["uid"] == uid;
        eventually("two Events are written", || events(&lock).iter().filter(|event| is_about(event)).count() == 2);
    }
}

#[testkit::test]
fn a_loss_is_recorded_as_an_event() {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let mut a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let other_holder =
        json!({ "spec": { "holderIdentity": "b", "leaseDurationSeconds": 60 }, "metadata": { "annotations": null } });
    Cluster::shared().admin().merge_patch(&lock.lease_path(), &other_holder).expect("the lease can be changed");
    a.wait_for_exit(LOST);
    eventually("the Event is written", || messages(&lock).contains(&"a stopped leading".to_owned()));
}

#[testkit::test]
fn a_candidate_without_permission_to_write_events_logs_no_warning() {
    let lock = TestLock::lease_with_verbs(&CANDIDATE_VERBS);
    let mut a = Candidate::new("a", &lock).run_script("true");
    a.wait_for_exit(0);
    assert!(!a.log().contains("warning"), "{}", a.log());
    assert_eq!(events(&lock), Vec::<Value>::new());
}

#[testkit::test]
fn event_requests_without_a_response_prevent_neither_renewals_nor_the_exit() {
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
    assert!(!event_connection.is_some_and(carries_renewals), "Events should have their own connection");
    assert!(!a.log().contains("warning"), "{}", a.log());
}
