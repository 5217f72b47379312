//! Tests in which one of leaderrun's own processes dies or is frozen.

use std::os::unix::process::CommandExt;
use std::ptr;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use serde_json::json;

use testkit::exit_status::{LOST, UNAVAILABLE};
use testkit::{Candidate, Cluster, Match, Proxy, Running, TestLock, Witnesses, eventually, is_alive};

/// Durations with four seconds between the stop signal and the kill.
const LONG_GRACE: [&str; 6] = ["--lease-duration", "12s", "--renew-deadline", "4s", "--retry-period", "500ms"];

/// The arguments that make a witness ignore SIGTERM and start a grandchild outside its process group.
const IGNORES_SIGTERM_WITH_HIDDEN_GRANDCHILD: [&str; 2] = ["hidden", "ignore"];

/// Injects `fault` into the leader `a`, whose command ignores SIGTERM. Checks that the standby `b` takes over, but only
/// after `a`'s command is dead. Returns the witnesses and `a`.
fn assert_takeover_after(lock: &TestLock, fault: impl FnOnce(&Running, &Proxy)) -> (Witnesses, Running) {
    let proxy = Proxy::start(Cluster::shared());
    let witnesses = Witnesses::new();
    let proxied_lock = if lock.kubeconfig.is_some() { lock.through(proxy.kubeconfig()) } else { lock.clone() };
    let a = Candidate::new("a", &proxied_lock).run_witness(&witnesses, &IGNORES_SIGTERM_WITH_HIDDEN_GRANDCHILD);
    witnesses.wait_for("a", 2);
    let mut b = Candidate::new("b", lock).run_witness(&witnesses, &[]);
    b.wait_for_log("held by a");
    fault(&a, &proxy);
    witnesses.wait_for("b", 1);
    assert!(witnesses.lifetimes_of("a").iter().all(|life| !is_alive(life.pid)));
    b.stop();
    witnesses.assert_runs_one_at_a_time(2);
    (witnesses, a)
}

/// Returns how many writes of the record the proxy has received: the claim and the renewals.
fn count_writes(proxy: &Proxy) -> usize {
    proxy.requests().iter().filter(|request| Match::put().covers(request)).count()
}

fn send(process: nix::unistd::Pid, signal: Signal) {
    kill(process, signal).expect("the process is alive");
}

#[testkit::test]
fn a_killed_supervisor_leaves_nothing_alive() {
    for lock in [TestLock::lease(), TestLock::file()] {
        let (_, mut a) = assert_takeover_after(&lock, |a, _| send(a.supervisor(), Signal::SIGKILL));
        a.wait_for_exit(LOST);
    }
}

#[testkit::test]
fn a_killed_elector_leaves_nothing_alive() {
    for lock in [TestLock::lease(), TestLock::file()] {
        let mut supervisor = None;
        assert_takeover_after(&lock, |a, _| {
            supervisor = Some(a.supervisor());
            send(a.elector(), Signal::SIGKILL);
        });
        eventually("the supervisor ends", || !is_alive(supervisor.expect("the supervisor is known")));
    }
}

/// A system call fails in the main loop of the elector. The supervisor must then end the command.
#[testkit::test]
fn an_elector_whose_main_loop_fails_leaves_nothing_alive() {
    let (_, mut a) = assert_takeover_after(&TestLock::lease(), |a, _| {
        // poll(2) fails if it is called with more descriptors than the process may open.
        let too_few = libc::rlimit { rlim_cur: 2, rlim_max: 2 };
        // SAFETY: `too_few` is valid for the call, and the null pointer means that the old limit is not written.
        let result =
            unsafe { libc::prlimit(a.elector().as_raw(), libc::RLIMIT_NOFILE, &raw const too_few, ptr::null_mut()) };
        Errno::result(result).expect("the limit can be lowered");
        send(a.elector(), Signal::SIGUSR1);
    });
    a.wait_for_exit(UNAVAILABLE);
}

/// The elector continues to renew the lock, so no other candidate takes over before the elector kills the supervisor.
#[testkit::test]
fn a_frozen_supervisor_is_killed_with_the_command() {
    let (_, mut a) = assert_takeover_after(&TestLock::lease(), |a, _| send(a.supervisor(), Signal::SIGSTOP));
    a.wait_for_exit(LOST);
    assert!(a.log().contains("the supervisor is late; killing the command"), "{}", a.log());
    assert!(
        !a.log().contains("lr-supervisor"),
        "the supervisor should not be listed as a process of the command: {}",
        a.log()
    );
}

#[testkit::test]
fn a_frozen_supervisor_in_a_partition_is_killed_with_the_command() {
    let (_, mut a) = assert_takeover_after(&TestLock::lease(), |a, proxy| {
        send(a.supervisor(), Signal::SIGSTOP);
        proxy.partition();
    });
    a.wait_for_exit(LOST);
}

