//! Somebody edits the lease by hand, as with kubectl, while a command runs.

use nix::sys::signal::{Signal, kill};
use serde_json::json;

use testkit::{Candidate, Client, Cluster, Proxy, Running, TestLock, Witnesses, eventually};

struct Scene {
    lock: TestLock,
    admin: Client,
    witnesses: Witnesses,
    a: Running,
    b: Running,
    /// When the deed was done, nanoseconds since boot.
    done: u64,
}

/// A leads, B waits, and somebody does something to the lease.
fn meddle(deed: impl FnOnce(&Client, &str)) -> Scene {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let admin = Cluster::shared().admin();
    let a = Candidate::new("a", &lock).run_witness(&witnesses, &["ignore", "hidden"]);
    witnesses.wait_for("a", 2);
    let b = Candidate::new("b", &lock).run_witness(&witnesses, &[]);
    b.wait_for_log("is held by a");
    deed(&admin, &lock.lease_path());
    let done = testkit::boot_time();
    Scene { lock, admin, witnesses, a, b, done }
}

impl Scene {
    /// The holder writes the lease again and goes on; the other one waits for its regular turn.
    fn a_goes_on(mut self) {
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

    /// The holder loses at once, and the other one leads when the record's time is over.
    fn a_loses(mut self) {
        self.a.wait_for_exit(76);
        for life in self.witnesses.lifetimes_of("a") {
            // It hears of it within a retry period; the stop would come after four seconds, the kill after five.
            assert!(
                life.last_seen_at < self.done + 3_500_000_000,
                "alive {} ns after the loss",
                life.last_seen_at - self.done
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
    meddle(|admin, lease| drop(admin.delete(lease).expect("deleted"))).a_goes_on();
}

#[testkit::test]
fn a_recreated_lease_is_restored_by_its_holder() {
    let scene = meddle(|admin, lease| {
        admin.delete(lease).expect("deleted");
        let spec = json!({ "holderIdentity": "", "leaseDurationSeconds": 1 });
        // The holder may have been faster: then there is nothing to make.
        let _ = admin.create(lease.trim_end_matches("/job"), &json!({ "metadata": { "name": "job" }, "spec": spec }));
    });
    scene.a_goes_on();
}

#[testkit::test]
fn an_emptied_lease_is_restored_by_its_holder() {
    meddle(|admin, lease| {
        drop(admin.merge_patch(lease, &json!({ "spec": { "holderIdentity": "" } })).expect("emptied"))
    })
    .a_goes_on();
}

/// As client-go's release does it, whoever holds the lease.
#[testkit::test]
fn a_release_by_another_program_is_undone_by_the_holder() {
    let released = json!({ "spec": { "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": "2026-01-01T00:00:00.000000Z", "acquireTime": "2026-01-01T00:00:00.000000Z" } });
    meddle(|admin, lease| drop(admin.merge_patch(lease, &released).expect("overwritten"))).a_goes_on();
}

#[testkit::test]
fn a_lease_given_to_an_absent_holder_is_lost_at_once() {
    meddle(|admin, lease| {
        drop(admin.merge_patch(lease, &json!({ "spec": { "holderIdentity": "nobody" } })).expect("given"))
    })
    .a_loses();
}

#[testkit::test]
fn a_lease_given_to_the_standby_is_lost_at_once() {
    meddle(|admin, lease| {
        drop(admin.merge_patch(lease, &json!({ "spec": { "holderIdentity": "b" } })).expect("given"))
    })
    .a_loses();
}

/// A release that another lock's last run left, with more acquisitions than this one has: a mark counts only for the
/// lock that it was written for.
#[testkit::test]
fn a_record_copied_from_another_lock_releases_nothing() {
    let other = TestLock::lease();
    let mut last = Candidate::new("last", &other).run_script("true");
    last.wait_for_exit(0);
    meddle(|admin, lease| {
        let mut copy = admin.get(&other.lease_path()).expect("the other lease");
        copy["spec"]["leaseTransitions"] = 100.into();
        let copied = json!({ "metadata": { "annotations": copy["metadata"]["annotations"] }, "spec": copy["spec"] });
        admin.merge_patch(lease, &copied).expect("copied");
    })
    .a_goes_on();
}

#[testkit::test]
fn a_label_on_the_lease_is_kept() {
    let scene = meddle(|admin, lease| {
        drop(admin.merge_patch(lease, &json!({ "metadata": { "labels": { "a": "b" } } })).expect("labelled"))
    });
    let (admin, path) = (Cluster::shared().admin(), scene.lock.lease_path());
    scene.a_goes_on();
    assert_eq!(admin.get(&path).expect("the lease")["metadata"]["labels"]["a"], "b", "it stays");
}

#[testkit::test]
fn a_deleted_file_is_restored_by_its_holder() {
    let (lock, witnesses) = (TestLock::file(), Witnesses::new());
    let mut a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let mut b = Candidate::new("b", &lock).run_witness(&witnesses, &[]);
    b.wait_for_log("is held by a");
    let path = std::path::Path::new(lock.name.strip_prefix("file:").expect("a file"));
    let reports = |running: &Running| running.log().matches("another program emptied or deleted").count();
    for times in 1..=2 {
        // Frozen while it is deleted, the holder cannot write it again before the standby has looked.
        kill(a.elector(), Signal::SIGSTOP).expect("it is alive");
        std::fs::remove_file(path).expect("deleted");
        eventually("the standby reports it", || reports(&b) == times);
        kill(a.elector(), Signal::SIGCONT).expect("it is alive");
        eventually("it is written again", || path.exists());
        eventually("the holder reports it", || reports(&a) == times);
    }
    a.stop();
    witnesses.wait_for("b", 1);
    b.stop();
    witnesses.assert_one_at_a_time(2);
}

/// A PUT with a resourceVersion and no uid would silently make a new Lease.
#[testkit::test]
fn a_renewal_of_a_deleted_lease_is_refused_and_does_not_make_another() {
    let (proxy, witnesses) = (Proxy::start(Cluster::shared()), Witnesses::new());
    let lock = TestLock::lease_through(proxy.kubeconfig());
    let mut a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let deleted = std::time::Instant::now();
    Cluster::shared().admin().delete(&lock.lease_path()).expect("deleted");
    let methods_since = || -> Vec<String> {
        let requests = proxy.requests().into_iter().filter(|seen| seen.received_at > deleted && !seen.is_watch());
        requests.filter(|seen| seen.path.contains("/leases/")).map(|seen| seen.method.to_string()).collect()
    };
    eventually("it is written again", || methods_since().len() >= 3);
    assert_eq!(methods_since()[..3], ["PUT", "GET", "PUT"], "it had to look first");
    a.stop();
}
