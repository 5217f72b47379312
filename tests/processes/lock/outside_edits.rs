//! Edits of a lock's record by other programs, such as kubectl, while a command runs.

use nix::sys::signal::{Signal, kill};
use serde_json::json;

use testkit::{Candidate, Client, Cluster, Proxy, Running, TestLock, Witnesses, eventually};

struct Fixture {
    lock: TestLock,
    admin: Client,
    witnesses: Witnesses,
    a: Running,
    b: Running,
    /// When the edit was made, in nanoseconds since boot.
    edited_at: u64,
}

/// Starts leader A and standby B, and edits the lease.
fn edit_lease(edit: impl FnOnce(&Client, &str)) -> Fixture {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let admin = Cluster::shared().admin();
    let a = Candidate::new("a", &lock).run_witness(&witnesses, &["ignore", "hidden"]);
    witnesses.wait_for("a", 2);
    let b = Candidate::new("b", &lock).run_witness(&witnesses, &[]);
    b.wait_for_log("held by a");
    edit(&admin, &lock.lease_path());
    let edited_at = testkit::boot_time();
    Fixture { lock, admin, witnesses, a, b, edited_at }
}

impl Fixture {
    /// Checks that the holder restores the lease and continues to lead until it releases.
    fn assert_holder_restores_the_lease(mut self) {
        let spec = || self.admin.get(&self.lock.lease_path()).map(|lease| lease["spec"].clone()).unwrap_or_default();
        eventually("a holds the lease again", || spec()["holderIdentity"] == "a");
        let renewed = spec()["renewTime"].clone();
        eventually("and renews it", || spec()["renewTime"] != renewed && spec()["holderIdentity"] == "a");
        self.witnesses.assert_one_at_a_time(1);
        // The command ignores SIGTERM.
        self.witnesses.kill("a");
        self.a.wait_for_exit(137);
        self.witnesses.wait_for("b", 1);
        self.b.stop();
        self.witnesses.assert_one_at_a_time(2);
    }

    /// Checks that the holder loses at once, and that the standby leads after the lease duration.
    fn assert_holder_loses_the_lock(mut self) {
        self.a.wait_for_exit(76);
        for life in self.witnesses.lifetimes_of("a") {
            // The holder sees the edit within a retry period. Otherwise the command would be stopped after four seconds.
            assert!(
                life.last_seen_at < self.edited_at + 3_500_000_000,
                "alive {} ns after the loss",
                life.last_seen_at - self.edited_at
            );
            assert_eq!(life.signaled_at, 0, "no grace: {}", self.a.log());
        }
        self.witnesses.wait_for("b", 1);
        self.b.stop();
        self.witnesses.assert_one_at_a_time(2);
    }
}

#[testkit::test]
fn a_deleted_lease_is_restored_by_its_holder() {
    edit_lease(|admin, lease| drop(admin.delete(lease).expect("a deletion"))).assert_holder_restores_the_lease();
}

#[testkit::test]
fn a_recreated_lease_is_restored_by_its_holder() {
    let fixture = edit_lease(|admin, lease| {
        admin.delete(lease).expect("a deletion");
        let spec = json!({ "holderIdentity": "", "leaseDurationSeconds": 1 });
        // This fails if the holder was faster.
        let _ = admin.create(lease.trim_end_matches("/job"), &json!({ "metadata": { "name": "job" }, "spec": spec }));
    });
    fixture.assert_holder_restores_the_lease();
}

#[testkit::test]
fn an_emptied_lease_is_restored_by_its_holder() {
    edit_lease(|admin, lease| {
        drop(admin.merge_patch(lease, &json!({ "spec": { "holderIdentity": "" } })).expect("emptied"))
    })
    .assert_holder_restores_the_lease();
}

/// client-go's release does not check who holds the lease.
#[testkit::test]
fn a_release_by_another_program_is_undone_by_the_holder() {
    let released = json!({ "spec": { "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": "2026-01-01T00:00:00.000000Z", "acquireTime": "2026-01-01T00:00:00.000000Z" } });
    edit_lease(|admin, lease| drop(admin.merge_patch(lease, &released).expect("overwritten")))
        .assert_holder_restores_the_lease();
}

#[testkit::test]
fn a_lease_given_to_an_absent_holder_is_lost_at_once() {
    edit_lease(|admin, lease| {
        drop(admin.merge_patch(lease, &json!({ "spec": { "holderIdentity": "nobody" } })).expect("a change"))
    })
    .assert_holder_loses_the_lock();
}

#[testkit::test]
fn a_lease_given_to_the_standby_is_lost_at_once() {
    edit_lease(|admin, lease| {
        drop(admin.merge_patch(lease, &json!({ "spec": { "holderIdentity": "b" } })).expect("a change"))
    })
    .assert_holder_loses_the_lock();
}

