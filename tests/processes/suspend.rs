//! Pauses, from a stalled process to a machine that slept: what is overdue comes first.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use testkit::candidate::{Candidate, Running, TestLock, eventually};
use testkit::witness::{Life, Witnesses, boot_time};
use testkit::{Cluster, Proxy};

const SECOND: u64 = 1_000_000_000;

/// The stop is due 4 s after a renewal and the kill 7 s after it.
const TIMES: [&str; 6] = ["--lease-duration", "10s", "--renew-deadline", "4s", "--retry-period", "1s"];

fn life(witnesses: &Witnesses) -> Life {
    witnesses.wait_for("a", 1);
    witnesses.of("a").remove(0)
}

fn send(process: Pid, signal: Signal) {
    kill(process, signal).expect("it is alive");
}

fn wait_until(time: u64) {
    std::thread::sleep(Duration::from_nanos(time.saturating_sub(boot_time())));
}

/// The command would have been told to stop 4 s after the renewal that its supervisor knows of.
#[testkit::test]
fn renewals_that_waited_are_applied_before_the_deadline() {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let mut a = Candidate::with_times("a", &lock, TIMES).witnessed(&witnesses, &[]);
    let born = life(&witnesses).born;
    send(a.supervisor(), Signal::SIGSTOP);
    wait_until(born + 45 * SECOND / 10);
    send(a.supervisor(), Signal::SIGCONT);
    wait_until(born + 9 * SECOND);
    let life = life(&witnesses);
    assert!(life.told == 0 && life.last > born + 8 * SECOND, "{}", a.log());
    a.stop();
}

/// A leads behind a proxy; then its supervisor stops, the network is cut, and leaderrun is sent a
/// signal. When the supervisor goes on, at some time after the last renewal, all that waits for it.
fn pause(words: &[&str], stopped: impl Fn(&Running, &Life), wakes_at: u64) -> (Witnesses, Running, u64) {
    let (proxy, witnesses) = (Proxy::start(Cluster::shared()), Witnesses::new());
    let lock = TestLock::lease_by(proxy.kubeconfig());
    let mut a = Candidate::with_times("a", &lock, TIMES).witnessed(&witnesses, words);
    let life = life(&witnesses);
    proxy.partition();
    let last_renewal = boot_time();
    stopped(&a, &life);
    a.signal(Signal::SIGUSR1);
    wait_until(last_renewal + wakes_at);
    let woken = boot_time();
    send(Pid::from_raw(life.pid as i32), Signal::SIGCONT);
    let _ = kill(a.supervisor(), Signal::SIGCONT);
    send(a.elector(), Signal::SIGCONT);
    a.ends_with(76);
    (witnesses, a, woken)
}

#[testkit::test]
fn a_stop_that_is_overdue_is_not_lost_behind_a_signal_that_waited() {
    // SIGUSR1 does nothing to the witness. Its supervisor wakes up between the stop and the kill.
    let stopped = |a: &Running, _: &Life| send(a.supervisor(), Signal::SIGSTOP);
    let (witnesses, a, woken) = pause(&["ignore"], stopped, 45 * SECOND / 10);
    let life = life(&witnesses);
    assert!(life.told >= woken, "it was told to stop: {}", a.log());
}

/// Command, supervisor and elector sleep, and wake up when it is too late, as those of a machine do.
#[testkit::test]
fn all_of_it_wakes_up_after_its_lease_was_taken() {
    let stopped = |a: &Running, life: &Life| {
        for process in [Pid::from_raw(life.pid as i32), a.supervisor(), a.elector()] {
            send(process, Signal::SIGSTOP);
        }
    };
    let (witnesses, _, woken) = pause(&["ignore"], stopped, 11 * SECOND);
    eventually("the command is dead", || !testkit::candidate::is_alive(life(&witnesses).pid));
    let lived_on = life(&witnesses).last.saturating_sub(woken);
    assert!(lived_on < 2 * SECOND, "it lived for {lived_on} ns after it woke up");
}
