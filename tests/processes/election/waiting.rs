//! Tests of signals to standbys, and of `--wait`.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use testkit::exit_status::{NOT_ACQUIRED, UNAVAILABLE};
use testkit::{Candidate, Cluster, Match, Proxy, TestLock, Witnesses, is_alive};

#[testkit::test]
fn termination_signals_end_a_standby() {
    for lock in [TestLock::lease(), TestLock::file()] {
        let witnesses = Witnesses::new();
        let _a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
        witnesses.wait_for("a", 1);
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
            let mut b = Candidate::new("b", &lock).run_witness(&witnesses, &[]);
            b.wait_for_log("held by a");
            let supervisor = b.supervisor();
            b.signal(signal);
            b.wait_for_exit(128 + signal as i32);
            assert!(!is_alive(supervisor), "the supervisor should not be left behind");
        }
        witnesses.assert_runs_one_at_a_time(1);
    }
}

#[testkit::test]
fn a_candidate_terminated_during_its_claim_releases_the_lock_if_the_claim_succeeds() {
    let proxy = Proxy::start(Cluster::shared());
    let (lock, witnesses) = (TestLock::lease_through(proxy.kubeconfig()), Witnesses::new());
    let claim_response = proxy.hold_responses(Match::put());
    let mut a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
    claim_response.wait_until_held();
    a.signal(Signal::SIGTERM);
    a.wait_for_log("no longer waiting");
    claim_response.release();
    a.wait_for_exit(143);
    let spec = Cluster::shared().admin().get(&lock.lease_path()).expect("the lease can be read")["spec"].clone();
    assert_eq!(spec["holderIdentity"], "");
    witnesses.assert_runs_one_at_a_time(0);
}

#[testkit::test]
fn sighup_does_not_end_a_standby_that_was_started_with_it_ignored() {
    let lock = TestLock::file();
    let witnesses = Witnesses::new();
    let _a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let ignore_signal = |command: &mut std::process::Command| {
        use std::os::unix::process::CommandExt;
        // SAFETY: only one system call is made between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::signal(libc::SIGHUP, libc::SIG_IGN);
                Ok(())
            })
        };
    };
    let mut b = Candidate::new("b", &lock).configure(ignore_signal).run_witness(&witnesses, &[]);
    b.wait_for_log("held by a");
    b.signal(Signal::SIGHUP);
    b.signal(Signal::SIGTERM);
    b.wait_for_exit(143);
}

/// A shell without job control starts background jobs with SIGINT and SIGQUIT ignored, but a container may use
/// either of them as its stop signal.
#[testkit::test]
fn sigint_and_sigquit_end_a_standby_that_was_started_with_them_ignored() {
    let lock = TestLock::file();
    let witnesses = Witnesses::new();
    let _a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    for signal in [Signal::SIGINT, Signal::SIGQUIT] {
        let ignore_signal = move |command: &mut std::process::Command| {
            use std::os::unix::process::CommandExt;
            // SAFETY: only one system call is made between fork and exec.
            unsafe {
                command.pre_exec(move || {
                    libc::signal(signal as i32, libc::SIG_IGN);
                    Ok(())
                })
            };
        };
        let mut b = Candidate::new("b", &lock).configure(ignore_signal).run_witness(&witnesses, &[]);
        b.wait_for_log("held by a");
        b.signal(signal);
        b.wait_for_exit(128 + signal as i32);
    }
}

#[testkit::test]
fn a_standby_gives_up_after_the_wait_duration() {
    for lock in [TestLock::lease(), TestLock::file()] {
        let witnesses = Witnesses::new();
        let _a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
        witnesses.wait_for("a", 1);
        let mut b = Candidate::new("b", &lock).args(["--wait", "300ms"]).run_witness(&witnesses, &[]);
        b.wait_for_exit(NOT_ACQUIRED);
        witnesses.assert_runs_one_at_a_time(1);
    }
}

#[testkit::test]
fn with_wait_0s_a_candidate_gives_up_if_the_holder_is_alive() {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let _a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let mut b = Candidate::new("b", &lock).args(["--wait", "0s"]).run_witness(&witnesses, &[]);
    b.wait_for_exit(NOT_ACQUIRED);
    witnesses.assert_runs_one_at_a_time(1);
}

#[testkit::test]
fn with_wait_0s_a_candidate_still_takes_over_from_a_dead_holder() {
    for lock in [TestLock::lease(), TestLock::file()] {
        let witnesses = Witnesses::new();
        let a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
        witnesses.wait_for("a", 1);
        // Neither of leaderrun's processes can react to the death of the other, as when the machine fails: the
        // supervisor is frozen before the elector is killed.
        let (elector, supervisor) = (a.elector(), a.supervisor());
        for (process, signal) in
            [(supervisor, Signal::SIGSTOP), (elector, Signal::SIGKILL), (supervisor, Signal::SIGKILL)]
        {
            kill(process, signal).expect("the process is alive");
        }
        drop(a);
        let mut b = Candidate::new("b", &lock).args(["--wait", "0s"]).run_witness(&witnesses, &["ends"]);
        b.wait_for_exit(0);
        witnesses.assert_runs_one_at_a_time(2);
    }
}

#[testkit::test]
fn with_wait_0s_a_candidate_gives_up_if_the_api_server_does_not_respond() {
    let proxy = Proxy::start(Cluster::shared());
    let (lock, witnesses) = (TestLock::lease_through(proxy.kubeconfig()), Witnesses::new());
    proxy.partition();
    let start = Instant::now();
    let mut a = Candidate::new("a", &lock).args(["--wait", "0s"]).run_witness(&witnesses, &[]);
    a.wait_for_exit(UNAVAILABLE);
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    let expected = format!("cannot reach {}: still waiting for a connection to https://", lock.name);
    assert!(a.log().contains(&expected), "{}", a.log());
    assert!(a.log().contains("could not use "), "{}", a.log());
    witnesses.assert_runs_one_at_a_time(0);
}

/// The test replaces the file with a FIFO. Opening it blocks, as on a file system that does not respond.
#[testkit::test]
fn a_standby_gives_up_in_time_if_opening_the_lock_file_blocks() {
    let (lock, witnesses) = (TestLock::file(), Witnesses::new());
    let _a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let mut b = Candidate::new("b", &lock).args(["--wait", "3s"]).run_witness(&witnesses, &[]);
    b.wait_for_log("held by a");
    let path = std::path::Path::new(lock.name.strip_prefix("file:").expect("the lock is a file lock"));
    let pipe = path.with_extension("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("the pipe can be created");
    std::fs::rename(&pipe, path).expect("the file can be replaced");
    b.wait_for_exit(NOT_ACQUIRED);
}
