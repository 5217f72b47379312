//! Tests of locks whose record is in an annotation.

use serde_json::{Value, json};

use testkit::exit_status::{LOST, UNAVAILABLE};
use testkit::{Candidate, Cluster, Match, Proxy, TestLock, Witnesses, eventually};

/// The annotation that contains the record.
pub const LEADER_ANNOTATION: &str = "control-plane.alpha.kubernetes.io/leader";

/// Returns the record in the annotation of the lock's object. `plural` names the resource in the object's URL, such as
/// `configmaps`.
pub fn record_in_annotation(lock: &TestLock, plural: &str) -> Value {
    let object = Cluster::shared().admin().get(&lock.object_path(plural)).expect("the object exists");
    serde_json::from_str(
        object["metadata"]["annotations"][LEADER_ANNOTATION].as_str().expect("the object has the annotation"),
    )
    .expect("the record is JSON")
}

#[testkit::test]
fn a_lock_in_an_annotation_is_handed_over() {
    for (kind, plural) in [("endpoints", "endpoints"), ("configmap", "configmaps")] {
        let (lock, witnesses) = (TestLock::of_kind(kind), Witnesses::new());
        let mut a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
        witnesses.wait_for("a", 1);
        let held = record_in_annotation(&lock, plural);
        assert_eq!((&held["holderIdentity"], &held["leaseDurationSeconds"]), (&json!("a"), &json!(6)));
        assert_eq!(held["leaseDuration"], "PT6S");
        let mut b = Candidate::new("b", &lock).run_witness(&witnesses, &[]);
        b.wait_for_log("held by a");
        eventually("the record is renewed", || record_in_annotation(&lock, plural)["renewTime"] != held["renewTime"]);
        a.stop();
        witnesses.wait_for("b", 1);
        b.stop();
        let released = record_in_annotation(&lock, plural);
        assert_eq!((&released["holderIdentity"], &released["leaseDuration"]), (&json!(""), &json!("PT6S")));
        witnesses.assert_runs_one_at_a_time(2);
    }
}

