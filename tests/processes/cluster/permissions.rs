//! Tests of the permissions of a candidate.

use serde_json::{Value, json};

use testkit::exit_status::UNAVAILABLE;
use testkit::{CANDIDATE_VERBS, Candidate, Cluster, TestLock, Witnesses, rbac_rule};

/// Returns the rules of a Role that permits these verbs on the Lease `job`.
fn rules(verbs: &[&str]) -> Value {
    json!([rbac_rule("leases", &["job"], verbs)])
}

/// Returns a lock that is accessed as this user.
fn lock_for(user: &str) -> TestLock {
    TestLock::lease_through(Cluster::shared().kubeconfig_for(user))
}

#[testkit::test]
fn candidates_need_only_four_verbs_on_the_lease() {
    let (lock, witnesses) = (lock_for("candidate"), Witnesses::new());
    Cluster::shared().set_permissions(lock.namespace(), "candidate", rules(&CANDIDATE_VERBS));
    let mut a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let mut b = Candidate::new("b", &lock).run_witness(&witnesses, &["ends"]);
    b.wait_for_log("held by a");
    a.stop();
    b.wait_for_exit(0);
    assert!(!b.log().contains("warning"), "{}", b.log());
    witnesses.assert_runs_one_at_a_time(2);
}

#[testkit::test]
fn a_candidate_prints_the_missing_role_and_waits_for_it() {
    let (lock, witnesses) = (lock_for("stranger"), Witnesses::new());
    let mut a = Candidate::new("a", &lock).run_witness(&witnesses, &["ends"]);
    a.wait_for_log("not allowed to get leases.coordination.k8s.io \"job\"");
    a.wait_for_log("verbs: [get, create, update, watch]");
    Cluster::shared().set_permissions(lock.namespace(), "stranger", rules(&CANDIDATE_VERBS));
    a.wait_for_exit(0);
    assert_eq!(a.log().matches("not allowed").count(), 1, "the refusal should be logged once: {}", a.log());
}

#[testkit::test]
fn the_log_names_a_missing_permission_to_create() {
    let (lock, witnesses) = (lock_for("operator"), Witnesses::new());
    Cluster::shared().set_permissions(lock.namespace(), "operator", rules(&["get", "update", "watch"]));
    let a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
    a.wait_for_log("not allowed to create leases.coordination.k8s.io \"job\"");
    witnesses.assert_runs_one_at_a_time(0);
}

#[testkit::test]
fn a_candidate_without_permission_to_watch_polls() {
    let (lock, witnesses) = (lock_for("standby"), Witnesses::new());
    Cluster::shared().set_permissions(lock.namespace(), "standby", rules(&["get", "create", "update"]));
    let mut a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let mut b = Candidate::new("b", &lock).run_witness(&witnesses, &["ends"]);
    b.wait_for_log("not allowed to watch leases.coordination.k8s.io \"job\"");
    b.wait_for_log("reading it every retry period instead");
    a.stop();
    b.wait_for_exit(0);
    assert_eq!(b.log().matches("not allowed").count(), 1, "the refusal should be logged once: {}", b.log());
    witnesses.assert_runs_one_at_a_time(2);
}

#[testkit::test]
fn the_log_reports_a_missing_namespace() {
    for kind in ["lease", "configmap"] {
        let lock = TestLock { name: format!("{kind}:nowhere/job"), ..TestLock::lease() };
        let mut a = Candidate::new("a", &lock).args(["--wait", "0s"]).run_script("echo started");
        a.wait_for_exit(UNAVAILABLE);
        assert!(a.log().contains("there is no namespace \"nowhere\"; try"), "{}", a.log());
        assert_eq!(a.output(), "");
    }
}