/// The copied record was released, and has more transitions than this lock. Its mark is not valid, because it was written
/// for another lock.
#[testkit::test]
fn a_record_copied_from_another_lock_does_not_release_the_lock() {
    let other = TestLock::lease();
    let mut last = Candidate::new("last", &other).run_script("true");
    last.wait_for_exit(0);
    edit_lease(|admin, lease| {
        let mut copy = admin.get(&other.lease_path()).expect("the other lease");
        copy["spec"]["leaseTransitions"] = 100.into();
        let copied = json!({ "metadata": { "annotations": copy["metadata"]["annotations"] }, "spec": copy["spec"] });
        admin.merge_patch(lease, &copied).expect("copied");
    })
    .assert_holder_restores_the_lease();
}

/// A backup is restored. The holder renews so seldom that the restored record expires before the holder notices it.
#[testkit::test]
fn a_standby_waits_for_the_holder_that_a_restored_backup_hides() {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let (admin, path) = (Cluster::shared().admin(), lock.lease_path());
    let short = ["--lease-duration", "3s", "--renew-deadline", "1500ms", "--retry-period", "500ms"];
    let mut earlier = Candidate::with_timing("earlier", &lock, short).run_script("sleep 1000");
    earlier.wait_for_log("started the command");
    let held = admin.get(&path).expect("the lease");
    earlier.stop();
    let long = ["--lease-duration", "20s", "--renew-deadline", "18s", "--retry-period", "6s"];
    let mut a = Candidate::with_timing("a", &lock, long).run_witness(&witnesses, &["ignore"]);
    witnesses.wait_for("a", 1);
    let mut b = Candidate::with_timing("b", &lock, long).run_witness(&witnesses, &[]);
    b.wait_for_log("held by a");
    let backup = json!({ "metadata": { "annotations": held["metadata"]["annotations"] }, "spec": held["spec"] });
    admin.merge_patch(&path, &backup).expect("restored");
    b.wait_for_log("held by earlier");
    a.wait_for_exit(76);
    witnesses.wait_for("b", 1);
    b.stop();
    witnesses.assert_one_at_a_time(2);
}

#[testkit::test]
fn a_label_on_the_lease_is_kept() {
    let fixture = edit_lease(|admin, lease| {
        drop(admin.merge_patch(lease, &json!({ "metadata": { "labels": { "a": "b" } } })).expect("labelled"))
    });
    let (admin, path) = (Cluster::shared().admin(), fixture.lock.lease_path());
    fixture.assert_holder_restores_the_lease();
    assert_eq!(admin.get(&path).expect("the lease")["metadata"]["labels"]["a"], "b", "it stays");
}

#[testkit::test]
fn a_deleted_file_is_restored_by_its_holder() {
    let (lock, witnesses) = (TestLock::file(), Witnesses::new());
    // A disk under load takes seconds for a write.
    let times = ["--lease-duration", "30s", "--renew-deadline", "20s", "--retry-period", "1s"];
    let mut a = Candidate::with_timing("a", &lock, times).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let mut b = Candidate::with_timing("b", &lock, times).run_witness(&witnesses, &[]);
    b.wait_for_log("held by a");
    let path = std::path::Path::new(lock.name.strip_prefix("file:").expect("a file"));
    let reports = |running: &Running| running.log().matches("another program emptied or deleted").count();
    for times in 1..=2 {
        // The holder is frozen, so that it cannot restore the file before the standby has seen the deletion.
        kill(a.elector(), Signal::SIGSTOP).expect("the process is alive");
        std::fs::remove_file(path).expect("a deletion");
        eventually("the standby reports it", || reports(&b) == times);
        kill(a.elector(), Signal::SIGCONT).expect("the process is alive");
        eventually("it is written again", || path.exists());
        eventually("the holder reports it", || reports(&a) == times);
        eventually("the standby sees the holder again", || b.log().matches("held by a").count() > times);
    }
    a.stop();
    witnesses.wait_for("b", 1);
    b.stop();
    witnesses.assert_one_at_a_time(2);
}

/// A PUT with a resourceVersion but without a uid would create a new Lease.
#[testkit::test]
fn a_renewal_does_not_create_a_deleted_lease() {
    let (proxy, witnesses) = (Proxy::start(Cluster::shared()), Witnesses::new());
    let lock = TestLock::lease_through(proxy.kubeconfig());
    let mut a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let deleted = std::time::Instant::now();
    Cluster::shared().admin().delete(&lock.lease_path()).expect("a deletion");
    let methods_since = || -> Vec<String> {
        let requests =
            proxy.requests().into_iter().filter(|request| request.received_at > deleted && !request.is_watch());
        requests.filter(|request| request.path.contains("/leases/")).map(|request| request.method.to_string()).collect()
    };
    eventually("it is written again", || methods_since().len() >= 3);
    assert_eq!(methods_since()[..3], ["PUT", "GET", "PUT"], "the lease was restored without a read");
    a.stop();
}
