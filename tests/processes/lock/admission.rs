//! Clusters whose admission webhooks or policies change every Lease that is written.

use serde_json::Value;

use testkit::{Candidate, Cluster, TestLock, Witnesses, eventually};

/// Returns a Lease in a cluster that no other test uses.
fn lease_in(cluster: &Cluster) -> TestLock {
    TestLock { name: format!("{}/job", cluster.new_namespace()), kubeconfig: Some(cluster.kubeconfig()) }
}

fn shorten(lease: &mut Value) {
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

fn add_label(lease: &mut Value) {
    lease["metadata"]["labels"]["team"] = "blue".into();
    lease["metadata"]["annotations"]["audited"] = "yes".into();
}

#[testkit::test]
fn a_record_that_is_not_stored_as_it_was_written_is_no_acquisition() {
    let cluster = Cluster::start_in_process();
    // Without its mark, or under another name, the record looks like that of another holder.
    for (change, wait, says, status) in [
        (shorten as fn(&mut Value), "4s", "with a lease duration of 3 s instead of 6 s", 69),
        (shorten, "0s", "with a lease duration of 3 s instead of 6 s", 69),
        (remove_annotations, "4s", "with a different annotation leaderrun/run or renewTime", 75),
        (rename_holder, "0s", "with the holder someone", 75),
    ] {
        let lock = lease_in(&cluster);
        cluster.api_server().set_admission(Some(change));
        let mut candidate = Candidate::new("a", &lock).args(["--wait", wait]).run(["echo", "running"]);
        candidate.wait_for_log(says);
        candidate.wait_for_log("look for an admission webhook or policy that changes it");
        candidate.wait_for_exit(status);
        assert_eq!(candidate.output(), "", "{}", candidate.log());
        // Without the change the lock can be used as soon as the last write has expired.
        cluster.api_server().set_admission(None);
        let mut candidate = Candidate::new("b", &lock).run(["echo", "running"]);
        candidate.wait_for_exit(0);
    }
}

#[testkit::test]
fn a_leader_stops_if_its_lease_durations_are_shortened() {
    let (cluster, witnesses) = (Cluster::start_in_process(), Witnesses::new());
    let lock = lease_in(&cluster);
    let mut candidate = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    cluster.api_server().set_admission(Some(shorten));
    candidate.wait_for_log("with a lease duration of 3 s instead of 6 s");
    candidate.wait_for_exit(76);
}

#[testkit::test]
fn what_a_policy_adds_to_a_lease_is_kept() {
    let (cluster, witnesses) = (Cluster::start_in_process(), Witnesses::new());
    let lock = lease_in(&cluster);
    cluster.api_server().set_admission(Some(add_label));
    let mut candidate = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let lease = || cluster.admin().get(&lock.lease_path()).expect("the Lease");
    let renewed = lease()["spec"]["renewTime"].clone();
    eventually("it is renewed", || lease()["spec"]["renewTime"] != renewed);
    assert_eq!(lease()["metadata"]["labels"]["team"], "blue");
    candidate.stop();
    assert!(!candidate.log().contains("edited"), "{}", candidate.log());
}