#[testkit::test]
fn the_command_of_a_frozen_elector_is_killed_in_time() {
    for lock in [TestLock::lease(), TestLock::file()] {
        assert_takeover_after(&lock, |a, _| send(a.elector(), Signal::SIGSTOP));
    }
}

#[testkit::test]
fn a_frozen_elector_that_is_thawed_after_a_takeover_exits() {
    let (witnesses, mut a) = assert_takeover_after(&TestLock::lease(), |a, _| send(a.elector(), Signal::SIGSTOP));
    send(a.elector(), Signal::SIGCONT);
    a.wait_for_exit(LOST);
    witnesses.assert_runs_one_at_a_time(2);
}

#[testkit::test]
fn a_supervisor_that_is_frozen_until_after_a_takeover_starts_no_command() {
    let proxy = Proxy::start(Cluster::shared());
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let claim_response = proxy.hold_responses(Match::put().next(1));
    let mut a = Candidate::new("a", &lock.through(proxy.kubeconfig()))
        .args(["-v"])
        .run_witness(&witnesses, &IGNORES_SIGTERM_WITH_HIDDEN_GRANDCHILD);
    claim_response.wait_until_held();
    let supervisor = a.supervisor();
    send(supervisor, Signal::SIGSTOP);
    claim_response.release();
    a.wait_for_log("acquired");
    proxy.partition();
    let mut b = Candidate::new("b", &lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("b", 1);
    let _ = kill(supervisor, Signal::SIGCONT);
    a.wait_for_exit(LOST);
    b.stop();
    assert_eq!(witnesses.lifetimes_of("a").len(), 0, "the command was started after the takeover");
    witnesses.assert_runs_one_at_a_time(1);
}

#[testkit::test]
fn a_standby_exits_when_its_supervisor_is_killed() {
    let (lock, witnesses) = (TestLock::file(), Witnesses::new());
    let _a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let mut b = Candidate::new("b", &lock).run_witness(&witnesses, &[]);
    b.wait_for_log("held by a");
    send(b.supervisor(), Signal::SIGKILL);
    b.wait_for_exit(UNAVAILABLE);
}

/// The supervisor has its own process group, so it survives `kill -9 -- -PGID` and kills the command.
#[testkit::test]
fn the_command_does_not_survive_a_kill_of_the_electors_process_group() {
    let (lock, witnesses) = (TestLock::file(), Witnesses::new());
    let in_new_group = |command: &mut std::process::Command| {
        command.process_group(0);
    };
    let a = Candidate::new("a", &lock)
        .configure(in_new_group)
        .run_witness(&witnesses, &IGNORES_SIGTERM_WITH_HIDDEN_GRANDCHILD);
    witnesses.wait_for("a", 2);
    let mut b = Candidate::new("b", &lock).run_witness(&witnesses, &[]);
    b.wait_for_log("held by a");
    killpg(a.elector(), Signal::SIGKILL).expect("the process group is alive");
    witnesses.wait_for("b", 1);
    assert!(witnesses.lifetimes_of("a").iter().all(|life| !is_alive(life.pid)));
    b.stop();
    witnesses.assert_runs_one_at_a_time(2);
}

/// When the supervisor is thawed, the stop signal seems overdue, but renewals are queued.
#[testkit::test]
fn a_supervisor_that_is_thawed_within_the_grace_period_applies_queued_renewals_first() {
    let (lock, witnesses) = (TestLock::file(), Witnesses::new());
    let mut a = Candidate::with_timing("a", &lock, LONG_GRACE).run_witness(&witnesses, &["linger"]);
    witnesses.wait_for("a", 1);
    let supervisor = a.supervisor();
    send(supervisor, Signal::SIGSTOP);
    std::thread::sleep(Duration::from_secs(5));
    send(supervisor, Signal::SIGCONT);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(
        witnesses.lifetimes_of("a")[0].signaled_at,
        0,
        "the command should get no stop signal, because the lease was renewed: {}",
        a.log()
    );
    a.stop();
    witnesses.assert_runs_one_at_a_time(1);
}

#[testkit::test]
fn a_supervisor_that_is_thawed_within_the_grace_period_starts_no_command() {
    let proxy = Proxy::start(Cluster::shared());
    let (lock, witnesses) = (TestLock::lease_through(proxy.kubeconfig()), Witnesses::new());
    let claim_response = proxy.hold_responses(Match::put().next(1));
    let mut a = Candidate::with_timing("a", &lock, LONG_GRACE)
        .args(["-v"])
        .run_witness(&witnesses, &IGNORES_SIGTERM_WITH_HIDDEN_GRANDCHILD);
    claim_response.wait_until_held();
    let supervisor = a.supervisor();
    send(supervisor, Signal::SIGSTOP);
    claim_response.release();
    a.wait_for_log("acquired");
    proxy.partition();
    std::thread::sleep(Duration::from_secs(5));
    let _ = kill(supervisor, Signal::SIGCONT);
    a.wait_for_exit(LOST);
    assert_eq!(witnesses.lifetimes_of("a").len(), 0, "the command was started after the stop signal was due");
}

#[testkit::test]
fn no_command_is_started_after_a_termination_signal() {
    let proxy = Proxy::start(Cluster::shared());
    let (lock, witnesses) = (TestLock::lease_through(proxy.kubeconfig()), Witnesses::new());
    let claim_response = proxy.hold_responses(Match::put().next(1));
    let mut a = Candidate::new("a", &lock).run_witness(&witnesses, &IGNORES_SIGTERM_WITH_HIDDEN_GRANDCHILD);
    claim_response.wait_until_held();
    let supervisor = a.supervisor();
    send(supervisor, Signal::SIGSTOP);
    claim_response.release();
    let writes = count_writes(&proxy);
    eventually("a has renewed, so its elector has already asked the supervisor to start the command", || {
        count_writes(&proxy) > writes
    });
    a.signal(Signal::SIGTERM);
    eventually("the elector has received the signal", || !is_pending(a.elector(), Signal::SIGTERM));
    // The elector needs a moment to pass the signal on to the supervisor.
    std::thread::sleep(Duration::from_millis(500));
    let _ = kill(supervisor, Signal::SIGCONT);
    a.wait_for_exit(143);
    assert_eq!(witnesses.lifetimes_of("a").len(), 0, "the command was started after a termination signal");
}

/// Returns whether this signal is pending for a process.
fn is_pending(process: nix::unistd::Pid, signal: Signal) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("the process is alive");
    let pending =
        status.lines().find_map(|line| line.strip_prefix("ShdPnd:")).expect("the status names the pending signals");
    u64::from_str_radix(pending.trim(), 16).expect("the mask is hexadecimal") & 1 << (signal as i32 - 1) != 0
}