#[testkit::test]
fn a_leader_keeps_its_lock_and_all_other_content_while_another_program_writes_to_the_object() {
    let (lock, witnesses) = (TestLock::of_kind("configmap"), Witnesses::new());
    let (admin, path) = (Cluster::shared().admin(), lock.object_path("configmaps"));
    let metadata = json!({ "name": "job", "annotations": { "kept": "yes" } });
    let config_map = json!({ "metadata": metadata, "data": { "setting": "0" } });
    admin.create(path.trim_end_matches("/job"), &config_map).expect("the ConfigMap can be created");
    let mut a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let mut b = Candidate::new("b", &lock).run_witness(&witnesses, &["ends"]);
    b.wait_for_log("held by a");
    let start = std::time::Instant::now();
    let mut setting = 0;
    while start.elapsed() < std::time::Duration::from_secs(8) {
        setting += 1;
        admin
            .merge_patch(&path, &json!({ "data": { "setting": setting.to_string() } }))
            .expect("the setting can be changed");
        assert_eq!(admin.get(&path).expect("the ConfigMap exists")["data"]["setting"], setting.to_string());
        // Without this pause, every renewal could conflict with one of these writes on a busy machine.
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(witnesses.lifetimes_of("a")[0].signaled_at, 0, "the command got a stop signal: {}", a.log());
    a.stop();
    b.wait_for_exit(0);
    let object = admin.get(&path).expect("the ConfigMap exists");
    assert_eq!(object["metadata"]["annotations"]["kept"], "yes");
    assert_eq!(object["data"]["setting"], setting.to_string());
    witnesses.assert_runs_one_at_a_time(2);
}

#[testkit::test]
fn an_annotation_that_is_not_a_record_is_not_overwritten() {
    let (lock, witnesses) = (TestLock::of_kind("configmap"), Witnesses::new());
    let not_a_record = "not a record \u{1b}[2J";
    let metadata = json!({ "name": "job", "annotations": { LEADER_ANNOTATION: not_a_record } });
    let path = lock.object_path("configmaps");
    let admin = Cluster::shared().admin();
    admin
        .create(path.trim_end_matches("/job"), &json!({ "metadata": metadata }))
        .expect("the ConfigMap can be created");
    let mut a = Candidate::new("a", &lock).args(["--wait", "3s"]).run_witness(&witnesses, &[]);
    a.wait_for_exit(UNAVAILABLE);
    assert!(a.log().contains("is not a valid leader election record"), "{}", a.log());
    assert!(!a.log().contains('\u{1b}'));
    let object = admin.get(&path).expect("the ConfigMap exists");
    assert_eq!(object["metadata"]["annotations"][LEADER_ANNOTATION], not_a_record);
    witnesses.assert_runs_one_at_a_time(0);
}

/// The Python client writes the duration as text, and local times without an offset. The year 9999 is a common way to
/// write "forever".
#[testkit::test]
fn a_record_of_another_program_with_unusual_times_expires() {
    for (duration, acquired, renewed) in [
        (r#""2""#, "2026-01-02 03:04:05.000001", "2026-01-02 03:04:06.000002"),
        ("2", "2026-01-02T03:04:05Z", "9999-12-31T23:59:59Z"),
    ] {
        let (lock, witnesses) = (TestLock::of_kind("configmap"), Witnesses::new());
        let times = format!(r#""acquireTime": "{acquired}", "renewTime": "{renewed}""#);
        let record = format!(r#"{{"holderIdentity": "x", "leaseDurationSeconds": {duration}, {times}}}"#);
        let metadata = json!({ "name": "job", "annotations": { LEADER_ANNOTATION: record } });
        let path = lock.object_path("configmaps");
        let admin = Cluster::shared().admin();
        admin
            .create(path.trim_end_matches("/job"), &json!({ "metadata": metadata }))
            .expect("the ConfigMap can be created");
        let mut a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
        a.wait_for_log("held by x");
        witnesses.wait_for("a", 1);
        let renew_time = || record_in_annotation(&lock, "configmaps")["renewTime"].clone();
        let before = renew_time();
        eventually("a renews the record", || renew_time() != before);
        a.stop();
        assert!(a.log().contains("it expires 2s after"), "{}", a.log());
        witnesses.assert_runs_one_at_a_time(1);
    }
}

#[testkit::test]
fn the_command_of_a_lock_in_an_annotation_is_dead_before_the_next_command_starts() {
    for kind in ["endpoints", "endpoints+lease"] {
        let proxy = Proxy::start(Cluster::shared());
        let (lock, witnesses) = (TestLock::of_kind(kind), Witnesses::new());
        let mut a =
            Candidate::new("a", &lock.through(proxy.kubeconfig())).run_witness(&witnesses, &["hidden", "ignore"]);
        witnesses.wait_for("a", 2);
        let mut b = Candidate::new("b", &lock).run_witness(&witnesses, &[]);
        b.wait_for_log("held by a");
        proxy.partition();
        a.wait_for_exit(LOST);
        witnesses.wait_for("b", 1);
        b.stop();
        witnesses.assert_runs_one_at_a_time(2);
    }
}

#[testkit::test]
fn a_candidate_logs_the_missing_permissions_for_a_configmap_and_leads_once_it_has_them() {
    let lock = TestLock::of_kind("configmap").through(Cluster::shared().kubeconfig_for("deputy"));
    let witnesses = Witnesses::new();
    let mut a = Candidate::new("a", &lock).run_witness(&witnesses, &["ends"]);
    a.wait_for_log("not allowed to get configmaps \"job\"");
    a.wait_for_log("verbs: [create]");
    let for_one_name = json!({ "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["job"], "verbs": ["get", "update", "watch"] });
    let for_any_name = json!({ "apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"] });
    Cluster::shared().set_permissions(lock.namespace(), "deputy", json!([for_one_name, for_any_name]));
    a.wait_for_exit(0);
}

/// All candidates try to create the object at the same time.
#[testkit::test]
fn one_of_many_candidates_that_start_at_the_same_time_leads() {
    for kind in ["endpoints", "endpoints+lease", "configmap", "lease"] {
        let (lock, witnesses) = (TestLock::of_kind(kind), Witnesses::new());
        let names = ["a", "b", "c", "d"];
        let candidates = names.map(|name| Candidate::new(name, &lock).run_witness(&witnesses, &[]));
        eventually("all candidates but one are waiting", || {
            candidates.iter().filter(|candidate| candidate.log().contains("held by")).count() == names.len() - 1
        });
        eventually("one candidate leads", || !witnesses.lifetimes().is_empty());
        witnesses.assert_runs_one_at_a_time(1);
    }
}

#[testkit::test]
fn a_late_create_does_not_replace_an_existing_object() {
    for (kind, plural) in [("endpoints", "endpoints"), ("endpoints+lease", "endpoints"), ("lease", "leases")] {
        let proxy = Proxy::start(Cluster::shared());
        let (lock, witnesses) = (TestLock::of_kind(kind), Witnesses::new());
        let late = proxy.hold_requests(Match::put().on(plural).next(1));
        let b = Candidate::new("b", &lock.through(proxy.kubeconfig())).run_witness(&witnesses, &[]);
        late.wait_until_held();
        let mut a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
        witnesses.wait_for("a", 1);
        let conflicts = proxy.conflicts();
        late.release();
        eventually("the late request has arrived", || proxy.conflicts() > conflicts);
        b.wait_for_log("held by a");
        a.stop();
        assert!(!a.log().contains("warning"), "{}", a.log());
    }
}

#[testkit::test]
fn a_record_that_fabric8_created_keeps_its_format() {
    let (lock, witnesses) = (TestLock::of_kind("configmap"), Witnesses::new());
    let times = r#""acquireTime":"2026-01-02T03:04:05.000001Z","renewTime":"2026-01-02T03:04:06.000002Z""#;
    let record = format!(r#"{{"leaseDuration":15.000000000,{times},"leaderTransitions":3}}"#);
    let metadata = json!({ "name": "job", "annotations": { LEADER_ANNOTATION: record } });
    let path = lock.object_path("configmaps");
    Cluster::shared()
        .admin()
        .create(path.trim_end_matches("/job"), &json!({ "metadata": metadata }))
        .expect("the ConfigMap can be created");
    let mut a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let held = record_in_annotation(&lock, "configmaps");
    // fabric8 rejects a record with unknown fields.
    let mut fields: Vec<&str> = held.as_object().expect("the record is an object").keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["acquireTime", "holderIdentity", "leaderTransitions", "leaseDuration", "renewTime"]);
    assert_eq!(held["leaseDuration"], "PT6S");
    a.stop();
}
