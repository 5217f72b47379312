//! Tests of hand-overs and takeovers between this build and the last release, in both directions.
//!
//! `LEADERRUN_LAST_RELEASE` is the path of the last release's `leaderrun` binary. Without it, these tests are skipped.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use testkit::exit_status::LOST;
use testkit::{Candidate, Cluster, Match, Proxy, ReceivedRequest, Running, TestLock, Witnesses, leaderrun};

/// Longer durations than in most tests, because these tests run `leaderrun status` twice before they end the leader.
const TIMING: [&str; 6] = ["--lease-duration", "12s", "--renew-deadline", "8s", "--retry-period", "1s"];

fn last_release() -> Result<String, String> {
    match std::env::var("LEADERRUN_LAST_RELEASE") {
        Ok(program) if Path::new(&program).is_file() => Ok(program),
        Ok(program) => Err(format!("LEADERRUN_LAST_RELEASE: {program} is not a file")),
        Err(_) => Err("LEADERRUN_LAST_RELEASE is not set".to_owned()),
    }
}

fn check_last_release() -> Result<(), String> {
    last_release().map(drop)
}

/// A build of leaderrun, and the proxy between its processes and the API server.
struct Build {
    program: String,
    proxy: Proxy,
}

impl Build {
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

/// Returns the builds of the leader and of the standby, for both directions.
fn directions() -> [[Build; 2]; 2] {
    let last_release = last_release().expect("the last release was found");
    let build = |program: &str| Build { program: program.to_owned(), proxy: Proxy::start(Cluster::shared()) };
    [[leaderrun(), &last_release], [&last_release, leaderrun()]].map(|builds| builds.map(build))
}

/// Checks in both directions that a standby of one build takes over from a leader of the other build. `end` ends the
/// leader.
fn assert_takeover_in_both_directions(lock: impl Fn() -> TestLock, end: impl Fn(&mut Running, &Build)) {
    for [leader, standby] in directions() {
        let (lock, witnesses) = (lock(), Witnesses::new());
        let mut a = leader.candidate("a", &lock).run_witness(&witnesses, &["hidden"]);
        witnesses.wait_for("a", 2);
        let mut b = standby.candidate("b", &lock).run_witness(&witnesses, &[]);
        b.wait_for_log("held by a");
        for build in [&leader, &standby] {
            let status = build.status(&lock);
            assert_eq!((&status["state"], &status["holder"]), (&"held".into(), &"a".into()), "{status}");
        }
        end(&mut a, &leader);
        witnesses.wait_for("b", 1);
        b.stop();
        witnesses.assert_runs_one_at_a_time(2);
        for build in [&leader, &standby] {
            assert_eq!(build.status(&lock)["state"], "free");
        }
    }
}

#[testkit::test(requires = check_last_release())]
fn the_other_build_acquires_every_kind_of_lock_after_a_release() {
    assert_takeover_in_both_directions(TestLock::file, |a, _| a.stop());
    for kind in ["lease", "endpoints", "configmap", "configmap+lease", "endpoints+lease"] {
        assert_takeover_in_both_directions(|| TestLock::of_kind(kind), |a, _| a.stop());
    }
}

#[testkit::test(requires = check_last_release())]
fn the_other_build_takes_over_expired_locks_in_annotations_and_in_two_objects() {
    for kind in ["configmap", "endpoints+lease"] {
        assert_takeover_in_both_directions(|| TestLock::of_kind(kind), lose_lock_in_partition);
    }
}

fn lose_lock_in_partition(a: &mut Running, leader: &Build) {
    leader.proxy.partition();
    a.wait_for_exit(LOST);
    leader.proxy.heal();
}

#[testkit::test(requires = check_last_release())]
fn the_other_build_takes_over_when_renewals_get_no_response() {
    assert_takeover_in_both_directions(TestLock::lease, |a, leader| {
        leader.proxy.partition_responses();
        a.wait_for_exit(LOST);
        leader.proxy.heal();
    });
}

#[testkit::test(requires = check_last_release())]
fn the_other_build_takes_over_after_the_elector_was_killed() {
    for lock in [TestLock::file, TestLock::lease] {
        assert_takeover_in_both_directions(lock, |a, _| {
            a.signal(Signal::SIGKILL);
            a.wait();
        });
    }
}

#[testkit::test(requires = check_last_release())]
fn the_other_build_takes_over_after_the_supervisor_was_killed() {
    for lock in [TestLock::file, TestLock::lease] {
        assert_takeover_in_both_directions(lock, |a, _| {
            kill(a.supervisor(), Signal::SIGKILL).expect("the supervisor is alive");
            a.wait_for_exit(LOST);
        });
    }
}

#[testkit::test(requires = check_last_release())]
fn the_other_build_asks_the_leader_to_step_down() {
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
            witnesses.assert_runs_one_at_a_time(2);
        }
    }
}

#[testkit::test(requires = check_last_release())]
fn the_other_build_respects_min_hold() {
    for [leader, standby] in directions() {
        let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
        let mut a = leader.candidate("a", &lock).args(["--min-hold", "10s"]).run_witness(&witnesses, &["ends"]);
        a.wait_for_exit(0);
        let mut b = standby.candidate("b", &lock).run_witness(&witnesses, &["ends"]);
        b.wait_for_exit(0);
        witnesses.assert_runs_one_at_a_time(2);
        let [first, second] = ["a", "b"].map(|holder| witnesses.lifetimes_of(holder)[0].started_at);
        // The expected interval is less than ten seconds, because the record rounds times to seconds, and because the
        // first command may start late on a busy machine.
        let interval = Duration::from_nanos(second - first);
        assert!(interval >= Duration::from_secs(6), "{interval:?}:\n{}", b.log());
    }
}

/// A standby of either build must not take over a lock whose renewals succeed only after failures.
#[testkit::test(requires = check_last_release())]
fn a_leader_on_a_bad_network_keeps_the_lock() {
    for [leader, standby] in directions() {
        let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
        // With these durations, the lease does not expire even on a busy machine.
        let timing = ["--lease-duration", "40s", "--renew-deadline", "30s", "--retry-period", "1s"];
        let mut a = leader.with_timing("a", &lock, timing).run_witness(&witnesses, &[]);
        witnesses.wait_for("a", 1);
        let mut b = standby.with_timing("b", &lock, timing).run_witness(&witnesses, &[]);
        b.wait_for_log("held by a");
        for fault in [
            (|proxy| proxy.drop_responses(Match::put().next(1))) as fn(&Proxy),
            |proxy| proxy.respond(Match::put().next(1), 503, None),
            Proxy::silence_connections,
            Proxy::break_connections,
        ] {
            fault(&leader.proxy);
            standby.proxy.break_connections();
            Cluster::shared().wait_for_renewals(&lock, 2);
        }
        let is_put = |request: &ReceivedRequest| Match::put().covers(request);
        assert!(!standby.proxy.requests().iter().any(is_put), "the standby wrote to the lock:\n{}", b.log());
        assert_eq!(witnesses.lifetimes_of("a")[0].signaled_at, 0, "the command got a stop signal:\n{}", a.log());
        a.stop();
        witnesses.wait_for("b", 1);
        b.stop();
        witnesses.assert_runs_one_at_a_time(2);
    }
}
