//! Tests of network and API server faults that must neither cost the leader its lock nor disturb a standby.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use testkit::{Candidate, Cluster, Match, Proxy, ReceivedRequest, Running, TestLock, Witnesses, eventually};

/// Starts the leader `a` behind a proxy. Returns the lock and the leader.
fn start_leader(proxy: &Proxy, witnesses: &Witnesses) -> (TestLock, Running) {
    let lock = TestLock::lease_through(proxy.kubeconfig());
    let a = Candidate::new("a", &lock).run_witness(witnesses, &[]);
    witnesses.wait_for("a", 1);
    (lock, a)
}

/// Checks that `a` has led without interruption, and stops it.
fn assert_still_leads(mut a: Running, witnesses: &Witnesses) {
    witnesses.assert_runs_one_at_a_time(1);
    assert_eq!(witnesses.lifetimes_of("a")[0].signaled_at, 0, "the command got a stop signal: {}", a.log());
    a.signal(Signal::SIGTERM);
    a.wait_for_exit(0);
}

fn is_put(request: &ReceivedRequest) -> bool {
    Match::put().covers(request)
}

#[testkit::test]
fn silent_connections_are_replaced_by_new_ones() {
    let (proxy, witnesses) = (Proxy::start(Cluster::shared()), Witnesses::new());
    let (lock, a) = start_leader(&proxy, &witnesses);
    for _ in 0..3 {
        proxy.silence_connections();
        Cluster::shared().wait_for_renewals(&lock, 3);
    }
    assert_still_leads(a, &witnesses);
}

#[testkit::test]
fn a_leader_survives_refused_connections_for_half_the_renew_deadline() {
    let (proxy, witnesses) = (Proxy::start(Cluster::shared()), Witnesses::new());
    let (lock, a) = start_leader(&proxy, &witnesses);
    Cluster::shared().wait_for_renewals(&lock, 1);
    proxy.refuse_connections();
    std::thread::sleep(Duration::from_secs(2));
    proxy.heal();
    Cluster::shared().wait_for_renewals(&lock, 3);
    assert_still_leads(a, &witnesses);
}

#[testkit::test]
fn a_leader_survives_the_loss_of_the_response_to_its_claim() {
    let (proxy, witnesses) = (Proxy::start(Cluster::shared()), Witnesses::new());
    proxy.drop_responses(Match::put().next(1));
    let (lock, a) = start_leader(&proxy, &witnesses);
    Cluster::shared().wait_for_renewals(&lock, 2);
    assert_eq!(
        Cluster::shared().admin().get(&lock.lease_path()).expect("the lease can be read")["spec"]["leaseTransitions"],
        0,
        "the lock should be acquired once"
    );
    assert_still_leads(a, &witnesses);
}

#[testkit::test]
fn a_leader_survives_the_loss_of_the_response_to_a_renewal() {
    let (proxy, witnesses) = (Proxy::start(Cluster::shared()), Witnesses::new());
    let (lock, a) = start_leader(&proxy, &witnesses);
    proxy.drop_responses(Match::put().next(1));
    Cluster::shared().wait_for_renewals(&lock, 3);
    assert_still_leads(a, &witnesses);
}

#[testkit::test]
fn a_leader_survives_temporary_errors_of_the_api_server() {
    let (proxy, witnesses) = (Proxy::start(Cluster::shared()), Witnesses::new());
    let (lock, a) = start_leader(&proxy, &witnesses);
    for (status, retry_after) in [(429, Some(1)), (500, None), (503, None), (504, None)] {
        proxy.respond(Match::put().next(2), status, retry_after);
        Cluster::shared().wait_for_renewals(&lock, 2);
    }
    assert_still_leads(a, &witnesses);
}

#[testkit::test]
fn a_leader_survives_a_slow_api_server() {
    let (proxy, witnesses) = (Proxy::start(Cluster::shared()), Witnesses::new());
    proxy.delay_requests(Duration::from_millis(400));
    let (lock, a) = start_leader(&proxy, &witnesses);
    Cluster::shared().wait_for_renewals(&lock, 4);
    assert_still_leads(a, &witnesses);
}

#[testkit::test]
fn a_standby_whose_watch_died_silently_acquires_the_released_lock() {
    let (proxy, witnesses) = (Proxy::start(Cluster::shared()), Witnesses::new());
    let lock = TestLock::lease();
    let mut a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let mut b = Candidate::new("b", &lock.through(proxy.kubeconfig())).run_witness(&witnesses, &[]);
    let watch = proxy.wait_for_request(ReceivedRequest::is_watch, testkit::TIMEOUT);
    proxy.silence_connections();
    // When the lease seems to have expired, the standby reads the record and opens a new watch.
    proxy.wait_for_request(|request| request.is_watch() && request.received_at > watch.received_at, testkit::TIMEOUT);
    assert!(!proxy.requests().iter().any(is_put), "the standby wrote to a lock whose holder is alive");
    a.stop();
    witnesses.wait_for("b", 1);
    b.stop();
    witnesses.assert_runs_one_at_a_time(2);
}

#[testkit::test]
fn a_standby_does_not_retry_a_refused_watch_before_retry_after_has_passed() {
    let (proxy, witnesses) = (Proxy::start(Cluster::shared()), Witnesses::new());
    let lock = TestLock::lease();
    let _a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let b = Candidate::new("b", &lock.through(proxy.kubeconfig())).run_witness(&witnesses, &[]);
    b.wait_for_log("held by a");
    let refused_at = Instant::now();
    proxy.respond(Match::watch(), 429, Some(60));
    proxy.break_connections();
    let count_after_refusal = |predicate: fn(&ReceivedRequest) -> bool| {
        proxy.requests().iter().filter(|request| request.received_at > refused_at && predicate(request)).count()
    };
    eventually("the standby reads the record", || count_after_refusal(|request| !request.is_watch()) >= 5);
    assert_eq!(count_after_refusal(ReceivedRequest::is_watch), 1, "{}", b.log());
}

#[testkit::test]
fn a_leader_survives_a_restart_of_the_api_server() {
    let (cluster, witnesses) = (Cluster::start(), Witnesses::new());
    let lock = TestLock { name: format!("{}/job", cluster.new_namespace()), kubeconfig: Some(cluster.kubeconfig()) };
    // A real API server takes a few seconds to restart.
    let timing = ["--lease-duration", "40s", "--renew-deadline", "30s", "--retry-period", "1s"];
    let mut a = Candidate::with_timing("a", &lock, timing).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let mut b = Candidate::with_timing("b", &lock, timing).run_witness(&witnesses, &[]);
    b.wait_for_log("held by a");
    cluster.restart();
    cluster.wait_for_renewals(&lock, 1);
    a.stop();
    witnesses.wait_for("b", 1);
    b.stop();
    witnesses.assert_runs_one_at_a_time(2);
}

#[testkit::test]
fn a_leader_keeps_the_lock_even_if_every_response_takes_longer_than_the_request_timeout() {
    let (proxy, witnesses) = (Proxy::start(Cluster::shared()), Witnesses::new());
    let (lock, a) = start_leader(&proxy, &witnesses);
    // The request timeout is one second. Responses may be this late if the API server has a slow disk, for example.
    proxy.delay_responses(Duration::from_millis(1500));
    // If late responses did not count, the command would be stopped after four seconds, the renew deadline.
    Cluster::shared().wait_for_renewals(&lock, 8);
    proxy.heal();
    assert_still_leads(a, &witnesses);
}
