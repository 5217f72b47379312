//! A bad network, an API server in trouble: what must not cost a leader its lease.

use std::time::Duration;

use nix::sys::signal::Signal;

use testkit::{Candidate, Cluster, Match, Proxy, ReceivedRequest, Running, TestLock, Witnesses, eventually};

/// A leads behind a proxy.
fn leader(proxy: &Proxy, witnesses: &Witnesses) -> (TestLock, Running) {
    let lock = TestLock::lease_through(proxy.kubeconfig());
    let a = Candidate::new("a", &lock).run_witness(witnesses, &[]);
    witnesses.wait_for("a", 1);
    (lock, a)
}

/// Waits for so many renewals that arrive; the last of them says that nothing was lost before.
fn renewals(lock: &TestLock, count: usize) {
    let renewed = || Cluster::shared().admin().get(&lock.lease_path()).expect("the lease")["spec"]["renewTime"].clone();
    for _ in 0..count {
        let before = renewed();
        eventually("a renewal", || renewed() != before);
    }
}

fn still_leads(mut a: Running, witnesses: &Witnesses) {
    witnesses.assert_one_at_a_time(1);
    assert_eq!(witnesses.lifetimes_of("a")[0].signaled_at, 0, "nobody told it to stop: {}", a.log());
    a.signal(Signal::SIGTERM);
    a.wait_for_exit(0);
}

fn is_put(seen: &ReceivedRequest) -> bool {
    Match::put().covers(seen)
}

#[testkit::test]
fn silent_connections_are_given_up_for_new_ones() {
    let (proxy, witnesses) = (Proxy::start(Cluster::shared()), Witnesses::new());
    let (lock, a) = leader(&proxy, &witnesses);
    for _ in 0..3 {
        proxy.silence_existing();
        renewals(&lock, 3);
    }
    still_leads(a, &witnesses);
}

#[testkit::test]
fn refused_connections_for_half_the_renew_deadline_do_not_cost_the_lease() {
    let (proxy, witnesses) = (Proxy::start(Cluster::shared()), Witnesses::new());
    let (lock, a) = leader(&proxy, &witnesses);
    renewals(&lock, 1);
    proxy.refuse();
    std::thread::sleep(Duration::from_secs(2));
    proxy.heal();
    renewals(&lock, 3);
    still_leads(a, &witnesses);
}

#[testkit::test]
fn a_lost_reply_to_a_claim_is_settled_by_reading() {
    let (proxy, witnesses) = (Proxy::start(Cluster::shared()), Witnesses::new());
    proxy.lose_replies(Match::put().next(1));
    let (lock, a) = leader(&proxy, &witnesses);
    renewals(&lock, 2);
    assert_eq!(
        Cluster::shared().admin().get(&lock.lease_path()).expect("the lease")["spec"]["leaseTransitions"],
        0,
        "it was won once"
    );
    still_leads(a, &witnesses);
}

#[testkit::test]
fn a_lost_reply_to_a_renewal_is_settled_by_reading() {
    let (proxy, witnesses) = (Proxy::start(Cluster::shared()), Witnesses::new());
    let (lock, a) = leader(&proxy, &witnesses);
    proxy.lose_replies(Match::put().next(1));
    renewals(&lock, 3);
    still_leads(a, &witnesses);
}

#[testkit::test]
fn an_overloaded_api_server_does_not_cost_the_lease() {
    let (proxy, witnesses) = (Proxy::start(Cluster::shared()), Witnesses::new());
    let (lock, a) = leader(&proxy, &witnesses);
    for (status, retry_after) in [(429, Some(1)), (500, None), (503, None), (504, None)] {
        proxy.answer(Match::put().next(2), status, retry_after);
        renewals(&lock, 2);
    }
    still_leads(a, &witnesses);
}

#[testkit::test]
fn a_slow_api_server_does_not_cost_the_lease() {
    let (proxy, witnesses) = (Proxy::start(Cluster::shared()), Witnesses::new());
    proxy.delay(Duration::from_millis(400));
    let (lock, a) = leader(&proxy, &witnesses);
    renewals(&lock, 4);
    still_leads(a, &witnesses);
}

#[testkit::test]
fn a_standby_whose_watch_died_silently_takes_over() {
    let (proxy, witnesses) = (Proxy::start(Cluster::shared()), Witnesses::new());
    let lock = TestLock::lease();
    let mut a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let mut b = Candidate::new("b", &lock.through(proxy.kubeconfig())).run_witness(&witnesses, &[]);
    let watch = proxy.wait_for_request(ReceivedRequest::is_watch, testkit::TIMEOUT);
    proxy.silence_existing();
    // It finds out when the lease should have run out, and watches again.
    proxy.wait_for_request(|seen| seen.is_watch() && seen.received_at > watch.received_at, testkit::TIMEOUT);
    assert!(!proxy.requests().iter().any(is_put), "a living holder is left alone");
    a.stop();
    witnesses.wait_for("b", 1);
    b.stop();
    witnesses.assert_one_at_a_time(2);
}

#[testkit::test]
fn a_restart_of_the_api_server_does_not_cost_the_lease() {
    let (cluster, witnesses) = (Cluster::start(), Witnesses::new());
    let lock = TestLock { name: format!("{}/job", cluster.new_namespace()), kubeconfig: Some(cluster.kubeconfig()) };
    // A real one takes some seconds to come back.
    let times = ["--lease-duration", "40s", "--renew-deadline", "30s", "--retry-period", "1s"];
    let mut a = Candidate::with_timing("a", &lock, times).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let mut b = Candidate::with_timing("b", &lock, times).run_witness(&witnesses, &[]);
    b.wait_for_log("is held by a");
    cluster.restart();
    let renewed = || cluster.admin().get(&lock.lease_path()).expect("the lease")["spec"]["renewTime"].clone();
    let before = renewed();
    eventually("a renewal", || renewed() != before);
    a.stop();
    witnesses.wait_for("b", 1);
    b.stop();
    witnesses.assert_one_at_a_time(2);
}
