//! Tests of locks that leaderrun shares with other implementations of leader election.

use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

use testkit::other_candidate::{Ending, Implementation, LEADER_ANNOTATION, OtherCandidate, RecordPath};
use testkit::{Candidate, Cluster, TestLock, Witnesses};

/// Returns a Lease lock and a ConfigMap lock, each with the path of its record. Creates the ConfigMap, because
/// [`OtherCandidate`] does not create the object whose annotation it writes.
fn locks() -> Vec<(TestLock, RecordPath)> {
    let (lease, configmap) = (TestLock::lease(), TestLock::of_kind("configmap"));
    let path = configmap.object_path("configmaps");
    let admin = Cluster::shared().admin();
    admin
        .create(path.trim_end_matches("/job"), &json!({ "metadata": { "name": "job" } }))
        .expect("the ConfigMap can be created");
    let lease_path = RecordPath::Lease(lease.lease_path());
    vec![(lease, lease_path), (configmap, RecordPath::Annotation(path))]
}

/// Returns the number of transitions in the record.
fn transitions(path: &RecordPath) -> i64 {
    let get = |path: &str| Cluster::shared().admin().get(path).expect("the object can be read");
    let transitions = match path {
        RecordPath::Lease(path) => get(path)["spec"]["leaseTransitions"].as_i64(),
        RecordPath::Annotation(path) => {
            let record = get(path)["metadata"]["annotations"][LEADER_ANNOTATION].as_str().map(serde_json::from_str);
            let record: Value = record.expect("the object has the annotation").expect("the annotation is JSON");
            record["leaderTransitions"].as_i64()
        }
    };
    transitions.expect("the record counts transitions")
}

/// Checks, for both kinds of lock, that leaderrun takes over when client-go's leadership ends in this way.
fn assert_leaderrun_takes_over_from_client_go(ending: Ending) {
    for (lock, path) in locks() {
        let witnesses = Witnesses::new();
        let client_go = OtherCandidate::start(path.clone(), Implementation::ClientGo);
        client_go.wait_until_leading();
        let before = transitions(&path);
        let mut a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
        a.wait_for_log("held by other");
        let leadership = client_go.end(ending);
        witnesses.wait_for("a", 1);
        assert!(leadership.ended_at < witnesses.lifetimes_of("a")[0].started_at);
        assert_eq!(transitions(&path), before + 1);
        a.stop();
    }
}

/// Checks that a candidate of this implementation takes over after leaderrun has released the lock.
fn assert_other_takes_over_from_leaderrun_after_a_release(
    lock: &TestLock,
    path: RecordPath,
    implementation: Implementation,
) {
    let witnesses = Witnesses::new();
    let mut a = Candidate::new("a", lock).run_witness(&witnesses, &["linger"]);
    witnesses.wait_for("a", 1);
    let before = transitions(&path);
    let other = OtherCandidate::start(path.clone(), implementation);
    a.stop();
    other.wait_until_leading();
    let leadership = other.end(Ending::Crash);
    assert!(witnesses.lifetimes_of("a")[0].last_seen_at < leadership.began_at);
    assert_eq!(transitions(&path), before + 1);
}

#[testkit::test]
fn leaderrun_takes_over_after_client_go_releases() {
    assert_leaderrun_takes_over_from_client_go(Ending::Release);
}

#[testkit::test]
fn leaderrun_takes_over_after_client_go_crashes() {
    assert_leaderrun_takes_over_from_client_go(Ending::Crash);
}

#[testkit::test]
fn client_go_takes_over_after_leaderrun_releases() {
    for (lock, path) in locks() {
        assert_other_takes_over_from_leaderrun_after_a_release(&lock, path, Implementation::ClientGo);
    }
}

#[testkit::test]
fn client_go_takes_over_after_leaderrun_crashes() {
    for (lock, path) in locks() {
        let witnesses = Witnesses::new();
        let a = Candidate::new("a", &lock).run_witness(&witnesses, &["hidden", "ignore"]);
        witnesses.wait_for("a", 2);
        let client_go = OtherCandidate::start(path, Implementation::ClientGo);
        kill(a.elector(), Signal::SIGKILL).expect("the elector is alive");
        client_go.wait_until_leading();
        let leadership = client_go.end(Ending::Crash);
        let lifetimes = witnesses.lifetimes_of("a");
        assert!(lifetimes.iter().all(|lifetime| lifetime.last_seen_at < leadership.began_at));
    }
}

#[testkit::test]
fn fabric8_takes_over_from_leaderrun_and_back() {
    let lock = TestLock::of_kind("configmap");
    let path = RecordPath::Annotation(lock.object_path("configmaps"));
    assert_other_takes_over_from_leaderrun_after_a_release(&lock, path.clone(), Implementation::Fabric8);
    let fabric8 = OtherCandidate::start(path, Implementation::Fabric8);
    fabric8.wait_until_leading();
    let witnesses = Witnesses::new();
    let mut a = Candidate::new("a", &lock).run_witness(&witnesses, &["ends"]);
    a.wait_for_log("held by other");
    let leadership = fabric8.end(Ending::Release);
    a.wait_for_exit(0);
    assert!(leadership.ended_at < witnesses.lifetimes_of("a")[0].started_at);
}
