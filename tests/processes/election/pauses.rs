//! Tests of processes that are frozen for a while, as when a machine is suspended.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use testkit::exit_status::LOST;
use testkit::{Candidate, Cluster, Lifetime, Proxy, Running, TestLock, Witnesses, eventually, nanos_since_boot};

/// One second in nanoseconds, the unit of [`nanos_since_boot`].
const SECOND: u64 = 1_000_000_000;

/// With these durations, the stop signal is due 4 s after the last renewal, and the kill is due 3 s later.
const TIMING: [&str; 6] = ["--lease-duration", "10s", "--renew-deadline", "4s", "--retry-period", "1s"];

/// Waits until the command of `a` has started, and returns its lifetime.
fn command_lifetime(witnesses: &Witnesses) -> Lifetime {
    witnesses.wait_for("a", 1);
    witnesses.lifetimes_of("a").remove(0)
}

fn send(process: Pid, signal: Signal) {
    kill(process, signal).expect("the process is alive");
}

fn sleep_until(time: u64) {
    std::thread::sleep(Duration::from_nanos(time.saturating_sub(nanos_since_boot())));
}

/// While the supervisor is frozen for 4.5 s, the elector keeps renewing the lease and forwarding the renewals to the
/// supervisor. When the supervisor is thawed, the last deadline that it has read (4 s) has passed, so it must read the
/// queued renewals before it acts on that deadline.
#[testkit::test]
fn queued_renewals_are_applied_before_the_deadline_is_checked() {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let mut a = Candidate::with_timing("a", &lock, TIMING).run_witness(&witnesses, &[]);
    let started_at = command_lifetime(&witnesses).started_at;
    send(a.supervisor(), Signal::SIGSTOP);
    sleep_until(started_at + 45 * SECOND / 10);
    send(a.supervisor(), Signal::SIGCONT);
    sleep_until(started_at + 9 * SECOND);
    let life = command_lifetime(&witnesses);
    assert!(life.signaled_at == 0 && life.last_seen_at > started_at + 8 * SECOND, "{}", a.log());
    a.stop();
}

/// Starts a leader `a` whose witness gets `witness_arguments`, and cuts it off from the API server. Then freezes some
/// of its processes with `freeze`, sends SIGUSR1 to leaderrun, thaws all processes `thaw_after` nanoseconds after the
/// partition, and waits until `a` exits. Returns the witnesses, `a`, and the time of the thaw.
fn freeze_and_thaw(
    witness_arguments: &[&str],
    freeze: impl Fn(&Running, &Lifetime),
    thaw_after: u64,
) -> (Witnesses, Running, u64) {
    let (proxy, witnesses) = (Proxy::start(Cluster::shared()), Witnesses::new());
    let lock = TestLock::lease_through(proxy.kubeconfig());
    let mut a = Candidate::with_timing("a", &lock, TIMING).run_witness(&witnesses, witness_arguments);
    let life = command_lifetime(&witnesses);
    proxy.partition();
    let partitioned_at = nanos_since_boot();
    freeze(&a, &life);
    a.signal(Signal::SIGUSR1);
    sleep_until(partitioned_at + thaw_after);
    let thawed_at = nanos_since_boot();
    send(Pid::from_raw(life.pid as i32), Signal::SIGCONT);
    let _ = kill(a.supervisor(), Signal::SIGCONT);
    send(a.elector(), Signal::SIGCONT);
    a.wait_for_exit(LOST);
    (witnesses, a, thawed_at)
}

#[testkit::test]
fn an_overdue_stop_signal_is_sent_even_if_another_signal_is_queued() {
    // When the supervisor is thawed, the stop signal is overdue, but the kill is not due yet. The witness ignores
    // SIGUSR1.
    let freeze = |a: &Running, _: &Lifetime| send(a.supervisor(), Signal::SIGSTOP);
    let (witnesses, a, thawed_at) = freeze_and_thaw(&["ignore"], freeze, 45 * SECOND / 10);
    let life = command_lifetime(&witnesses);
    assert!(life.signaled_at >= thawed_at, "the command should get the stop signal after the thaw: {}", a.log());
}

/// All processes are frozen and thawed together, as when a machine is suspended and resumed.
#[testkit::test]
fn a_leader_that_is_thawed_after_its_lease_has_expired_kills_its_command() {
    let freeze = |a: &Running, life: &Lifetime| {
        for process in [Pid::from_raw(life.pid as i32), a.supervisor(), a.elector()] {
            send(process, Signal::SIGSTOP);
        }
    };
    let (witnesses, _, thawed_at) = freeze_and_thaw(&["ignore"], freeze, 11 * SECOND);
    eventually("the command is dead", || !testkit::is_alive(command_lifetime(&witnesses).pid));
    let alive_for = command_lifetime(&witnesses).last_seen_at.saturating_sub(thawed_at);
    assert!(alive_for < 2 * SECOND, "the command lived for {alive_for} ns after it was thawed");
}
