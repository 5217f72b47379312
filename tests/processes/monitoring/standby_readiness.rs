//! Tests of the readiness and health of standbys. A standby that could not take over is not ready.

use serde_json::json;

use testkit::http::{get, leader_report, samples, status, wait_for_samples, wait_for_status};
use testkit::{CANDIDATE_VERBS, Candidate, Cluster, Proxy, Running, TestLock, Witnesses, eventually};

/// The option that serves HTTP on any free port.
const HTTP: [&str; 2] = ["--http", "127.0.0.1:0"];

/// The metric with the time since the lock was last read, written or watched successfully.
const AGE: &str = "leaderrun_last_success_age_seconds";

/// The lease duration in [`testkit::TIMING`], in seconds.
const LEASE_DURATION: f64 = 6.0;

/// Waits until the response for a path is 503 and contains this reason.
#[track_caller]
fn wait_for_failure(running: &Running, path: &str, reason: &str) {
    eventually(&format!("{path} fails with {reason:?}"), || {
        let page = get(running, path);
        page.status == 503 && page.body.contains(reason)
    });
}

/// A leader with a direct connection, and a ready standby behind a proxy.
struct Fixture {
    proxy: Proxy,
    witnesses: Witnesses,
    _leader: Running,
    standby: Running,
}

impl Fixture {
    fn start(options: &[&str]) -> Self {
        let (proxy, witnesses, lock) = (Proxy::start(Cluster::shared()), Witnesses::new(), TestLock::lease());
        let leader = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
        witnesses.wait_for("a", 1);
        let standby = Candidate::new("b", &lock.through(proxy.kubeconfig())).args(HTTP).args(options);
        let standby = standby.run_witness(&witnesses, &[]);
        wait_for_status(&standby, "/readyz", 200);
        Self { proxy, witnesses, _leader: leader, standby }
    }

    #[track_caller]
    fn assert_recovers(self) {
        self.proxy.heal();
        wait_for_status(&self.standby, "/readyz", 200);
        wait_for_samples(&self.standby, "the standby has read the lock", |samples| samples.value(AGE) < LEASE_DURATION);
        self.witnesses.assert_runs_one_at_a_time(1);
    }
}

#[testkit::test]
fn a_standby_in_a_partition_is_not_ready() {
    let fixture = Fixture::start(&[]);
    fixture.proxy.partition();
    wait_for_failure(&fixture.standby, "/readyz", "has not been read or watched successfully for");
    assert!(
        samples(&fixture.standby).value(AGE) > LEASE_DURATION,
        "the standby should stay ready until the lease duration has passed"
    );
    assert_eq!(
        status(&fixture.standby, "/healthz"),
        200,
        "the standby should be healthy, because a restart would not help"
    );
    fixture.assert_recovers();
}

#[testkit::test]
fn a_standby_whose_api_server_is_down_is_not_ready() {
    let fixture = Fixture::start(&[]);
    fixture.proxy.refuse_connections();
    wait_for_failure(&fixture.standby, "/readyz", "has not been read or watched successfully for");
    fixture.assert_recovers();
}

#[testkit::test]
fn a_standby_that_may_no_longer_read_is_not_ready() {
    let lock = TestLock::lease_with_verbs(&CANDIDATE_VERBS);
    let witnesses = Witnesses::new();
    let mut a = Candidate::new("a", &lock.through(Cluster::shared().kubeconfig())).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let b = Candidate::new("b", &lock).args(HTTP).run_witness(&witnesses, &[]);
    wait_for_status(&b, "/readyz", 200);
    Cluster::shared().set_permissions(lock.namespace(), "candidate", json!([]));
    // The open watch continues, but the record expires and cannot be read.
    a.signal(nix::sys::signal::Signal::SIGKILL);
    a.wait();
    wait_for_failure(&b, "/readyz", "has not been read or watched successfully for");
}

#[testkit::test]
fn a_standby_that_may_not_write_is_not_ready() {
    let lock = TestLock::lease_with_verbs(&["get", "watch"]);
    let a = Candidate::new("a", &lock).args(HTTP).run_script("true");
    a.wait_for_log("not allowed to ");
    wait_for_failure(&a, "/readyz", "is free, but attempts to acquire it are refused\n");
    assert_eq!(samples(&a).value("leaderrun_state{state=\"claiming\"}"), 1.0);
}

#[testkit::test]
fn a_standby_that_has_been_unable_to_lead_for_too_long_is_unhealthy() {
    let fixture = Fixture::start(&["--unhealthy-after", "8s"]);
    fixture.proxy.partition();
    wait_for_failure(&fixture.standby, "/healthz", "unable to lead for ");
    fixture.proxy.heal();
    wait_for_status(&fixture.standby, "/healthz", 200);
    fixture.assert_recovers();
}

#[testkit::test]
fn a_standby_whose_command_is_not_due_is_ready() {
    let lock = TestLock::lease();
    Candidate::new("a", &lock).args(["--min-hold", "1h"]).run_script("true").wait_for_exit(0);
    let b = Candidate::new("b", &lock).args(HTTP).run_script("true");
    b.wait_for_log("not due before");
    wait_for_status(&b, "/readyz", 200);
    assert_eq!(samples(&b).value("leaderrun_state{state=\"not_due\"}"), 1.0);
    assert_eq!(leader_report(&b)["leader"], serde_json::Value::Null);
}
