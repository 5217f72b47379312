//! One of leaderrun's own processes dies or freezes.

use std::os::unix::process::CommandExt;
use std::ptr;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use serde_json::json;

use testkit::{Candidate, Cluster, Match, Proxy, Running, TestLock, Witnesses, eventually, is_alive};

/// Four seconds from the stop to the kill, so that things can happen in between.
const LONG_GRACE: [&str; 6] = ["--lease-duration", "12s", "--renew-deadline", "4s", "--retry-period", "500ms"];

/// The worst command: deaf, and with a grandchild that nobody would find.
const WORST: [&str; 2] = ["hidden", "ignore"];

/// A leads behind a proxy with the worst command, B waits beside it. Then `fault` happens to A, and B
/// leads.
fn strike(lock: &TestLock, fault: impl FnOnce(&Running, &Proxy)) -> (Witnesses, Running) {
    let proxy = Proxy::start(Cluster::shared());
    let witnesses = Witnesses::new();
    let by_proxy = if lock.kubeconfig.is_some() { lock.through(proxy.kubeconfig()) } else { lock.clone() };
    let a = Candidate::new("a", &by_proxy).run_witness(&witnesses, &WORST);
    witnesses.wait_for("a", 2);
    let mut b = Candidate::new("b", lock).run_witness(&witnesses, &[]);
    b.wait_for_log("is held by a");
    fault(&a, &proxy);
    witnesses.wait_for("b", 1);
    assert!(witnesses.lifetimes_of("a").iter().all(|life| !is_alive(life.pid)));
    b.stop();
    witnesses.assert_one_at_a_time(2);
    (witnesses, a)
}

fn send(process: nix::unistd::Pid, signal: Signal) {
    kill(process, signal).expect("it is alive");
}

#[testkit::test]
fn a_killed_supervisor_leaves_nothing_alive() {
    for lock in [TestLock::lease(), TestLock::file()] {
        let (_, mut a) = strike(&lock, |a, _| send(a.supervisor(), Signal::SIGKILL));
        a.wait_for_exit(76);
    }
}

#[testkit::test]
fn a_killed_elector_leaves_nothing_alive() {
    for lock in [TestLock::lease(), TestLock::file()] {
        let mut supervisor = None;
        strike(&lock, |a, _| {
            supervisor = Some(a.supervisor());
            send(a.elector(), Signal::SIGKILL);
        });
        eventually("the supervisor ends", || !is_alive(supervisor.expect("one")));
    }
}

/// The kernel refuses the elector what everything depends on; the supervisor must outlive it.
#[testkit::test]
fn a_main_thread_that_fails_leaves_nothing_alive() {
    let (_, mut a) = strike(&TestLock::lease(), |a, _| {
        // No poll of more descriptors than a process may open.
        let few = libc::rlimit { rlim_cur: 2, rlim_max: 2 };
        // SAFETY: the limit is read and nothing is written.
        let set = unsafe { libc::prlimit(a.elector().as_raw(), libc::RLIMIT_NOFILE, &raw const few, ptr::null_mut()) };
        Errno::result(set).expect("the limit is lowered");
        send(a.elector(), Signal::SIGUSR1);
    });
    a.wait_for_exit(69);
}

/// Nobody else comes to lead while the elector renews; it is noticed all the same.
#[testkit::test]
fn a_stopped_supervisor_is_killed_with_the_command() {
    let (_, mut a) = strike(&TestLock::lease(), |a, _| send(a.supervisor(), Signal::SIGSTOP));
    a.wait_for_exit(76);
}

#[testkit::test]
fn a_stopped_supervisor_without_a_network_is_killed_with_the_command() {
    let (_, mut a) = strike(&TestLock::lease(), |a, proxy| {
        send(a.supervisor(), Signal::SIGSTOP);
        proxy.partition();
    });
    a.wait_for_exit(76);
}

#[testkit::test]
fn the_command_of_a_stopped_elector_is_killed_in_time() {
    for lock in [TestLock::lease(), TestLock::file()] {
        strike(&lock, |a, _| send(a.elector(), Signal::SIGSTOP));
    }
}

#[testkit::test]
fn a_stopped_elector_that_continues_under_another_leader_changes_nothing() {
    let (witnesses, mut a) = strike(&TestLock::lease(), |a, _| send(a.elector(), Signal::SIGSTOP));
    send(a.elector(), Signal::SIGCONT);
    a.wait_for_exit(76);
    witnesses.assert_one_at_a_time(2);
}

#[testkit::test]
fn a_supervisor_stopped_before_the_spawn_starts_nothing_late() {
    let proxy = Proxy::start(Cluster::shared());
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let held = proxy.hold_replies(Match::put().next(1));
    let mut a = Candidate::new("a", &lock.through(proxy.kubeconfig())).args(["-v"]).run_witness(&witnesses, &WORST);
    held.wait_until_held();
    let supervisor = a.supervisor();
    send(supervisor, Signal::SIGSTOP);
    let mut b = Candidate::new("b", &lock).run_witness(&witnesses, &[]);
    b.wait_for_log("is held by a");
    held.release();
    a.wait_for_log("acquired");
    proxy.partition();
    witnesses.wait_for("b", 1);
    let _ = kill(supervisor, Signal::SIGCONT);
    a.wait_for_exit(76);
    b.stop();
    assert_eq!(witnesses.lifetimes_of("a").len(), 0, "nothing was started late");
    witnesses.assert_one_at_a_time(1);
}

