//! Records in annotations, and in two objects at once.

use serde_json::{Value, json};

use crate::candidate::{Candidate, TestLock, eventually};
use crate::support::{Cluster, Proxy};
use crate::witness::Witnesses;

crate::trials![
    annotations_are_handed_over,
    other_content_is_kept_and_other_writers_do_not_cost_the_lease,
    an_annotation_that_is_no_record_is_never_taken,
    a_partition_with_an_annotation,
    the_printed_role_of_a_configmap_is_enough,
    both_objects_are_handed_over,
    moving_from_endpoints_to_a_lease_in_three_steps,
    half_of_both_is_not_held,
];

const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

fn annotation(lock: &TestLock, plural: &str) -> Value {
    let object = Cluster::shared().admin().get(&lock.core_path(plural)).expect("the object");
    serde_json::from_str(object["metadata"]["annotations"][LEADER].as_str().expect("the annotation")).expect("JSON")
}

fn annotations_are_handed_over() {
    for (kind, plural) in [("endpoints", "endpoints"), ("configmap", "configmaps")] {
        let (lock, witnesses) = (TestLock::of_kind(kind), Witnesses::new());
        let mut a = Candidate::new("a", &lock).witnessed(&witnesses, &[]);
        witnesses.wait_for("a", 1);
        let held = annotation(&lock, plural);
        assert_eq!((&held["holderIdentity"], &held["leaseDurationSeconds"]), (&json!("a"), &json!(6)));
        assert_eq!(held["leaseDuration"], "PT6S");
        let mut b = Candidate::new("b", &lock).witnessed(&witnesses, &[]);
        b.says("is held by a");
        eventually("it is renewed", || annotation(&lock, plural)["renewTime"] != held["renewTime"]);
        a.stop();
        witnesses.wait_for("b", 1);
        b.stop();
        let released = annotation(&lock, plural);
        assert_eq!((&released["holderIdentity"], &released["leaseDuration"]), (&json!(""), &json!("PT6S")));
        witnesses.assert_one_at_a_time(2);
    }
}

