//! Tests of `leaderrun release --force`.

use nix::sys::signal::{Signal, kill};

use testkit::exit_status::{FAILED, LOST};
use testkit::{Candidate, Cluster, Running, TestLock, Witnesses};

/// Durations that are so long that the lease does not expire during a test.
const LONG_DURATIONS: [&str; 6] = ["--lease-duration", "1h", "--renew-deadline", "30m", "--retry-period", "1s"];

/// Runs `leaderrun release --force` with these additional arguments. It must exit with this status.
fn release(lock: &TestLock, arguments: &[&str], status: i32) -> Running {
    let mut release = Candidate::subcommand("release", lock).args(["--force"]).args(arguments).start();
    release.wait_for_exit(status);
    release
}

/// Starts a holder and a standby, and kills the holder as if its machine had failed. Returns the standby.
fn start_standby_and_kill_holder(lock: &TestLock, witnesses: &Witnesses) -> Running {
    let a = Candidate::with_timing("a", lock, LONG_DURATIONS).run_witness(witnesses, &[]);
    witnesses.wait_for("a", 1);
    let b = Candidate::with_timing("b", lock, LONG_DURATIONS).run_witness(witnesses, &["ends"]);
    b.wait_for_log("held by a");
    let (elector, supervisor) = (a.elector(), a.supervisor());
    // The supervisor is frozen first, so that it does not react to the death of the elector.
    for (process, signal) in [(supervisor, Signal::SIGSTOP), (elector, Signal::SIGKILL), (supervisor, Signal::SIGKILL)]
    {
        kill(process, signal).expect("the process is alive");
    }
    b
}

#[testkit::test]
fn a_forced_release_ends_the_wait_for_a_dead_holder() {
    let kinds = ["lease", "configmap", "endpoints+lease"].map(TestLock::of_kind);
    for lock in [TestLock::file()].into_iter().chain(kinds) {
        let name = lock.name.trim_start_matches("lease:");
        let witnesses = Witnesses::new();
        let mut b = start_standby_and_kill_holder(&lock, &witnesses);
        let released = release(&lock, &[], 0);
        let output = released.output();
        assert!(output.starts_with(&format!("{name} is held by a, acquired at 20")), "{output}");
        assert!(output.contains(", and expires 1h after the last renewal; waiting 2s for a renewal\n"), "{output}");
        assert!(
            output.contains(&format!("forcibly released {name}: any candidate may acquire it immediately")),
            "{output}"
        );
        b.wait_for_exit(0);
        assert!(b.log().contains(&format!("leaderrun release --force released {name}, which a held")), "{}", b.log());
        witnesses.assert_runs_one_at_a_time(2);
        let second_release = release(&lock, &[], 1);
        assert_eq!(second_release.output(), format!("{name} is free\n"));
    }
}

/// An operator may have deleted or emptied the record before running `leaderrun release`.
#[testkit::test]
fn a_forced_release_ends_the_wait_after_the_record_was_deleted_or_emptied() {
    let emptied = serde_json::json!({ "spec": { "holderIdentity": "" } });
    for is_deleted in [true, false] {
        let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
        let mut b = start_standby_and_kill_holder(&lock, &witnesses);
        let admin = Cluster::shared().admin();
        let edited =
            if is_deleted { admin.delete(&lock.lease_path()) } else { admin.merge_patch(&lock.lease_path(), &emptied) };
        edited.expect("the Lease can be edited");
        b.wait_for_log("while the lock was held");
        release(&lock, &["--observe", "1s"], 0);
        b.wait_for_exit(0);
        witnesses.assert_runs_one_at_a_time(2);
    }
}

#[testkit::test]
fn a_forced_release_is_refused_while_the_holder_renews() {
    for lock in [TestLock::file(), TestLock::lease()] {
        let witnesses = Witnesses::new();
        let mut a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
        witnesses.wait_for("a", 1);
        let refused = release(&lock, &[], 2);
        let expected =
            format!("{0} is being renewed, so its holder is alive; try leaderrun step-down --lock {0}\n", lock.name);
        assert!(refused.output().ends_with(&expected), "{}", refused.output());
        a.stop();
        witnesses.assert_runs_one_at_a_time(1);
    }
}

#[testkit::test]
fn a_frozen_holder_whose_lock_was_forcibly_released_kills_its_command_when_it_is_thawed() {
    let lock = TestLock::lease();
    let mut a = Candidate::with_timing("a", &lock, LONG_DURATIONS).run_script("echo runs; exec sleep 1000");
    testkit::eventually("a's command is running", || !a.output().is_empty());
    a.signal(Signal::SIGSTOP);
    release(&lock, &[], 0);
    let b = Candidate::with_timing("b", &lock, LONG_DURATIONS).run_script("echo runs; exec sleep 1000");
    testkit::eventually("b's command is running", || !b.output().is_empty());
    a.signal(Signal::SIGCONT);
    a.wait_for_exit(LOST);
    assert!(a.log().contains("held by b"), "{}", a.log());
}

#[testkit::test]
fn release_requires_the_option_force() {
    let mut refused = Candidate::subcommand("release", &TestLock::file()).start();
    refused.wait_for_exit(FAILED);
    assert_eq!(refused.log(), "leaderrun: --force is missing; add --force\n");
}
