//! Tests of the options that determine when a command runs again: `--min-hold`, `--every` and `--on-lost rejoin`.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use nix::sys::signal::Signal;
use serde_json::Value;

use testkit::exit_status::{LOST, NOT_ACQUIRED};
use testkit::{Candidate, Cluster, Proxy, TestLock, Witnesses, eventually, is_alive};

#[testkit::test]
fn a_command_that_succeeded_runs_once_per_min_hold() {
    for lock in [TestLock::lease(), TestLock::file(), TestLock::of_kind("configmap")] {
        let witnesses = Witnesses::new();
        let candidate = |name| Candidate::new(name, &lock).args(["--min-hold", "5s"]);
        candidate("a").args(["--wait", "0s"]).run_witness(&witnesses, &["ends"]).wait_for_exit(0);
        let mut early = candidate("b").args(["--wait", "0s"]).run_witness(&witnesses, &["ends"]);
        early.wait_for_exit(NOT_ACQUIRED);
        assert!(early.log().contains("not due before"), "{}", early.log());
        candidate("c").run_witness(&witnesses, &["ends"]).wait_for_exit(0);
        witnesses.assert_runs_one_at_a_time(2);
        let [first, second] = ["a", "c"].map(|holder| witnesses.lifetimes_of(holder)[0].started_at);
        let interval = Duration::from_nanos(second - first);
        // The five seconds begin with the acquisition, which is before the first command starts.
        assert!(interval > Duration::from_secs(4), "the second run came {interval:?} after the first");
    }
}

#[testkit::test]
fn a_command_that_failed_is_due_again_immediately() {
    let lock = TestLock::lease();
    let candidate = |name| Candidate::new(name, &lock).args(["--min-hold", "1h", "--wait", "0s"]);
    candidate("a").run_script("exit 1").wait_for_exit(1);
    candidate("b").run_script("kill -TERM $$").wait_for_exit(143);
    candidate("c").run_script("exit 0").wait_for_exit(0);
    candidate("d").run_script("exit 0").wait_for_exit(NOT_ACQUIRED);
}

#[testkit::test]
fn a_candidate_rejoins_after_a_loss_and_leads_again() {
    let proxy = Proxy::start(Cluster::shared());
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let mut a = Candidate::new("a", &lock.through(proxy.kubeconfig()))
        .args(["--on-lost", "rejoin"])
        .run_witness(&witnesses, &["hidden", "ignore"]);
    witnesses.wait_for("a", 2);
    let mut b = Candidate::new("b", &lock).run_witness(&witnesses, &[]);
    b.wait_for_log("held by a");
    for round in 1..=2 {
        // Each run of this command has two witnesses: the main process and its grandchild.
        let lifetimes = witnesses.lifetimes_of("a");
        let current = &lifetimes[lifetimes.len() - 2..];
        proxy.partition();
        eventually("the command is dead", || current.iter().all(|lifetime| !is_alive(lifetime.pid)));
        proxy.heal();
        if round == 1 {
            witnesses.wait_for("b", 1);
            b.stop();
        }
        witnesses.wait_for("a", 2 * round + 2);
    }
    witnesses.assert_runs_one_at_a_time(4);
    witnesses.kill("a");
    a.wait_for_exit(137);
}

#[testkit::test]
fn a_command_that_exits_with_the_status_of_a_loss_causes_no_rejoin() {
    let mut a = Candidate::new("a", &TestLock::file())
        .args(["--on-lost", "rejoin"])
        .run_script(&format!("echo ran; exit {LOST}"));
    a.wait_for_exit(LOST);
    assert_eq!(a.output(), "ran\n");
}

#[testkit::test]
fn a_leader_that_received_sigterm_does_not_rejoin() {
    let proxy = Proxy::start(Cluster::shared());
    let (lock, witnesses) = (TestLock::lease_through(proxy.kubeconfig()), Witnesses::new());
    let mut a = Candidate::new("a", &lock).args(["--on-lost", "rejoin"]).run_witness(&witnesses, &["ignore"]);
    witnesses.wait_for("a", 1);
    a.signal(Signal::SIGTERM);
    a.wait_for_log("terminating the command");
    proxy.partition();
    a.wait_for_exit(LOST);
    assert!(!a.log().contains("waiting for the lock again"), "{}", a.log());
}

#[testkit::test]
fn a_signal_ends_the_pause_before_rejoining() {
    let (lock, witnesses) = (TestLock::file(), Witnesses::new());
    let mut a = Candidate::new("a", &lock)
        .args(["--on-lost", "rejoin"])
        // After nine losses in a row, the pause is so long that the signal arrives before its end.
        .env("LEADERRUN_LOSSES_IN_A_ROW", "9")
        .run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    nix::sys::signal::kill(a.supervisor(), Signal::SIGKILL).expect("the process is alive");
    a.wait_for_log("waiting for the lock again");
    a.signal(Signal::SIGTERM);
    a.wait_for_exit(143);
}