/// An existing ConfigMap that somebody else writes to all the time.
fn other_content_is_kept_and_other_writers_do_not_cost_the_lease() {
    let (lock, witnesses) = (TestLock::of_kind("configmap"), Witnesses::new());
    let (admin, path) = (Cluster::shared().admin(), lock.core_path("configmaps"));
    let metadata = json!({ "name": "job", "annotations": { "kept": "yes" } });
    let made = json!({ "metadata": metadata, "data": { "setting": "0" } });
    admin.create(path.trim_end_matches("/job"), &made).expect("a ConfigMap");
    let mut a = Candidate::new("a", &lock).witnessed(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let mut b = Candidate::new("b", &lock).witnessed(&witnesses, &["ends"]);
    b.says("is held by a");
    let start = std::time::Instant::now();
    let mut setting = 0;
    while start.elapsed() < std::time::Duration::from_secs(8) {
        setting += 1;
        admin.merge_patch(&path, &json!({ "data": { "setting": setting.to_string() } })).expect("a setting");
        assert_eq!(admin.get(&path).expect("the ConfigMap")["data"]["setting"], setting.to_string());
    }
    assert_eq!(witnesses.of("a")[0].told, 0, "it leads on: {}", a.log());
    a.stop();
    b.ends_with(0);
    let object = admin.get(&path).expect("the ConfigMap");
    assert_eq!(object["metadata"]["annotations"]["kept"], "yes");
    assert_eq!(object["data"]["setting"], setting.to_string());
    witnesses.assert_one_at_a_time(2);
}

fn an_annotation_that_is_no_record_is_never_taken() {
    let (lock, witnesses) = (TestLock::of_kind("configmap"), Witnesses::new());
    let metadata = json!({ "name": "job", "annotations": { LEADER: "what\u{1b}[2J is this" } });
    let path = lock.core_path("configmaps");
    let admin = Cluster::shared().admin();
    admin.create(path.trim_end_matches("/job"), &json!({ "metadata": metadata })).expect("a ConfigMap");
    let mut a = Candidate::new("a", &lock).args(["--wait", "3s"]).witnessed(&witnesses, &[]);
    a.ends_with(75);
    assert!(a.log().contains("has no leader election record"), "{}", a.log());
    assert!(!a.log().contains('\u{1b}'));
    witnesses.assert_one_at_a_time(0);
}

fn a_partition_with_an_annotation() {
    for kind in ["endpoints", "endpoints+lease"] {
        let proxy = Proxy::start(Cluster::shared());
        let (lock, witnesses) = (TestLock::of_kind(kind), Witnesses::new());
        let mut a = Candidate::new("a", &lock.by(proxy.kubeconfig())).witnessed(&witnesses, &["hidden", "ignore"]);
        witnesses.wait_for("a", 2);
        let mut b = Candidate::new("b", &lock).witnessed(&witnesses, &[]);
        b.says("is held by a");
        proxy.partition();
        a.ends_with(76);
        witnesses.wait_for("b", 1);
        b.stop();
        witnesses.assert_one_at_a_time(2);
    }
}

fn the_printed_role_of_a_configmap_is_enough() {
    let lock = TestLock::of_kind("configmap").by(Cluster::shared().kubeconfig_for("deputy"));
    let witnesses = Witnesses::new();
    let mut a = Candidate::new("a", &lock).witnessed(&witnesses, &["ends"]);
    a.says("not allowed to get configmaps \"job\"");
    a.says("verbs: [create]");
    let named = json!({ "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["job"], "verbs": ["get", "update", "watch"] });
    let open = json!({ "apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"] });
    Cluster::shared().grant(lock.namespace(), "deputy", json!([named, open]));
    a.ends_with(0);
}

fn both_objects_are_handed_over() {
    for (kind, plural) in [("endpoints+lease", "endpoints"), ("configmap+lease", "configmaps")] {
        let (lock, witnesses) = (TestLock::of_kind(kind), Witnesses::new());
        let lease =
            || Cluster::shared().admin().get(&lock.path()).expect("the lease")["spec"]["holderIdentity"].clone();
        let mut a = Candidate::new("a", &lock).witnessed(&witnesses, &[]);
        witnesses.wait_for("a", 1);
        assert_eq!((lease(), &annotation(&lock, plural)["holderIdentity"]), (json!("a"), &json!("a")));
        let mut b = Candidate::new("b", &lock).witnessed(&witnesses, &[]);
        b.says("is held by a");
        a.stop();
        witnesses.wait_for("b", 1);
        b.stop();
        assert_eq!((lease(), &annotation(&lock, plural)["holderIdentity"]), (json!(""), &json!("")));
        witnesses.assert_one_at_a_time(2);
    }
}

/// First everybody looks at the Endpoints, then at both, then at the Lease: one rolling update a step.
fn moving_from_endpoints_to_a_lease_in_three_steps() {
    let (old, witnesses) = (TestLock::of_kind("endpoints"), Witnesses::new());
    let (_, name) = old.name.split_once(':').expect("a kind");
    let of_kind = |kind: &str| TestLock { name: format!("{kind}:{name}"), ..old.clone() };
    let steps = ["endpoints", "endpoints+lease", "endpoints+lease", "lease", "lease"];
    let mut leader = Candidate::new("a", &of_kind(steps[0])).witnessed(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    for (step, kind) in steps.into_iter().enumerate().skip(1) {
        let next = Candidate::new("a", &of_kind(kind)).witnessed(&witnesses, &[]);
        next.says("is held by a");
        leader.stop();
        eventually("the next one leads", || witnesses.lives().len() > step);
        leader = next;
    }
    leader.stop();
    let lives = witnesses.lives();
    assert_eq!(lives.len(), steps.len());
    for pair in lives.windows(2) {
        assert!(pair[0].last < pair[1].born, "one at a time");
    }
}

fn half_of_both_is_not_held() {
    let (lock, witnesses) = (TestLock::of_kind("endpoints+lease"), Witnesses::new());
    let admin = Cluster::shared().admin();
    let spec = json!({ "holderIdentity": "x", "leaseDurationSeconds": 3, "renewTime": "2026-01-01T00:00:00.000000Z" });
    admin.replace(&lock.path(), &json!({ "metadata": { "name": "job" }, "spec": spec })).expect("a lease");
    let start = crate::witness::boot_time();
    let mut a = Candidate::new("a", &lock).witnessed(&witnesses, &["ends"]);
    a.says("is held by x");
    a.ends_with(0);
    assert!(witnesses.of("a")[0].born - start > 2_900_000_000, "its time was waited out");
}
