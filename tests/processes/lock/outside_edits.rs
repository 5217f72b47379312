//! Tests of records that another program, such as kubectl, edits while a command is running.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use serde_json::json;

use testkit::exit_status::LOST;
use testkit::{Candidate, Client, Cluster, Proxy, Running, TestLock, Witnesses, eventually};

/// A lease that was edited while `a` held it and `b` was waiting for it.
struct EditedLease {
    lock: TestLock,
    admin: Client,
    witnesses: Witnesses,
    a: Running,
    b: Running,
    /// The time of the edit, in nanoseconds since boot.
    edited_at: u64,
}

/// Starts the leader `a` and the standby `b`, and calls `edit` with a client and the path of the lease.
fn edit_lease(edit: impl FnOnce(&Client, &str)) -> EditedLease {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let admin = Cluster::shared().admin();
    let a = Candidate::new("a", &lock).run_witness(&witnesses, &["ignore", "hidden"]);
    witnesses.wait_for("a", 2);
    let b = Candidate::new("b", &lock).run_witness(&witnesses, &[]);
    b.wait_for_log("held by a");
    edit(&admin, &lock.lease_path());
    let edited_at = testkit::nanos_since_boot();
    EditedLease { lock, admin, witnesses, a, b, edited_at }
}

impl EditedLease {
    /// Checks that the holder keeps the lock until its command ends, and that it restores its record if necessary.
    fn assert_holder_keeps_the_lock(mut self) {
        let spec = || self.admin.get(&self.lock.lease_path()).map(|lease| lease["spec"].clone()).unwrap_or_default();
        eventually("a holds the lease again", || spec()["holderIdentity"] == "a");
        let renewed = spec()["renewTime"].clone();
        eventually("a renews the lease", || spec()["renewTime"] != renewed && spec()["holderIdentity"] == "a");
        self.witnesses.assert_runs_one_at_a_time(1);
        // The command ignores SIGTERM, so it is ended by SIGKILL.
        self.witnesses.kill("a");
        self.a.wait_for_exit(137);
        self.witnesses.wait_for("b", 1);
        self.b.stop();
        self.witnesses.assert_runs_one_at_a_time(2);
    }

    /// Checks that the holder kills its command immediately, and that the standby then takes over.
    fn assert_holder_loses_the_lock(mut self) {
        self.a.wait_for_exit(LOST);
        for life in self.witnesses.lifetimes_of("a") {
            // The holder sees the edit within the retry period of one second. If it ignored the edit, the command,
            // which ignores SIGTERM, would live until the kill, one second after the renew deadline: at least four
            // seconds after the edit.
            let alive_for = Duration::from_nanos(life.last_seen_at.saturating_sub(self.edited_at));
            assert!(alive_for < Duration::from_millis(3500), "the command was alive {alive_for:?} after the edit");
            assert_eq!(life.signaled_at, 0, "the command got a stop signal instead of SIGKILL: {}", self.a.log());
        }
        self.witnesses.wait_for("b", 1);
        self.b.stop();
        self.witnesses.assert_runs_one_at_a_time(2);
    }
}

#[testkit::test]
fn a_deleted_lease_is_restored_by_its_holder() {
    edit_lease(|admin, lease| drop(admin.delete(lease).expect("the lease can be deleted")))
        .assert_holder_keeps_the_lock();
}

#[testkit::test]
fn a_recreated_lease_is_restored_by_its_holder() {
    let edited = edit_lease(|admin, lease| {
        admin.delete(lease).expect("the lease can be deleted");
        let spec = json!({ "holderIdentity": "", "leaseDurationSeconds": 1 });
        // This fails if the holder has already restored the lease.
        let _ = admin.create(lease.trim_end_matches("/job"), &json!({ "metadata": { "name": "job" }, "spec": spec }));
    });
    edited.assert_holder_keeps_the_lock();
}

#[testkit::test]
fn an_emptied_lease_is_restored_by_its_holder() {
    edit_lease(|admin, lease| {
        drop(admin.merge_patch(lease, &json!({ "spec": { "holderIdentity": "" } })).expect("the lease can be emptied"))
    })
    .assert_holder_keeps_the_lock();
}

/// client-go releases a lease without checking whether it still holds the lease.
#[testkit::test]
fn a_holder_undoes_a_release_by_another_program() {
    let released = json!({ "spec": { "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": "2026-01-01T00:00:00.000000Z", "acquireTime": "2026-01-01T00:00:00.000000Z" } });
    edit_lease(|admin, lease| drop(admin.merge_patch(lease, &released).expect("the lease can be overwritten")))
        .assert_holder_keeps_the_lock();
}

#[testkit::test]
fn a_lease_that_is_edited_to_name_an_unknown_holder_is_lost_immediately() {
    edit_lease(|admin, lease| {
        drop(
            admin
                .merge_patch(lease, &json!({ "spec": { "holderIdentity": "nobody" } }))
                .expect("the lease can be edited"),
        )
    })
    .assert_holder_loses_the_lock();
}

#[testkit::test]
fn a_lease_that_is_edited_to_name_the_standby_is_lost_immediately() {
    edit_lease(|admin, lease| {
        drop(admin.merge_patch(lease, &json!({ "spec": { "holderIdentity": "b" } })).expect("the lease can be edited"))
    })
    .assert_holder_loses_the_lock();
}