#[testkit::test]
fn sigpipe_during_a_rejoin_does_not_end_leaderrun() {
    let (lock, witnesses) = (TestLock::file(), Witnesses::new());
    let mut a = Candidate::new("a", &lock).args(["--on-lost", "rejoin"]).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let mut b = Candidate::new("b", &lock).run_witness(&witnesses, &[]);
    b.wait_for_log("held by a");
    nix::sys::signal::kill(a.supervisor(), Signal::SIGKILL).expect("the process is alive");
    a.wait_for_log("waiting for the lock again");
    // To rejoin, leaderrun re-executes itself. The default action of SIGPIPE would end leaderrun; a standby ignores
    // the signal.
    while a.is_running() && !a.log().contains("held by b") {
        a.signal(Signal::SIGPIPE);
    }
    assert!(a.is_running(), "{}", a.log());
    b.stop();
    eventually("a leads again", || witnesses.lifetimes_of("a").len() == 2);
    a.stop();
}

/// Returns the time at which the command is due, if this line of `leaderrun status -o json` states it.
fn due_time(line: &str) -> Option<Timestamp> {
    let status: Value = serde_json::from_str(line).expect("each line is a JSON document");
    Some(status["notBefore"].as_str()?.parse().expect("notBefore is a time"))
}

#[testkit::test]
fn with_the_every_option_one_candidate_runs_the_command_per_interval() {
    for lock in [TestLock::lease(), TestLock::file()] {
        let witnesses = Witnesses::new();
        let run_job = |name| Candidate::new(name, &lock).args(["--every", "2s"]).run_witness(&witnesses, &["ends"]);
        let mut watch = Candidate::subcommand("status", &lock).args(["--watch", "-o", "json"]).start();
        let mut both = [run_job("a"), run_job("b")];
        eventually("the command has run four times", || witnesses.lifetimes().len() >= 4);
        for candidate in &mut both {
            candidate.signal(Signal::SIGTERM);
            candidate.wait();
        }
        watch.stop();
        witnesses.assert_runs_one_at_a_time(4);
        // Each release stores the end of the interval that began with the acquisition before it.
        let due_times: BTreeSet<Timestamp> = watch.output().lines().filter_map(due_time).collect();
        let due_times: Vec<Timestamp> = due_times.into_iter().collect();
        assert!(due_times.len() >= 3, "{}", watch.output());
        for (due, next_due) in due_times.iter().zip(&due_times[1..]) {
            assert!(*next_due >= *due + Duration::from_secs(2), "{}", watch.output());
        }
        let log = both.iter().map(|candidate| candidate.log()).collect::<Vec<_>>().concat();
        assert!(log.contains("waiting for the next run") && !log.contains("warning"), "{log}");
    }
}

#[testkit::test]
fn with_the_every_option_leaderrun_ends_on_a_signal_or_when_the_command_fails() {
    let every = |lock| Candidate::new("a", lock).args(["--every", "1h"]);
    let lock = TestLock::lease();
    every(&lock).run_script("exit 3").wait_for_exit(3);
    let mut a = every(&lock).run_script("trap 'exit 0' TERM; echo runs; while :; do sleep 0.01; done");
    eventually("the command is running", || a.output().contains("runs"));
    a.signal(Signal::SIGTERM);
    a.wait_for_exit(0);
    let lock = TestLock::file();
    let mut waiting = every(&lock).run_script("true");
    waiting.wait_for_log("waiting for the next run");
    waiting.wait_for_log("is not due before");
    waiting.signal(Signal::SIGTERM);
    waiting.wait_for_exit(143);
}

#[testkit::test]
fn after_sigterm_a_command_has_succeeded_only_if_it_exits_with_status_0() {
    for option in ["--min-hold", "--every"] {
        for (reaction, next_status) in [("exit 0", NOT_ACQUIRED), ("exit 3", 0), ("trap - TERM; kill -TERM $$", 0)] {
            let lock = TestLock::file();
            let script = format!("trap '{reaction}' TERM; echo runs; while :; do sleep 0.01; done");
            let mut a = Candidate::new("a", &lock).args([option, "1h"]).run_script(&script);
            eventually("the command is running", || a.output().contains("runs"));
            a.stop();
            Candidate::new("b", &lock).args(["--wait", "0s"]).run(["true"]).wait_for_exit(next_status);
        }
    }
}

#[testkit::test]
fn the_time_in_the_log_continues_after_a_rejoin() {
    let mut a = Candidate::new("a", &TestLock::file()).args(["--every", "1h"]).run_script("sleep 0.3");
    a.wait_for_log("is not due before");
    let line =
        a.log().lines().find(|line| line.contains("is not due before")).expect("the log contains this line").to_owned();
    assert!(!line.starts_with("leaderrun +0.0s"), "{line}");
    a.signal(Signal::SIGTERM);
    a.wait_for_exit(143);
}
