//! This build and the last release take turns on one lock, in both directions, behind fault proxies.
//!
//! `LEADERRUN_LAST_RELEASE` names the program of the last release.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use testkit::{Candidate, Cluster, Match, Proxy, ReceivedRequest, Running, TestLock, Witnesses, leaderrun};

/// Durations twice as long as in other tests, because two more processes ask for the status before the leader ends.
const TIMING: [&str; 6] = ["--lease-duration", "12s", "--renew-deadline", "8s", "--retry-period", "1s"];

fn last_release() -> Result<String, String> {
    match std::env::var("LEADERRUN_LAST_RELEASE") {
        Ok(program) if Path::new(&program).is_file() => Ok(program),
        Ok(program) => Err(format!("LEADERRUN_LAST_RELEASE: no file {program}")),
        Err(_) => Err("LEADERRUN_LAST_RELEASE is not set".to_owned()),
    }
}

fn is_known() -> Result<(), String> {
    last_release().map(drop)
}

/// A candidate of one build behind a proxy of its own.
struct Side {
    program: String,
    proxy: Proxy,
}

impl Side {
    fn candidate(&self, name: &str, lock: &TestLock) -> Candidate {
        self.with_timing(name, lock, TIMING)
    }

    fn with_timing(&self, name: &str, lock: &TestLock, timing: [&str; 6]) -> Candidate {
        Candidate::of_build(&self.program, name, &self.through_proxy(lock), timing)
    }

    fn subcommand(&self, name: &str, lock: &TestLock) -> Candidate {
        Candidate::subcommand_of_build(&self.program, name, &self.through_proxy(lock))
    }

    fn status(&self, lock: &TestLock) -> Value {
        let mut status = self.subcommand("status", lock).args(["-o", "json"]).start();
        status.wait();
        serde_json::from_str(&status.output()).unwrap_or_else(|error| panic!("{error}: {}", status.log()))
    }

    fn through_proxy(&self, lock: &TestLock) -> TestLock {
        match lock.kubeconfig {
            Some(_) => lock.through(self.proxy.kubeconfig()),
            None => lock.clone(),
        }
    }
}

/// Returns leader and standby for both directions.
fn directions() -> [[Side; 2]; 2] {
    let last_release = last_release().expect("the last release");
    let side = |program: &str| Side { program: program.to_owned(), proxy: Proxy::start(Cluster::shared()) };
    [[leaderrun(), &last_release], [&last_release, leaderrun()]].map(|builds| builds.map(side))
}

/// Hands over from a leader of one build to a standby of the other, in both directions. `end` ends the leader.
fn hand_over(lock: impl Fn() -> TestLock, end: impl Fn(&mut Running, &Side)) {
    for [leader, standby] in directions() {
        let (lock, witnesses) = (lock(), Witnesses::new());
        let mut a = leader.candidate("a", &lock).run_witness(&witnesses, &["hidden"]);
        witnesses.wait_for("a", 2);
        let mut b = standby.candidate("b", &lock).run_witness(&witnesses, &[]);
        b.wait_for_log("held by a");
        for side in [&leader, &standby] {
            let status = side.status(&lock);
            assert_eq!((&status["state"], &status["holder"]), (&"held".into(), &"a".into()), "{status}");
        }
        end(&mut a, &leader);
        witnesses.wait_for("b", 1);
        b.stop();
        witnesses.assert_one_at_a_time(2);
        for side in [&leader, &standby] {
            assert_eq!(side.status(&lock)["state"], "free");
        }
    }
}

#[testkit::test(requires = is_known())]
fn every_kind_is_released_to_the_other_version() {
    hand_over(TestLock::file, |a, _| a.stop());
    for kind in ["lease", "endpoints", "configmap", "configmap+lease", "endpoints+lease"] {
        hand_over(|| TestLock::of_kind(kind), |a, _| a.stop());
    }
}

#[testkit::test(requires = is_known())]
fn the_other_version_takes_over_expired_records_in_annotations_and_two_objects() {
    for kind in ["configmap", "endpoints+lease"] {
        hand_over(|| TestLock::of_kind(kind), lose_by_partition);
    }
}

fn lose_by_partition(a: &mut Running, leader: &Side) {
    leader.proxy.partition();
    a.wait_for_exit(76);
    leader.proxy.heal();
}

