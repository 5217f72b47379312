//! Tests of how locks are created, renewed, released and handed over.

use nix::sys::signal::Signal;

use testkit::{Candidate, Cluster, Match, Proxy, TestLock, Witnesses, eventually};

#[testkit::test]
fn a_lease_is_created_renewed_and_released() {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let admin = Cluster::shared().admin();
    let spec = || admin.get(&lock.lease_path()).expect("the lease can be read")["spec"].clone();
    let mut a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let first = spec();
    assert_eq!(first["holderIdentity"], "a");
    assert_eq!(first["leaseDurationSeconds"], 6);
    assert_eq!(first["leaseTransitions"], 0);
    eventually("the lease is renewed", || spec()["renewTime"] != first["renewTime"]);
    assert_eq!(spec()["acquireTime"], first["acquireTime"]);
    a.stop();
    assert_eq!(spec()["holderIdentity"], "", "the lease should be released");
    let mut b = Candidate::new("b", &lock).run_witness(&witnesses, &["ends"]);
    b.wait_for_exit(0);
    assert_eq!(spec()["leaseTransitions"], 1);
    witnesses.assert_runs_one_at_a_time(2);
}

#[testkit::test]
fn labels_of_an_existing_lease_are_kept() {
    let (lock, admin) = (TestLock::lease(), Cluster::shared().admin());
    let labels = serde_json::json!({ "team": "billing" });
    let lease = serde_json::json!({ "metadata": { "name": "job", "labels": labels } });
    admin.create(lock.lease_path().trim_end_matches("/job"), &lease).expect("the lease can be created");
    let mut a = Candidate::new("a", &lock).run_script("true");
    a.wait_for_exit(0);
    assert_eq!(admin.get(&lock.lease_path()).expect("the lease can be read")["metadata"]["labels"], labels);
}

#[testkit::test]
fn a_lease_is_handed_over_to_the_standby() {
    assert_handed_over_to_standby(&TestLock::lease());
}

#[testkit::test]
fn a_lock_file_is_handed_over_to_the_standby() {
    assert_handed_over_to_standby(&TestLock::file());
}

fn assert_handed_over_to_standby(lock: &TestLock) {
    let witnesses = Witnesses::new();
    let mut a = Candidate::new("a", lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let mut b = Candidate::new("b", lock).run_witness(&witnesses, &[]);
    b.wait_for_log("held by a");
    a.stop();
    witnesses.wait_for("b", 1);
    b.stop();
    witnesses.assert_runs_one_at_a_time(2);
}

#[testkit::test]
fn a_standby_sends_one_read_and_one_watch() {
    let lock = TestLock::lease();
    let (proxy, witnesses) = (Proxy::start(Cluster::shared()), Witnesses::new());
    let _a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let b = Candidate::new("b", &lock.through(proxy.kubeconfig())).run_witness(&witnesses, &[]);
    b.wait_for_log("held by a");
    // The standby watches for longer than the lease duration while the holder renews.
    Cluster::shared().wait_for_renewals(&lock, 8);
    let requests: Vec<String> =
        proxy.requests().iter().map(|request| format!("{} {}", request.method, request.path)).collect();
    assert_eq!(requests.len(), 2, "the standby should send one read and one watch: {requests:?}");
}

#[testkit::test]
fn only_one_of_two_candidates_with_the_same_identity_leads() {
    for lock in [TestLock::lease(), TestLock::file()] {
        let witnesses = Witnesses::new();
        let candidate = || Candidate::new("twin", &lock);
        let mut first = candidate().run_witness(&witnesses, &[]);
        witnesses.wait_for("twin", 1);
        let mut second = candidate().run_witness(&witnesses, &[]);
        second.wait_for_log("held by twin");
        first.stop();
        witnesses.wait_for("twin", 2);
        second.stop();
        witnesses.assert_runs_one_at_a_time(2);
    }
}

/// The test writes the record as another implementation of the protocol would if its clock were years behind.
#[testkit::test]
fn a_holder_whose_clock_is_wrong_keeps_the_lease_while_it_renews() {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let admin = Cluster::shared().admin();
    let renew = |second: u32| {
        let renew_time = format!("2020-01-01T00:00:{second:02}.000000Z");
        let spec = serde_json::json!({ "holderIdentity": "late", "leaseDurationSeconds": 2, "renewTime": renew_time });
        let metadata = match admin.get(&lock.lease_path()) {
            Ok(lease) => lease["metadata"].clone(),
            Err(_) => serde_json::json!({ "name": "job" }),
        };
        admin
            .replace(&lock.lease_path(), &serde_json::json!({ "metadata": metadata, "spec": spec }))
            .expect("the lease can be renewed");
    };
    renew(0);
    let proxy = Proxy::start(Cluster::shared());
    let mut b = Candidate::new("b", &lock.through(proxy.kubeconfig())).run_witness(&witnesses, &[]);
    b.wait_for_log("held by late");
    let start = std::time::Instant::now();
    for second in 1..=10 {
        std::thread::sleep(std::time::Duration::from_millis(500));
        renew(second);
    }
    let elapsed = start.elapsed();
    assert!(elapsed > std::time::Duration::from_secs(4), "the holder renewed for less than twice the lease duration");
    let puts = Match::put();
    assert!(
        !proxy.requests().iter().any(|request| puts.covers(request)),
        "the standby wrote to a lease that was renewed"
    );
    let last_renewal = testkit::nanos_since_boot();
    witnesses.wait_for("b", 1);
    let waited = std::time::Duration::from_nanos(witnesses.lifetimes_of("b")[0].started_at - last_renewal);
    // The lease duration of two seconds begins shortly before `last_renewal`.
    assert!(waited > std::time::Duration::from_millis(1900), "the standby only waited {waited:?}");
    b.signal(Signal::SIGTERM);
    b.wait_for_exit(0);
}

/// All candidates start at almost the same time.
#[testkit::test]
fn only_one_of_many_candidates_for_a_lock_file_leads() {
    for _ in 0..5 {
        let (lock, witnesses) = (TestLock::file(), Witnesses::new());
        let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let candidates = names.map(|name| Candidate::new(name, &lock).run_witness(&witnesses, &["linger"]));
        eventually("all candidates but one wait", || {
            candidates.iter().filter(|candidate| candidate.log().contains("held by")).count() == names.len() - 1
        });
        eventually("one candidate leads", || !witnesses.lifetimes().is_empty());
        assert_eq!(witnesses.lifetimes().len(), 1, "{:?}", witnesses.lifetimes());
    }
}
