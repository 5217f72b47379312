//! Tests in clusters where an admission webhook or policy changes every Lease that is written.

use serde_json::Value;

use testkit::exit_status::{LOST, NOT_ACQUIRED, UNAVAILABLE};
use testkit::{Candidate, Cluster, TestLock, Witnesses};

/// Returns a lock in a new namespace of this cluster.
fn lease_in(cluster: &Cluster) -> TestLock {
    TestLock { name: format!("{}/job", cluster.new_namespace()), kubeconfig: Some(cluster.kubeconfig()) }
}

fn shorten_duration(lease: &mut Value) {
    lease["spec"]["leaseDurationSeconds"] = 3.into();
}

fn remove_annotations(lease: &mut Value) {
    if let Some(metadata) = lease["metadata"].as_object_mut() {
        metadata.remove("annotations");
    }
}

fn rename_holder(lease: &mut Value) {
    if lease["spec"]["holderIdentity"] != "" {
        lease["spec"]["holderIdentity"] = "someone".into();
    }
}

fn add_label_and_annotation(lease: &mut Value) {
    lease["metadata"]["labels"]["team"] = "blue".into();
    lease["metadata"]["annotations"]["audited"] = "yes".into();
}

#[testkit::test]
fn a_lock_is_not_acquired_if_the_record_is_stored_with_changes() {
    let cluster = Cluster::start_in_process();
    // Without the `leaderrun/run` annotation, or with another holder, the record looks like another candidate's, so the
    // status is `NOT_ACQUIRED`.
    for (change, wait, expected, status) in [
        (shorten_duration as fn(&mut Value), "4s", "with a lease duration of 3 s instead of 6 s", UNAVAILABLE),
        (shorten_duration, "0s", "with a lease duration of 3 s instead of 6 s", UNAVAILABLE),
        (
            remove_annotations,
            "4s",
            "with a leaderrun/run annotation or renewTime that differs from what leaderrun wrote",
            NOT_ACQUIRED,
        ),
        (rename_holder, "0s", "with the holder someone", NOT_ACQUIRED),
    ] {
        let lock = lease_in(&cluster);
        cluster.api_server().set_admission(Some(change));
        let mut candidate = Candidate::new("a", &lock).args(["--wait", wait]).run(["echo", "running"]);
        candidate.wait_for_log(expected);
        candidate.wait_for_log("look for an admission webhook or policy that changes it");
        candidate.wait_for_exit(status);
        assert_eq!(candidate.output(), "", "{}", candidate.log());
        // Once records are stored unchanged, the lock can be acquired as soon as the last record has expired.
        cluster.api_server().set_admission(None);
        let mut candidate = Candidate::new("b", &lock).run(["echo", "running"]);
        candidate.wait_for_exit(0);
    }
}

#[testkit::test]
fn a_leader_loses_the_lock_if_its_lease_duration_is_shortened() {
    let (cluster, witnesses) = (Cluster::start_in_process(), Witnesses::new());
    let lock = lease_in(&cluster);
    let mut candidate = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    cluster.api_server().set_admission(Some(shorten_duration));
    candidate.wait_for_log("with a lease duration of 3 s instead of 6 s");
    candidate.wait_for_exit(LOST);
}

#[testkit::test]
fn additions_by_a_policy_are_kept_and_not_reported_as_outside_edits() {
    let (cluster, witnesses) = (Cluster::start_in_process(), Witnesses::new());
    let lock = lease_in(&cluster);
    cluster.api_server().set_admission(Some(add_label_and_annotation));
    let mut candidate = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let lease = || cluster.admin().get(&lock.lease_path()).expect("the Lease can be read");
    cluster.wait_for_renewals(&lock, 1);
    assert_eq!(lease()["metadata"]["labels"]["team"], "blue");
    assert_eq!(lease()["metadata"]["annotations"]["audited"], "yes");
    candidate.stop();
    assert!(!candidate.log().contains("edited"), "the log should not mention an outside edit: {}", candidate.log());
}
