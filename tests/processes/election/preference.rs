//! Tests of preferred candidates: `--claim-delay` and `--preempt`.

use testkit::exit_status::FAILED;
use testkit::{Candidate, TestLock, Witnesses};

#[testkit::test]
fn a_hand_over_goes_to_the_candidate_with_the_shorter_delay() {
    for lock in [TestLock::lease(), TestLock::file()] {
        let witnesses = Witnesses::new();
        let candidate =
            |name, delay| Candidate::new(name, &lock).args(["--claim-delay", delay]).run_witness(&witnesses, &[]);
        let mut first = candidate("first", "0s");
        witnesses.wait_for("first", 1);
        // The preferred candidate joins last, so it cannot lead next merely because it joined first.
        let mut other = candidate("other", "3s");
        other.wait_for_log("held by first");
        let mut preferred = candidate("preferred", "0s");
        preferred.wait_for_log("held by first");
        first.stop();
        witnesses.wait_for("preferred", 1);
        assert_eq!(witnesses.lifetimes_of("other").len(), 0);
        preferred.stop();
        witnesses.wait_for("other", 1);
        let mut status = Candidate::subcommand("status", &lock).start();
        status.wait_for_exit(0);
        assert!(status.output().contains("claim delay   3s"), "{}", status.output());
        other.stop();
        witnesses.assert_runs_one_at_a_time(3);
    }
}

#[testkit::test]
fn a_preferred_candidate_preempts_a_leader_with_a_longer_delay() {
    for lock in [TestLock::lease(), TestLock::file()] {
        let witnesses = Witnesses::new();
        let candidate = |name, delay| {
            let candidate = Candidate::new(name, &lock).args(["--claim-delay", delay, "--preempt", "2s"]);
            candidate.run_witness(&witnesses, &[])
        };
        let mut other = candidate("other", "1s");
        witnesses.wait_for("other", 1);
        let mut preferred = candidate("preferred", "0s");
        preferred.wait_for_log("asking other, which has a longer claim delay");
        witnesses.wait_for("preferred", 1);
        other.wait_for_log("asked to release");
        other.wait();
        // A standby with a longer delay does not preempt the leader.
        let mut last = candidate("last", "1s");
        last.wait_for_log("held by preferred");
        preferred.stop();
        witnesses.wait_for("last", 1);
        assert!(!last.log().contains("asking"), "{}", last.log());
        last.stop();
        witnesses.assert_runs_one_at_a_time(3);
    }
}

#[testkit::test]
fn a_wait_that_is_too_short_to_lead_is_refused() {
    let lock = TestLock::file();
    let mut refused =
        Candidate::new("a", &lock).args(["--claim-delay", "30s", "--wait", "10s"]).run_script("echo started");
    refused.wait_for_exit(FAILED);
    let expected =
        "--wait 10s: it must be longer than --claim-delay 30s, or this candidate would never lead; try --wait 1m";
    assert!(refused.log().contains(expected), "{}", refused.log());
}