/// The elector itself detects the loss, so it does not wait until the kill is due.
#[testkit::test]
fn a_frozen_supervisor_is_killed_immediately_when_the_lease_names_another_holder() {
    let (lock, witnesses, admin) = (TestLock::lease(), Witnesses::new(), Cluster::shared().admin());
    let mut a =
        Candidate::with_timing("a", &lock, LONG_GRACE).run_witness(&witnesses, &IGNORES_SIGTERM_WITH_HIDDEN_GRANDCHILD);
    witnesses.wait_for("a", 2);
    send(a.supervisor(), Signal::SIGSTOP);
    admin
        .merge_patch(&lock.lease_path(), &json!({ "spec": { "holderIdentity": "nobody" } }))
        .expect("the lease can be changed");
    let edited_at = testkit::nanos_since_boot();
    a.wait_for_exit(LOST);
    let last_seen =
        witnesses.lifetimes_of("a").iter().map(|life| life.last_seen_at).max().expect("a has started a witness");
    let alive_for = Duration::from_nanos(last_seen.saturating_sub(edited_at));
    assert!(alive_for < Duration::from_secs(4), "the command was still alive {alive_for:?} after the lease was edited");
}

/// If it were not killed, an elector that is frozen while it writes the record would keep the file locked forever.
#[testkit::test]
fn an_elector_that_stays_frozen_is_killed_if_its_lock_is_a_file() {
    let (_, mut a) = assert_takeover_after(&TestLock::file(), |a, _| send(a.elector(), Signal::SIGSTOP));
    a.wait_for_exit(137);
}

/// The test freezes the supervisor repeatedly, which has the same effect as a CPU limit.
#[testkit::test]
fn a_supervisor_that_is_repeatedly_late_logs_a_warning_and_stops_the_command_earlier() {
    let proxy = Proxy::start(Cluster::shared());
    let (lock, witnesses) = (TestLock::lease_through(proxy.kubeconfig()), Witnesses::new());
    let mut a = Candidate::with_timing("a", &lock, LONG_GRACE).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let supervisor = a.supervisor();
    for _ in 0..3 {
        send(supervisor, Signal::SIGSTOP);
        std::thread::sleep(Duration::from_millis(1500));
        send(supervisor, Signal::SIGCONT);
        std::thread::sleep(Duration::from_millis(700));
    }
    // The warning continues with the tenths of a second, for example "1.5 s late".
    a.wait_for_log("leaderrun runs up to 1.");
    // Later renewals must not restore the original deadlines. The first one has certainly been completed when the
    // second one is sent.
    let writes = count_writes(&proxy);
    eventually("a has renewed twice", || count_writes(&proxy) > writes + 1);
    proxy.partition();
    let partitioned_at = testkit::nanos_since_boot();
    a.wait_for_exit(LOST);
    let until_stop = Duration::from_nanos(witnesses.lifetimes_of("a")[0].signaled_at - partitioned_at);
    // If the supervisor had not been late, the stop signal would have come four seconds after the last renewal, which
    // was up to half a second before the partition.
    assert!(until_stop < Duration::from_millis(3500), "the stop signal came after {until_stop:?}: {}", a.log());
}
