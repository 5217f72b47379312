//! Tests of locks whose record is in two objects, and of faults between the two writes.

use std::time::Duration;

use serde_json::{Value, json};

use testkit::exit_status::LOST;
use testkit::{CANDIDATE_VERBS, Candidate, Cluster, Match, Proxy, TestLock, Watch, Witnesses, eventually, rbac_rule};

use super::annotations::{LEADER_ANNOTATION, record_in_annotation};

/// The kind of lock whose record is in an Endpoints object and in a Lease.
const ENDPOINTS_AND_LEASE: &str = "endpoints+lease";

fn lease_holder(lock: &TestLock) -> Value {
    Cluster::shared().admin().get(&lock.lease_path()).expect("the lease can be read")["spec"]["holderIdentity"].clone()
}

fn annotation_holder(lock: &TestLock, plural: &str) -> Value {
    record_in_annotation(lock, plural)["holderIdentity"].clone()
}

/// Returns a lock of this kind with the namespace and the name of another lock.
fn with_kind(lock: &TestLock, kind: &str) -> TestLock {
    let (_, name) = lock.name.split_once(':').expect("the name starts with a kind");
    TestLock { name: format!("{kind}:{name}"), ..lock.clone() }
}

#[testkit::test]
fn a_hand_over_changes_the_holder_in_both_objects() {
    for (kind, plural) in [(ENDPOINTS_AND_LEASE, "endpoints"), ("configmap+lease", "configmaps")] {
        let (lock, witnesses) = (TestLock::of_kind(kind), Witnesses::new());
        let holders = || (lease_holder(&lock), annotation_holder(&lock, plural));
        let mut a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
        witnesses.wait_for("a", 1);
        assert_eq!(holders(), (json!("a"), json!("a")));
        let mut b = Candidate::new("b", &lock).run_witness(&witnesses, &[]);
        b.wait_for_log("held by a");
        a.stop();
        witnesses.wait_for("b", 1);
        b.stop();
        assert_eq!(holders(), (json!(""), json!("")));
        witnesses.assert_runs_one_at_a_time(2);
    }
}

/// The candidates first use the Endpoints, then both objects, then the Lease. Two candidates use each new kind, so that
/// the lock is handed over both from the old kind and within the new one. As in a rolling update, the next candidate is
/// already waiting when the leader is stopped, and all have the identity `a`.
#[testkit::test]
fn candidates_migrate_from_endpoints_to_a_lease_in_three_steps() {
    let (old, witnesses) = (TestLock::of_kind("endpoints"), Witnesses::new());
    let kinds = ["endpoints", ENDPOINTS_AND_LEASE, ENDPOINTS_AND_LEASE, "lease", "lease"];
    let mut leader = Candidate::new("a", &old).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    for (index, kind) in kinds.into_iter().enumerate().skip(1) {
        let next = Candidate::new("a", &with_kind(&old, kind)).run_witness(&witnesses, &[]);
        next.wait_for_log("held by a");
        leader.stop();
        eventually("the next candidate leads", || witnesses.lifetimes().len() > index);
        leader = next;
    }
    leader.stop();
    let lifetimes = witnesses.lifetimes();
    assert_eq!(lifetimes.len(), kinds.len());
    for pair in lifetimes.windows(2) {
        assert!(pair[0].last_seen_at < pair[1].started_at, "two commands were alive at the same time");
    }
}

#[testkit::test]
fn a_lock_in_two_objects_is_held_even_if_only_the_lease_names_a_holder() {
    let (lock, witnesses) = (TestLock::of_kind(ENDPOINTS_AND_LEASE), Witnesses::new());
    let admin = Cluster::shared().admin();
    let spec = json!({ "holderIdentity": "x", "leaseDurationSeconds": 3, "renewTime": "2026-01-01T00:00:00.000000Z" });
    admin
        .replace(&lock.lease_path(), &json!({ "metadata": { "name": "job" }, "spec": spec }))
        .expect("the lease can be written");
    let start = testkit::nanos_since_boot();
    let mut a = Candidate::new("a", &lock).run_witness(&witnesses, &["ends"]);
    a.wait_for_log("held by x");
    a.wait_for_exit(0);
    let waited = Duration::from_nanos(witnesses.lifetimes_of("a")[0].started_at - start);
    assert!(waited > Duration::from_millis(2900), "the lock was acquired before the lease expired: after {waited:?}");
}

