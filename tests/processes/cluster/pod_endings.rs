//! Tests of hand-overs and takeovers when a pod ends. The tests end the processes of a container as the kubelet does.

use nix::sys::signal::{Signal, kill};

use testkit::{Candidate, Cluster, Match, Proxy, Running, TestLock, Witnesses, descendants};

/// Starts the leader `a`, whose witness gets `arguments`, and the standby `b`.
fn start_leader_and_standby(witnesses: &Witnesses, arguments: &[&str]) -> [Running; 2] {
    let lock = TestLock::lease();
    // The tests end the containers long before `--kill-after` has passed, as the kubelet does if the grace period is
    // shorter.
    let candidate = |name| Candidate::new(name, &lock).args(["--kill-after", "10m"]);
    let a = candidate("a").run_witness(witnesses, arguments);
    witnesses.wait_for("a", 1);
    let b = candidate("b").run_witness(witnesses, &[]);
    b.wait_for_log("held by a");
    [a, b]
}

/// Kills every process of a container, as the kubelet does at the end of the grace period. The processes are frozen
/// first, so that none of them can react to the death of another.
fn kill_container(leaderrun: &Running) {
    let mut processes = descendants(leaderrun.elector());
    processes.push(leaderrun.elector());
    for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
        processes.iter().for_each(|process| kill(*process, signal).expect("the process is alive"));
    }
}

/// A pod gets a grace period in a rolling update, when its node is drained, and after `kubectl delete pod`.
#[testkit::test]
fn the_lock_is_handed_over_if_the_command_ends_within_the_grace_period() {
    let witnesses = Witnesses::new();
    let [mut a, mut b] = start_leader_and_standby(&witnesses, &["linger"]);
    a.signal(Signal::SIGTERM);
    witnesses.wait_for("b", 1);
    a.wait();
    assert!(b.log().contains("a released ") && !b.log().contains("expired"), "{}", b.log());
    b.stop();
    witnesses.assert_runs_one_at_a_time(2);
}

/// The grace period is shorter than `--kill-after`, and the command ignores SIGTERM.
#[testkit::test]
fn the_lock_expires_if_the_container_is_killed_at_the_end_of_the_grace_period() {
    let witnesses = Witnesses::new();
    let [mut a, mut b] = start_leader_and_standby(&witnesses, &["ignore"]);
    a.signal(Signal::SIGTERM);
    a.wait_for_log("got SIGTERM");
    kill_container(&a);
    a.wait();
    witnesses.wait_for("b", 1);
    b.wait_for_log("expired");
    assert!(!b.log().contains("a released "), "{}", b.log());
    b.stop();
    witnesses.assert_runs_one_at_a_time(2);
}

/// A container is killed without notice if it runs out of memory or its node fails.
#[testkit::test]
fn the_lock_expires_if_the_container_is_killed_without_notice() {
    let witnesses = Witnesses::new();
    let [mut a, mut b] = start_leader_and_standby(&witnesses, &[]);
    kill_container(&a);
    a.wait();
    witnesses.wait_for("b", 1);
    b.wait_for_log("expired");
    b.stop();
    witnesses.assert_runs_one_at_a_time(2);
}

/// The node is cut off from the API server, so its pod gets no signal.
#[testkit::test]
fn the_command_on_a_node_that_is_cut_off_is_dead_before_the_next_command_starts() {
    let (proxy, lock, witnesses) = (Proxy::start(Cluster::shared()), TestLock::lease(), Witnesses::new());
    let mut a = Candidate::new("a", &lock.through(proxy.kubeconfig())).run_witness(&witnesses, &["ignore"]);
    witnesses.wait_for("a", 1);
    let mut b = Candidate::new("b", &lock).run_witness(&witnesses, &[]);
    b.wait_for_log("held by a");
    let cut_off = proxy.hold_requests(Match::any());
    witnesses.wait_for("b", 1);
    a.wait();
    b.wait_for_log("expired");
    drop(cut_off);
    b.stop();
    witnesses.assert_runs_one_at_a_time(2);
}