#[testkit::test(requires = is_known())]
fn the_other_version_takes_over_when_renewals_have_no_reply() {
    hand_over(TestLock::lease, |a, leader| {
        leader.proxy.partition_replies();
        a.wait_for_exit(76);
        leader.proxy.heal();
    });
}

#[testkit::test(requires = is_known())]
fn the_other_version_takes_over_after_the_death_of_the_elector() {
    for lock in [TestLock::file, TestLock::lease] {
        hand_over(lock, |a, _| {
            a.signal(Signal::SIGKILL);
            a.wait();
        });
    }
}

#[testkit::test(requires = is_known())]
fn the_other_version_takes_over_after_the_death_of_the_supervisor() {
    for lock in [TestLock::file, TestLock::lease] {
        hand_over(lock, |a, _| {
            kill(a.supervisor(), Signal::SIGKILL).expect("the supervisor is alive");
            a.wait_for_exit(76);
        });
    }
}

#[testkit::test(requires = is_known())]
fn the_other_version_asks_the_leader_to_step_down() {
    for kind in ["lease", "endpoints", "configmap+lease"] {
        for [leader, standby] in directions() {
            let (lock, witnesses) = (TestLock::of_kind(kind), Witnesses::new());
            let mut a = leader.candidate("a", &lock).run_witness(&witnesses, &[]);
            witnesses.wait_for("a", 1);
            let mut b = standby.candidate("b", &lock).run_witness(&witnesses, &[]);
            b.wait_for_log("held by a");
            standby.subcommand("step-down", &lock).start().wait_for_exit(0);
            a.wait();
            witnesses.wait_for("b", 1);
            b.stop();
            witnesses.assert_one_at_a_time(2);
        }
    }
}

#[testkit::test(requires = is_known())]
fn the_other_version_waits_until_the_lock_is_due() {
    for [leader, standby] in directions() {
        let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
        let mut a = leader.candidate("a", &lock).args(["--min-hold", "10s"]).run_witness(&witnesses, &["ends"]);
        a.wait_for_exit(0);
        let mut b = standby.candidate("b", &lock).run_witness(&witnesses, &["ends"]);
        b.wait_for_exit(0);
        witnesses.assert_one_at_a_time(2);
        let [first, second] = ["a", "b"].map(|holder| witnesses.lifetimes_of(holder)[0].started_at);
        // Times in the record are rounded to seconds, and a busy machine starts the first command late.
        let apart = Duration::from_nanos(second - first);
        assert!(apart >= Duration::from_secs(6), "{apart:?}:\n{}", b.log());
    }
}

/// Neither version takes over a lock whose renewals only succeed after failures.
#[testkit::test(requires = is_known())]
fn a_leader_on_a_bad_network_keeps_the_lock() {
    for [leader, standby] in directions() {
        let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
        // No lease may expire, even on a busy machine.
        let times = ["--lease-duration", "40s", "--renew-deadline", "30s", "--retry-period", "1s"];
        let mut a = leader.with_timing("a", &lock, times).run_witness(&witnesses, &[]);
        witnesses.wait_for("a", 1);
        let mut b = standby.with_timing("b", &lock, times).run_witness(&witnesses, &[]);
        b.wait_for_log("held by a");
        for fault in [
            (|proxy| proxy.lose_replies(Match::put().next(1))) as fn(&Proxy),
            |proxy| proxy.answer(Match::put().next(1), 503, None),
            Proxy::silence_existing,
            Proxy::break_existing,
        ] {
            fault(&leader.proxy);
            standby.proxy.break_existing();
            renewed(&lock);
            renewed(&lock);
        }
        let wrote = |request: &ReceivedRequest| Match::put().covers(request);
        assert!(!standby.proxy.requests().iter().any(wrote), "the standby wrote:\n{}", b.log());
        assert_eq!(witnesses.lifetimes_of("a")[0].signaled_at, 0, "the command got a stop signal:\n{}", a.log());
        a.stop();
        witnesses.wait_for("b", 1);
        b.stop();
        witnesses.assert_one_at_a_time(2);
    }
}

/// Waits for a renewal.
fn renewed(lock: &TestLock) {
    let time = || Cluster::shared().admin().get(&lock.lease_path()).expect("the Lease")["spec"]["renewTime"].clone();
    let before = time();
    testkit::eventually("a renewal", || time() != before);
}