/// A candidate can write only one of the objects if the second step of a migration is rolled out before the Role for it
/// is applied.
#[testkit::test]
fn a_candidate_that_may_write_only_one_object_does_not_block_others() {
    let (old, witnesses) = (TestLock::of_kind("endpoints"), Witnesses::new());
    let may_write = rbac_rule("endpoints", &["job"], &CANDIDATE_VERBS);
    let may_read = rbac_rule("leases", &["job"], &["get", "watch"]);
    Cluster::shared().set_permissions(old.namespace(), "deputy", json!([may_write, may_read]));
    let both = with_kind(&old, ENDPOINTS_AND_LEASE).through(Cluster::shared().kubeconfig_for("deputy"));
    let mut a = Candidate::new("a", &both).run_witness(&witnesses, &[]);
    a.wait_for_log("not allowed to update leases");
    let mut b = Candidate::new("b", &old).run_witness(&witnesses, &[]);
    witnesses.wait_for("b", 1);
    b.stop();
    a.signal(nix::sys::signal::Signal::SIGTERM);
    a.wait_for_exit(143);
    assert_eq!(annotation_holder(&old, "endpoints"), "");
    assert_eq!(a.log().matches("not allowed").count(), 1, "the refusal should be logged once: {}", a.log());
}

/// The writes can fail because a webhook for one of the two kinds of object hangs, fails or refuses them.
#[testkit::test]
fn a_candidate_whose_writes_to_one_object_fail_does_not_block_others() {
    for status in [None, Some(500), Some(403)] {
        let (old, proxy) = (TestLock::of_kind("endpoints"), Proxy::start(Cluster::shared()));
        let (writes, witnesses) = (Match::put().on("/leases"), Witnesses::new());
        let held_writes = status.is_none().then(|| proxy.hold_requests(writes.clone()));
        if let Some(status) = status {
            proxy.respond(writes.clone(), status, None);
        }
        let both = with_kind(&old, ENDPOINTS_AND_LEASE).through(proxy.kubeconfig());
        let mut a = Candidate::new("a", &both).run_witness(&witnesses, &[]);
        proxy.wait_for_request(|request| writes.covers(request), testkit::TIMEOUT);
        let mut b = Candidate::new("b", &old).run_witness(&witnesses, &[]);
        witnesses.wait_for("b", 1);
        assert!(!b.log().contains("expired"), "{status:?}: b waited for a candidate that does not lead: {}", b.log());
        drop(held_writes);
        b.stop();
        a.signal(nix::sys::signal::Signal::SIGTERM);
        a.wait();
        witnesses.assert_runs_one_at_a_time(1);
    }
}

#[testkit::test]
fn a_write_whose_response_is_lost_is_not_reported_as_an_outside_edit() {
    // A lost response costs nearly half of the time until the renew deadline, so the durations are longer than in other
    // tests.
    let timing = ["--lease-duration", "12s", "--renew-deadline", "8s", "--retry-period", "1s"];
    for plural in ["endpoints", "leases"] {
        let proxy = Proxy::start(Cluster::shared());
        let (lock, witnesses) = (TestLock::of_kind(ENDPOINTS_AND_LEASE).through(proxy.kubeconfig()), Witnesses::new());
        let mut a = Candidate::with_timing("a", &lock, timing).run_witness(&witnesses, &[]);
        witnesses.wait_for("a", 1);
        proxy.drop_responses(Match::put().on(plural).next(1));
        a.wait_for_log("does not respond; trying again");
        a.wait_for_log("succeed again");
        Cluster::shared().wait_for_renewals(&lock, 1);
        a.stop();
        assert!(!a.log().contains("another program"), "{}", a.log());
    }
}