/// The copied record was released, and it has more transitions than the record of this lock. Its mark is not valid,
/// because it was written for another lock.
#[testkit::test]
fn a_record_copied_from_another_lock_does_not_release_the_lock() {
    let other = TestLock::lease();
    let mut other_holder = Candidate::new("other", &other).run_script("true");
    other_holder.wait_for_exit(0);
    edit_lease(|admin, lease| {
        let mut copy = admin.get(&other.lease_path()).expect("the other lease can be read");
        copy["spec"]["leaseTransitions"] = 100.into();
        let copied = json!({ "metadata": { "annotations": copy["metadata"]["annotations"] }, "spec": copy["spec"] });
        admin.merge_patch(lease, &copied).expect("the lease can be overwritten");
    })
    .assert_holder_keeps_the_lock();
}

/// The holder renews so rarely that the record from the backup expires before the holder notices the edit.
#[testkit::test]
fn a_standby_waits_for_a_holder_whose_record_was_replaced_from_a_backup() {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let (admin, path) = (Cluster::shared().admin(), lock.lease_path());
    let short = ["--lease-duration", "3s", "--renew-deadline", "1500ms", "--retry-period", "500ms"];
    let mut earlier = Candidate::with_timing("earlier", &lock, short).run_script("sleep 1000");
    earlier.wait_for_log("started the command");
    let held = admin.get(&path).expect("the lease can be read");
    earlier.stop();
    let long = ["--lease-duration", "20s", "--renew-deadline", "18s", "--retry-period", "6s"];
    let mut a = Candidate::with_timing("a", &lock, long).run_witness(&witnesses, &["ignore"]);
    witnesses.wait_for("a", 1);
    let mut b = Candidate::with_timing("b", &lock, long).run_witness(&witnesses, &[]);
    b.wait_for_log("held by a");
    let backup = json!({ "metadata": { "annotations": held["metadata"]["annotations"] }, "spec": held["spec"] });
    admin.merge_patch(&path, &backup).expect("the lease can be overwritten");
    b.wait_for_log("held by earlier");
    a.wait_for_exit(LOST);
    witnesses.wait_for("b", 1);
    b.stop();
    witnesses.assert_runs_one_at_a_time(2);
}

#[testkit::test]
fn a_label_on_the_lease_is_kept() {
    let edited = edit_lease(|admin, lease| {
        drop(
            admin
                .merge_patch(lease, &json!({ "metadata": { "labels": { "a": "b" } } }))
                .expect("the lease can be labeled"),
        )
    });
    let (admin, path) = (Cluster::shared().admin(), edited.lock.lease_path());
    edited.assert_holder_keeps_the_lock();
    assert_eq!(
        admin.get(&path).expect("the lease can be read")["metadata"]["labels"]["a"],
        "b",
        "the label should be kept"
    );
}

#[testkit::test]
fn a_deleted_file_is_restored_by_its_holder() {
    let (lock, witnesses) = (TestLock::file(), Witnesses::new());
    // A write can take seconds on a disk under load.
    let timing = ["--lease-duration", "30s", "--renew-deadline", "20s", "--retry-period", "1s"];
    let mut a = Candidate::with_timing("a", &lock, timing).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let mut b = Candidate::with_timing("b", &lock, timing).run_witness(&witnesses, &[]);
    b.wait_for_log("held by a");
    let path = std::path::Path::new(lock.name.strip_prefix("file:").expect("the lock is a file lock"));
    let reports = |running: &Running| running.log().matches("another program emptied or deleted").count();
    for round in 1..=2 {
        // The holder is frozen so that it does not restore the file before the standby sees the deletion.
        kill(a.elector(), Signal::SIGSTOP).expect("the process is alive");
        std::fs::remove_file(path).expect("the file can be removed");
        eventually("the standby reports the deletion", || reports(&b) == round);
        kill(a.elector(), Signal::SIGCONT).expect("the process is alive");
        eventually("the file is written again", || path.exists());
        eventually("the holder reports the deletion", || reports(&a) == round);
        eventually("the standby sees the holder again", || b.log().matches("held by a").count() > round);
    }
    a.stop();
    witnesses.wait_for("b", 1);
    b.stop();
    witnesses.assert_runs_one_at_a_time(2);
}

/// A PUT with a resourceVersion but without a uid would create a new Lease.
#[testkit::test]
fn a_renewal_does_not_recreate_a_deleted_lease() {
    let (proxy, witnesses) = (Proxy::start(Cluster::shared()), Witnesses::new());
    let lock = TestLock::lease_through(proxy.kubeconfig());
    let mut a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let deleted_at = std::time::Instant::now();
    Cluster::shared().admin().delete(&lock.lease_path()).expect("the lease can be deleted");
    let methods_after_deletion = || -> Vec<String> {
        let requests =
            proxy.requests().into_iter().filter(|request| request.received_at > deleted_at && !request.is_watch());
        requests.filter(|request| request.path.contains("/leases/")).map(|request| request.method.to_string()).collect()
    };
    eventually("the lease is written again", || methods_after_deletion().len() >= 3);
    assert_eq!(methods_after_deletion()[..3], ["PUT", "GET", "PUT"], "the lease should be read before it is restored");
    a.stop();
}
