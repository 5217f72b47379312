//! Tests of candidates that are cut off from the API server. A leader's command must be dead before another command
//! starts.

use std::time::Duration;

use testkit::exit_status::LOST;
use testkit::{Candidate, Cluster, Lifetime, Proxy, TestLock, Witnesses, is_alive};

/// Cuts the leader `a` off from the API server. `arguments` select the behavior of its command (see
/// [`testkit::witness::run`]). Checks that the standby `b` takes over, but only after `a`'s command is dead. Returns
/// the witnesses.
fn assert_takeover_after_partition(arguments: &[&str]) -> Witnesses {
    let proxy = Proxy::start(Cluster::shared());
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let mut a = Candidate::new("a", &lock.through(proxy.kubeconfig())).run_witness(&witnesses, arguments);
    // With the argument `hidden`, the command's grandchild is a second witness.
    witnesses.wait_for("a", if arguments.contains(&"hidden") { 2 } else { 1 });
    let mut b = Candidate::new("b", &lock).run_witness(&witnesses, &[]);
    b.wait_for_log("held by a");
    proxy.partition();
    a.wait_for_exit(LOST);
    assert!(witnesses.lifetimes_of("a").iter().all(|life| !is_alive(life.pid)));
    witnesses.wait_for("b", 1);
    b.stop();
    witnesses.assert_runs_one_at_a_time(2);
    witnesses
}

/// Returns how long a command lived after its stop signal.
fn life_after_signal(life: &Lifetime) -> Duration {
    Duration::from_nanos(life.last_seen_at.saturating_sub(life.signaled_at))
}

#[testkit::test]
fn a_command_that_obeys_the_stop_signal_is_dead_before_the_next_starts() {
    let life = assert_takeover_after_partition(&[]).lifetimes_of("a").remove(0);
    assert!(life.signaled_at > 0, "the command should get a stop signal");
    // The kill is due one second after the stop signal.
    assert!(life_after_signal(&life) < Duration::from_millis(900), "the stop signal should end the command");
}

#[testkit::test]
fn a_command_that_ignores_sigterm_is_dead_before_the_next_starts() {
    let life = assert_takeover_after_partition(&["ignore"]).lifetimes_of("a").remove(0);
    assert!(life.signaled_at > 0, "the command should get a stop signal");
    assert!(life_after_signal(&life) > Duration::from_millis(500), "the command should get a grace period");
}

#[testkit::test]
fn a_grandchild_in_its_own_session_is_dead_before_the_next_command_starts() {
    assert_takeover_after_partition(&["hidden"]);
}

#[testkit::test]
fn a_frozen_command_is_killed() {
    let witnesses = Witnesses::new();
    let proxy = Proxy::start(Cluster::shared());
    let lock = TestLock::lease();
    let mut a = Candidate::new("a", &lock.through(proxy.kubeconfig())).run_witness(&witnesses, &["ignore", "hidden"]);
    witnesses.wait_for("a", 2);
    for life in witnesses.lifetimes_of("a") {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(life.pid as i32), nix::sys::signal::Signal::SIGSTOP)
            .expect("the process is alive");
    }
    proxy.partition();
    a.wait_for_exit(LOST);
    assert!(witnesses.lifetimes_of("a").iter().all(|life| !is_alive(life.pid)));
}

#[testkit::test]
fn the_command_is_stopped_if_the_responses_to_renewals_are_lost() {
    let proxy = Proxy::start(Cluster::shared());
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let mut a = Candidate::new("a", &lock.through(proxy.kubeconfig())).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    proxy.partition_responses();
    a.wait_for_exit(LOST);
    let mut b = Candidate::new("b", &lock).run_witness(&witnesses, &["ends"]);
    b.wait_for_exit(0);
    witnesses.assert_runs_one_at_a_time(2);
}

#[testkit::test]
fn a_standby_that_is_cut_off_does_not_take_over_a_renewed_lease() {
    let proxy = Proxy::start(Cluster::shared());
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let mut a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let mut b = Candidate::new("b", &lock.through(proxy.kubeconfig())).run_witness(&witnesses, &[]);
    b.wait_for_log("held by a");
    proxy.partition();
    b.wait_for_log("does not respond; trying again");
    proxy.heal();
    b.wait_for_log("succeed again");
    witnesses.assert_runs_one_at_a_time(1);
    a.stop();
    witnesses.wait_for("b", 1);
    b.stop();
    witnesses.assert_runs_one_at_a_time(2);
}

#[testkit::test]
fn renewals_while_the_command_is_being_stopped_do_not_delay_the_kill() {
    let proxy = Proxy::start(Cluster::shared());
    let (lock, witnesses) = (TestLock::lease_through(proxy.kubeconfig()), Witnesses::new());
    // Many renewals fit into the grace period. It is four seconds: half of the time from the renew deadline to the
    // expiry.
    let timing = ["--lease-duration", "12s", "--renew-deadline", "4s", "--retry-period", "500ms"];
    let mut a = Candidate::with_timing("a", &lock, timing).run_witness(&witnesses, &["ignore"]);
    witnesses.wait_for("a", 1);
    proxy.partition();
    a.wait_for_log("leadership lost: sending SIGTERM");
    proxy.heal();
    a.wait_for_exit(LOST);
    let life = witnesses.lifetimes_of("a").remove(0);
    let alive_for = life_after_signal(&life);
    assert!(alive_for < Duration::from_secs(5), "the command was killed {alive_for:?} after its stop signal");
    let spec = Cluster::shared().admin().get(&lock.lease_path()).expect("the lease can be read")["spec"].clone();
    assert_eq!(spec["holderIdentity"], "", "the lease should be renewed until the command is dead, and then released");
}