#[testkit::test]
fn a_lock_is_lost_when_one_object_names_another_holder() {
    for edits_endpoints in [true, false] {
        let (lock, witnesses) = (TestLock::of_kind(ENDPOINTS_AND_LEASE), Witnesses::new());
        let admin = Cluster::shared().admin();
        let mut a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
        witnesses.wait_for("a", 1);
        if edits_endpoints {
            let mut record = record_in_annotation(&lock, "endpoints");
            record["holderIdentity"] = json!("nobody");
            let annotations = json!({ LEADER_ANNOTATION: record.to_string() });
            let patch = json!({ "metadata": { "annotations": annotations } });
            admin.merge_patch(&lock.object_path("endpoints"), &patch).expect("the record can be changed");
        } else {
            admin
                .merge_patch(&lock.lease_path(), &json!({ "spec": { "holderIdentity": "nobody" } }))
                .expect("the record can be changed");
        }
        a.wait_for_exit(LOST);
        assert_eq!(
            witnesses.lifetimes_of("a")[0].signaled_at,
            0,
            "the command got a stop signal instead of SIGKILL: {}",
            a.log()
        );
    }
}

#[testkit::test]
fn a_lock_in_two_objects_expires_after_its_holder_crashed() {
    for kind in [ENDPOINTS_AND_LEASE, "configmap+lease"] {
        let (lock, witnesses) = (TestLock::of_kind(kind), Witnesses::new());
        let a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
        witnesses.wait_for("a", 1);
        let mut b = Candidate::new("b", &lock).run_witness(&witnesses, &[]);
        b.wait_for_log("held by a");
        // This kills all processes of a, as when the node fails.
        drop(a);
        witnesses.wait_for("b", 1);
        b.stop();
        assert!(
            b.log().contains("expired: a did not renew it in time") && !b.log().contains("another program"),
            "{}",
            b.log()
        );
        witnesses.assert_runs_one_at_a_time(2);
    }
}

/// The crashed holder used client-go's multilock, which writes fractions of a second only into the Lease.
#[testkit::test]
fn a_crashed_holder_of_two_objects_does_not_block_a_later_run() {
    let (lock, witnesses) = (TestLock::of_kind(ENDPOINTS_AND_LEASE), Witnesses::new());
    let admin = Cluster::shared().admin();
    let record_at = |time: &str| json!({ "holderIdentity": "x", "leaseDurationSeconds": 3, "acquireTime": time, "renewTime": time });
    let spec = record_at("2026-01-01T00:00:00.123456Z");
    admin
        .replace(&lock.lease_path(), &json!({ "metadata": { "name": "job" }, "spec": spec }))
        .expect("the lease can be written");
    let annotations = json!({ LEADER_ANNOTATION: record_at("2026-01-01T00:00:00Z").to_string() });
    let endpoints = json!({ "metadata": { "name": "job", "annotations": annotations } });
    admin.replace(&lock.object_path("endpoints"), &endpoints).expect("the endpoints can be written");
    let mut a = Candidate::new("a", &lock).args(["--wait", "0s"]).run_witness(&witnesses, &["ends"]);
    a.wait_for_exit(0);
    assert!(a.log().contains("held by x"), "the log should name the holder that both objects name: {}", a.log());
}

#[testkit::test]
fn a_release_that_reached_one_of_two_objects_is_completed() {
    // With these durations, the first write after SIGTERM is the release, not a renewal.
    let timing = ["--lease-duration", "60s", "--renew-deadline", "40s", "--retry-period", "10s"];
    for status in [429, 503] {
        let proxy = Proxy::start(Cluster::shared());
        let (lock, witnesses) = (TestLock::of_kind(ENDPOINTS_AND_LEASE).through(proxy.kubeconfig()), Witnesses::new());
        let mut a = Candidate::with_timing("a", &lock, timing).run_witness(&witnesses, &[]);
        witnesses.wait_for("a", 1);
        // The release of the Endpoints succeeds. The following release of the Lease fails once.
        let endpoints_response = proxy.hold_responses(Match::put().on("endpoints").next(1));
        a.signal(nix::sys::signal::Signal::SIGTERM);
        endpoints_response.wait_until_held();
        assert_eq!((lease_holder(&lock), annotation_holder(&lock, "endpoints")), (json!("a"), json!("")));
        proxy.respond(Match::put().on("leases").next(1), status, None);
        endpoints_response.release();
        a.wait();
        assert_eq!((lease_holder(&lock), annotation_holder(&lock, "endpoints")), (json!(""), json!("")), "{}", a.log());
    }
}

