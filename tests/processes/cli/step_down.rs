//! Tests of `leaderrun step-down`.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use testkit::exit_status::{FAILED, LOST};
use testkit::{Candidate, Cluster, TestLock, Witnesses, eventually};

/// Runs `leaderrun step-down`, which must exit with this status. Returns its output and its log.
fn step_down(lock: &TestLock, status: i32) -> String {
    let mut command = Candidate::subcommand("step-down", lock).start();
    command.wait_for_exit(status);
    command.output() + &command.log()
}

#[testkit::test]
fn a_holder_steps_down_when_asked_but_its_successor_does_not() {
    let kinds = ["lease", "endpoints", "configmap+lease"].map(TestLock::of_kind);
    for lock in [TestLock::file()].into_iter().chain(kinds) {
        let witnesses = Witnesses::new();
        let mut a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
        witnesses.wait_for("a", 1);
        let mut b = Candidate::new("b", &lock).run_witness(&witnesses, &[]);
        b.wait_for_log("held by a");
        // Messages leave out `lease:`, the default kind.
        let name = lock.name.trim_start_matches("lease:");
        assert_eq!(step_down(&lock, 0), format!("asked a to step down from {name}\n"));
        let ended = a.wait();
        assert_ne!(ended.code(), Some(LOST), "stepping down should not be a loss: {}", a.log());
        a.wait_for_log("asked to release");
        witnesses.wait_for("b", 1);
        b.wait_for_log("started the command");
        assert!(!b.log().contains("asked to release"), "{}", b.log());
        b.stop();
        witnesses.assert_runs_one_at_a_time(2);
    }
}

#[testkit::test]
fn a_holder_that_steps_down_renews_the_lease_until_its_command_is_dead() {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let mut a = Candidate::new("a", &lock).args(["--kill-after", "7s"]).run_witness(&witnesses, &["ignore"]);
    witnesses.wait_for("a", 1);
    let mut b = Candidate::new("b", &lock).run_witness(&witnesses, &["ends"]);
    b.wait_for_log("held by a");
    step_down(&lock, 0);
    a.wait_for_log("asked to release");
    let lease = || Cluster::shared().admin().get(&lock.lease_path()).expect("the lease can be read");
    eventually("the request is removed from the record", || {
        lease()["metadata"]["annotations"]["leaderrun/step-down"].is_null()
    });
    a.wait_for_exit(137);
    b.wait_for_exit(0);
    let life = witnesses.lifetimes_of("a").remove(0);
    assert!(life.signaled_at > 0, "the command should get the stop signal");
    // If the lease were not renewed, the command would be killed five seconds after the last renewal.
    let alive_after_signal = Duration::from_nanos(life.last_seen_at - life.signaled_at);
    assert!(
        alive_after_signal > Duration::from_secs(5),
        "the command lived for only {alive_after_signal:?} after the stop signal"
    );
    witnesses.assert_runs_one_at_a_time(2);
}

#[testkit::test]
fn a_request_to_step_down_does_not_apply_to_the_next_leader() {
    let lock = TestLock::file();
    let a = Candidate::new("a", &lock).run_script("echo started; exec sleep 1000");
    eventually("a leads", || !a.output().is_empty());
    a.signal(Signal::SIGSTOP);
    step_down(&lock, 0);
    let second_output = step_down(&lock, 0);
    assert!(second_output.contains("asked a"), "asking again should be accepted: {second_output}");
    let mut b = Candidate::new("b", &lock).run_script("true");
    b.wait_for_exit(0);
    assert!(!b.log().contains("asked to release"), "the request should apply only to a's run: {}", b.log());
    a.signal(Signal::SIGCONT);
}

#[testkit::test]
fn step_down_fails_if_the_lock_is_free_or_its_holder_does_not_run_leaderrun() {
    let lock = TestLock::lease();
    assert_eq!(step_down(&lock, 1), format!("{} is free\n", lock.name));
    let lease =
        json!({ "metadata": { "name": "job" }, "spec": { "holderIdentity": "stranger", "leaseDurationSeconds": 15 } });
    Cluster::shared().admin().replace(&lock.lease_path(), &lease).expect("the lease can be written");
    assert!(step_down(&lock, FAILED).contains("stranger does not run leaderrun"));
}

/// Runs `leaderrun step-down --wait` with this value, if there is one. It must exit with this status. Returns its
/// output and its log.
fn step_down_and_wait(lock: &TestLock, wait: Option<&str>, status: i32) -> String {
    let mut command = Candidate::subcommand("step-down", lock).args(["--wait"]).args(wait).start();
    command.wait_for_exit(status);
    command.output() + &command.log()
}

#[testkit::test]
fn with_wait_step_down_reports_the_next_leader_or_that_there_is_none() {
    for lock in [TestLock::file(), TestLock::lease()] {
        let name = &lock.name;
        let witnesses = Witnesses::new();
        let mut a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
        witnesses.wait_for("a", 1);
        let mut b = Candidate::new("b", &lock).run_witness(&witnesses, &[]);
        b.wait_for_log("held by a");
        assert_eq!(step_down_and_wait(&lock, None, 0), format!("a handed {name} over to b\n"));
        a.wait();
        assert_eq!(step_down_and_wait(&lock, Some("1m"), 0), format!("b released {name}, and nobody holds it now\n"));
        b.wait();
        witnesses.assert_runs_one_at_a_time(2);
    }
}

#[testkit::test]
fn with_wait_step_down_reports_a_holder_that_does_not_release_in_time() {
    let lock = TestLock::file();
    let a = Candidate::new("a", &lock).run_script("trap '' TERM; echo runs; while :; do sleep 1; done");
    eventually("a leads", || !a.output().is_empty());
    let name = &lock.name;
    assert_eq!(step_down_and_wait(&lock, Some("1s"), 2), format!("a still holds {name} after 1s\n"));
    a.signal(Signal::SIGSTOP);
    let expected = format!(", but its lease has expired; if a is dead, try leaderrun release --force --lock {name}\n");
    eventually("the lock expires", || step_down_and_wait(&lock, Some("0s"), 2).ends_with(&expected));
    a.signal(Signal::SIGCONT);
}