#[testkit::test]
fn a_supervisor_killed_while_waiting_ends_leaderrun() {
    let (lock, witnesses) = (TestLock::file(), Witnesses::new());
    let _a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let mut b = Candidate::new("b", &lock).run_witness(&witnesses, &[]);
    b.wait_for_log("is held by a");
    send(b.supervisor(), Signal::SIGKILL);
    b.wait_for_exit(69);
}

/// As with `kill -9 -- -PGID`: the supervisor is in a group of its own and does not go along.
#[testkit::test]
fn a_killed_process_group_leaves_nothing_alive() {
    let (lock, witnesses) = (TestLock::file(), Witnesses::new());
    let in_a_group = |command: &mut std::process::Command| {
        command.process_group(0);
    };
    let a = Candidate::new("a", &lock).configure(in_a_group).run_witness(&witnesses, &WORST);
    witnesses.wait_for("a", 2);
    let mut b = Candidate::new("b", &lock).run_witness(&witnesses, &[]);
    b.wait_for_log("is held by a");
    killpg(a.elector(), Signal::SIGKILL).expect("a group");
    witnesses.wait_for("b", 1);
    assert!(witnesses.lifetimes_of("a").iter().all(|life| !is_alive(life.pid)));
    b.stop();
    witnesses.assert_one_at_a_time(2);
}

/// When it goes on, an overdue stop and the renewals that came meanwhile are both in its queue.
#[testkit::test]
fn a_supervisor_stopped_for_less_than_the_grace_still_sends_the_stop_signal() {
    let (lock, witnesses) = (TestLock::file(), Witnesses::new());
    let mut a = Candidate::with_timing("a", &lock, LONG_GRACE).run_witness(&witnesses, &["linger"]);
    witnesses.wait_for("a", 1);
    let supervisor = a.supervisor();
    send(supervisor, Signal::SIGSTOP);
    std::thread::sleep(Duration::from_secs(5));
    send(supervisor, Signal::SIGCONT);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(witnesses.lifetimes_of("a")[0].signaled_at, 0, "the lease was renewed all the time: {}", a.log());
    a.stop();
    witnesses.assert_one_at_a_time(1);
}

#[testkit::test]
fn a_supervisor_that_continues_within_the_grace_starts_nothing() {
    let proxy = Proxy::start(Cluster::shared());
    let (lock, witnesses) = (TestLock::lease_through(proxy.kubeconfig()), Witnesses::new());
    let held = proxy.hold_replies(Match::put().next(1));
    let mut a = Candidate::with_timing("a", &lock, LONG_GRACE).args(["-v"]).run_witness(&witnesses, &WORST);
    held.wait_until_held();
    let supervisor = a.supervisor();
    send(supervisor, Signal::SIGSTOP);
    held.release();
    a.wait_for_log("acquired");
    proxy.partition();
    std::thread::sleep(Duration::from_secs(5));
    let _ = kill(supervisor, Signal::SIGCONT);
    a.wait_for_exit(76);
    assert_eq!(witnesses.lifetimes_of("a").len(), 0, "nothing was started after the stop instant");
}

#[testkit::test]
fn a_signal_before_the_spawn_starts_nothing() {
    let proxy = Proxy::start(Cluster::shared());
    let (lock, witnesses) = (TestLock::lease_through(proxy.kubeconfig()), Witnesses::new());
    let held = proxy.hold_replies(Match::put().next(1));
    let mut a = Candidate::new("a", &lock).run_witness(&witnesses, &WORST);
    held.wait_until_held();
    let supervisor = a.supervisor();
    send(supervisor, Signal::SIGSTOP);
    held.release();
    let written = proxy.requests().len();
    eventually("it has renewed, so the order to start is out", || proxy.requests().len() > written);
    a.signal(Signal::SIGTERM);
    eventually("the guard has the signal", || !is_pending(a.elector(), Signal::SIGTERM));
    std::thread::sleep(Duration::from_millis(500));
    let _ = kill(supervisor, Signal::SIGCONT);
    a.wait_for_exit(143);
    assert_eq!(witnesses.lifetimes_of("a").len(), 0, "nothing is started once an end was asked for");
}

fn is_pending(process: nix::unistd::Pid, signal: Signal) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it is alive");
    let pending = status.lines().find_map(|line| line.strip_prefix("ShdPnd:")).expect("pending signals");
    u64::from_str_radix(pending.trim(), 16).expect("a mask") & 1 << (signal as i32 - 1) != 0
}

/// The guard does not wait for the time that the supervisor once said it enforces.
#[testkit::test]
fn a_stopped_supervisor_is_killed_when_another_takes_the_lease() {
    let (lock, witnesses, admin) = (TestLock::lease(), Witnesses::new(), Cluster::shared().admin());
    let mut a = Candidate::with_timing("a", &lock, LONG_GRACE).run_witness(&witnesses, &WORST);
    witnesses.wait_for("a", 2);
    send(a.supervisor(), Signal::SIGSTOP);
    admin.merge_patch(&lock.lease_path(), &json!({ "spec": { "holderIdentity": "nobody" } })).expect("given");
    let given = testkit::boot_time();
    a.wait_for_exit(76);
    let last = witnesses.lifetimes_of("a").iter().map(|life| life.last_seen_at).max().expect("lives");
    assert!(last < given + 4_000_000_000, "killed {} ns after it was known to be lost", last - given);
}

/// Frozen while it writes the record, it would hold the file's lock as long as it lives.
#[testkit::test]
fn an_elector_that_stays_frozen_is_killed_long_after_its_lease() {
    let (_, mut a) = strike(&TestLock::file(), |a, _| send(a.elector(), Signal::SIGSTOP));
    a.wait_for_exit(137);
}
