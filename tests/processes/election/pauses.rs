//! Pauses, from a stalled process to a machine that slept: what is overdue comes first.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use testkit::{Candidate, Cluster, Lifetime, Proxy, Running, TestLock, Witnesses, boot_time, eventually};

const SECOND: u64 = 1_000_000_000;

/// The stop is due 4 s after a renewal and the kill 7 s after it.
const TIMES: [&str; 6] = ["--lease-duration", "10s", "--renew-deadline", "4s", "--retry-period", "1s"];

fn life(witnesses: &Witnesses) -> Lifetime {
    witnesses.wait_for("a", 1);
    witnesses.lifetimes_of("a").remove(0)
}

fn send(process: Pid, signal: Signal) {
    kill(process, signal).expect("it is alive");
}

fn sleep_until(time: u64) {
    std::thread::sleep(Duration::from_nanos(time.saturating_sub(boot_time())));
}

/// The command would have been told to stop 4 s after the renewal that its supervisor knows of.
#[testkit::test]
fn queued_renewals_are_applied_before_the_deadline() {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let mut a = Candidate::with_timing("a", &lock, TIMES).run_witness(&witnesses, &[]);
    let born = life(&witnesses).started_at;
    send(a.supervisor(), Signal::SIGSTOP);
    sleep_until(born + 45 * SECOND / 10);
    send(a.supervisor(), Signal::SIGCONT);
    sleep_until(born + 9 * SECOND);
    let life = life(&witnesses);
    assert!(life.signaled_at == 0 && life.last_seen_at > born + 8 * SECOND, "{}", a.log());
    a.stop();
}

/// A leads behind a proxy; then its supervisor stops, the network is cut, and leaderrun is sent a
/// signal. When the supervisor goes on, at some time after the last renewal, all that waits for it.
fn pause(words: &[&str], stopped: impl Fn(&Running, &Lifetime), wakes_at: u64) -> (Witnesses, Running, u64) {
    let (proxy, witnesses) = (Proxy::start(Cluster::shared()), Witnesses::new());
    let lock = TestLock::lease_through(proxy.kubeconfig());
    let mut a = Candidate::with_timing("a", &lock, TIMES).run_witness(&witnesses, words);
    let life = life(&witnesses);
    proxy.partition();
    let last_renewal = boot_time();
    stopped(&a, &life);
    a.signal(Signal::SIGUSR1);
    sleep_until(last_renewal + wakes_at);
    let woken = boot_time();
    send(Pid::from_raw(life.pid as i32), Signal::SIGCONT);
    let _ = kill(a.supervisor(), Signal::SIGCONT);
    send(a.elector(), Signal::SIGCONT);
    a.wait_for_exit(76);
    (witnesses, a, woken)
}

#[testkit::test]
fn an_overdue_stop_comes_before_a_queued_signal() {
    // SIGUSR1 does nothing to the witness. Its supervisor wakes up between the stop and the kill.
    let stopped = |a: &Running, _: &Lifetime| send(a.supervisor(), Signal::SIGSTOP);
    let (witnesses, a, woken) = pause(&["ignore"], stopped, 45 * SECOND / 10);
    let life = life(&witnesses);
    assert!(life.signaled_at >= woken, "it was told to stop: {}", a.log());
}

/// Command, supervisor and elector sleep, and wake up when it is too late, as those of a machine do.
#[testkit::test]
fn a_leader_that_wakes_after_its_lease_was_taken_kills_its_command() {
    let stopped = |a: &Running, life: &Lifetime| {
        for process in [Pid::from_raw(life.pid as i32), a.supervisor(), a.elector()] {
            send(process, Signal::SIGSTOP);
        }
    };
    let (witnesses, _, woken) = pause(&["ignore"], stopped, 11 * SECOND);
    eventually("the command is dead", || !testkit::is_alive(life(&witnesses).pid));
    let lived_on = life(&witnesses).last_seen_at.saturating_sub(woken);
    assert!(lived_on < 2 * SECOND, "it lived for {lived_on} ns after it woke up");
}
