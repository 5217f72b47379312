//! Cut off from the API server: everything is dead before anybody else may start.

use testkit::{Candidate, Cluster, Proxy, TestLock, Witnesses, is_alive};

/// A leads behind a proxy, B waits beside it; then A is cut off.
fn cut_off(words: &[&str], partition: fn(&Proxy)) -> Witnesses {
    let proxy = Proxy::start(Cluster::shared());
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let mut a = Candidate::new("a", &lock.through(proxy.kubeconfig())).run_witness(&witnesses, words);
    witnesses.wait_for("a", if words.contains(&"hidden") { 2 } else { 1 });
    let mut b = Candidate::new("b", &lock).run_witness(&witnesses, &[]);
    b.wait_for_log("is held by a");
    partition(&proxy);
    a.wait_for_exit(76);
    assert!(witnesses.lifetimes_of("a").iter().all(|life| !is_alive(life.pid)));
    witnesses.wait_for("b", 1);
    b.stop();
    witnesses.assert_one_at_a_time(2);
    witnesses
}

#[testkit::test]
fn a_command_that_obeys_the_stop_signal_is_dead_before_the_next_starts() {
    let life = cut_off(&[], Proxy::partition).lifetimes_of("a").remove(0);
    assert!(life.signaled_at > 0, "it was told to stop");
    assert!(life.last_seen_at.saturating_sub(life.signaled_at) < 900_000_000, "and did so before it was killed");
}

#[testkit::test]
fn a_command_that_ignores_sigterm_is_dead_before_the_next_starts() {
    let life = cut_off(&["ignore"], Proxy::partition).lifetimes_of("a").remove(0);
    assert!(life.signaled_at > 0, "it was told to stop first");
    assert!(life.last_seen_at - life.signaled_at > 500_000_000, "and was given its grace");
}

#[testkit::test]
fn a_hidden_grandchild_is_dead_before_the_next_starts() {
    cut_off(&["hidden"], Proxy::partition);
}

#[testkit::test]
fn a_stopped_command_is_dead_before_the_next_starts() {
    let witnesses = Witnesses::new();
    let proxy = Proxy::start(Cluster::shared());
    let lock = TestLock::lease();
    let mut a = Candidate::new("a", &lock.through(proxy.kubeconfig())).run_witness(&witnesses, &["ignore", "hidden"]);
    witnesses.wait_for("a", 2);
    for life in witnesses.lifetimes_of("a") {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(life.pid as i32), nix::sys::signal::Signal::SIGSTOP)
            .expect("it lives");
    }
    proxy.partition();
    a.wait_for_exit(76);
    assert!(witnesses.lifetimes_of("a").iter().all(|life| !is_alive(life.pid)));
}

#[testkit::test]
fn renewals_whose_replies_are_lost_do_not_prolong_the_command() {
    let proxy = Proxy::start(Cluster::shared());
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let mut a = Candidate::new("a", &lock.through(proxy.kubeconfig())).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    proxy.partition_replies();
    a.wait_for_exit(76);
    let mut b = Candidate::new("b", &lock).run_witness(&witnesses, &["ends"]);
    b.wait_for_exit(0);
    witnesses.assert_one_at_a_time(2);
}

#[testkit::test]
fn a_standby_that_is_cut_off_does_not_take_a_renewed_lease() {
    let proxy = Proxy::start(Cluster::shared());
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let mut a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let mut b = Candidate::new("b", &lock.through(proxy.kubeconfig())).run_witness(&witnesses, &[]);
    b.wait_for_log("is held by a");
    proxy.partition();
    b.wait_for_log("does not answer; trying again");
    proxy.heal();
    b.wait_for_log("succeed again");
    witnesses.assert_one_at_a_time(1);
    a.stop();
    witnesses.wait_for("b", 1);
    b.stop();
    witnesses.assert_one_at_a_time(2);
}

#[testkit::test]
fn renewals_during_the_stop_do_not_put_off_the_kill() {
    let proxy = Proxy::start(Cluster::shared());
    let (lock, witnesses) = (TestLock::lease_through(proxy.kubeconfig()), Witnesses::new());
    // Four seconds of grace: time enough for many renewals.
    let times = ["--lease-duration", "12s", "--renew-deadline", "4s", "--retry-period", "500ms"];
    let mut a = Candidate::with_timing("a", &lock, times).run_witness(&witnesses, &["ignore"]);
    witnesses.wait_for("a", 1);
    proxy.partition();
    a.wait_for_log("leadership lost: sending SIGTERM");
    proxy.heal();
    a.wait_for_exit(76);
    let life = witnesses.lifetimes_of("a").remove(0);
    assert!(
        life.last_seen_at - life.signaled_at < 5_000_000_000,
        "killed {} ns after the stop",
        life.last_seen_at - life.signaled_at
    );
    let spec = Cluster::shared().admin().get(&lock.lease_path()).expect("the lease")["spec"].clone();
    assert_eq!(spec["holderIdentity"], "", "the lease was kept meanwhile, and given back");
}