/// Watches the Endpoints object of a lock.
fn watch_endpoints(lock: &TestLock) -> Watch {
    let endpoints = format!("/api/v1/namespaces/{}/endpoints", lock.namespace());
    let path = format!("{endpoints}?fieldSelector=metadata.name%3Djob");
    Cluster::shared().admin().watch(&path).expect("the watch can be started")
}

/// The holder is killed before the request, because its renewals would also write to the objects.
#[testkit::test]
fn a_step_down_request_that_reached_one_of_two_objects_does_not_release_the_lock() {
    let (lock, witnesses, admin) =
        (TestLock::of_kind(ENDPOINTS_AND_LEASE), Witnesses::new(), Cluster::shared().admin());
    let a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    drop(a);
    let changes = watch_endpoints(&lock);
    let proxy = Proxy::start(Cluster::shared());
    proxy.respond(Match::put().on("/leases").next(1), 409, None);
    let mut step_down = Candidate::subcommand("step-down", &lock.through(proxy.kubeconfig())).start();
    step_down.wait_for_exit(0);
    // The watch delivers this change after all changes that the subcommand has made.
    let last_change = json!({ "metadata": { "labels": { "last": "yes" } } });
    admin.merge_patch(&lock.object_path("endpoints"), &last_change).expect("the label can be added");
    loop {
        let object = changes.next_change().expect("the watch is still open")["object"].take();
        if object["metadata"]["labels"]["last"] == "yes" {
            break;
        }
        let record = object["metadata"]["annotations"][LEADER_ANNOTATION].as_str();
        let record: Value =
            serde_json::from_str(record.expect("the object has a record")).expect("the record is valid JSON");
        assert_eq!(record["holderIdentity"], "a");
    }
}

#[testkit::test]
fn a_claim_that_reached_one_of_two_objects_is_released() {
    let proxy = Proxy::start(Cluster::shared());
    let lock = TestLock::of_kind(ENDPOINTS_AND_LEASE).through(proxy.kubeconfig());
    proxy.respond(Match::put().on("/leases"), 403, None);
    let changes = watch_endpoints(&lock);
    let mut a = Candidate::new("a", &lock).run_script("true");
    for holder in ["a", "", "a", "", "a", ""] {
        let change = changes.next_change().expect("the watch is still open");
        let record = change["object"]["metadata"]["annotations"][LEADER_ANNOTATION].as_str();
        let record: Value =
            serde_json::from_str(record.expect("the object has a record")).expect("the record is valid JSON");
        assert_eq!(record["holderIdentity"], holder);
    }
    a.signal(nix::sys::signal::Signal::SIGTERM);
    a.wait_for_exit(143);
}

/// Both objects are deleted, and the leader can recreate only one of them.
#[testkit::test]
fn a_leader_that_can_restore_only_one_of_two_objects_blocks_others_until_its_command_is_dead() {
    let proxy = Proxy::start(Cluster::shared());
    let (both, witnesses) = (TestLock::of_kind(ENDPOINTS_AND_LEASE).through(proxy.kubeconfig()), Witnesses::new());
    let old = with_kind(&both, "endpoints").through(Cluster::shared().kubeconfig());
    let mut a = Candidate::new("a", &both).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let mut b = Candidate::new("b", &old).run_witness(&witnesses, &[]);
    b.wait_for_log("held by a");
    proxy.respond(Match::put().on("/leases"), 403, None);
    for path in [both.lease_path(), both.object_path("endpoints")] {
        Cluster::shared().admin().delete(&path).expect("the object exists");
    }
    witnesses.wait_for("b", 1);
    a.wait_for_exit(LOST);
    b.stop();
    witnesses.assert_runs_one_at_a_time(2);
}
