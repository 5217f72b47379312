//! Tests of the signals that leaderrun receives, and of requests to step down.

use super::*;

#[test]
fn a_standby_exits_soon_after_a_signal_unless_it_may_have_to_release_the_lock() {
    let now = start_time();
    let real_time_signal = libc::SIGRTMIN() + 3;
    for (reports, timeout, signal) in [
        (vec![], STOP_TIMEOUT, libc::SIGINT),
        (vec![ElectionReport::Claiming], RELEASE_TIMEOUT, libc::SIGUSR1),
        (vec![ElectionReport::Claiming, ElectionReport::ClaimFailed], STOP_TIMEOUT, libc::SIGWINCH),
        (vec![], STOP_TIMEOUT, real_time_signal),
    ] {
        let mut driver = Driver::new(false);
        reports.into_iter().for_each(|report| driver.election_reports(now, report));
        for ignored in [libc::SIGCHLD, libc::SIGCONT, libc::SIGTSTP, libc::SIGURG] {
            driver.signal(now, ignored);
        }
        driver.step(now, ElectorInputs { terminal_resized: true, ..ElectorInputs::default() });
        assert_eq!(driver.take_actions(), []);
        driver.signal(now, signal);
        assert_eq!(driver.take_actions(), [ElectorAction::StopElection]);
        assert_eq!(driver.elector.next_timeout(), Some(now + timeout));
        // If the lock is acquired after that, no command is started.
        driver.election_reports(now, acquired(now));
        assert_eq!(driver.take_actions(), [command_gone(false)]);
        assert_eq!(driver.exit_at(now + timeout), Some(ExitReason::Signaled(signal)));
    }
}

#[test]
fn a_leader_relays_signals_and_exits_with_the_first_termination_signal_if_the_command_was_not_started() {
    let now = start_time();
    let mut driver = leading(now);
    for signal in [libc::SIGCHLD, libc::SIGUSR1, libc::SIGTERM, libc::SIGINT] {
        driver.signal(now, signal);
    }
    assert_eq!(driver.take_actions(), [libc::SIGUSR1, libc::SIGTERM, libc::SIGINT].map(relayed));
    driver.supervisor_reports(now, gone(End::NotStarted, false));
    driver.election_reports(now, ElectionReport::Finished(Outcome::Released));
    assert_eq!(driver.exit_at(now), Some(ExitReason::Signaled(libc::SIGTERM)));
}

#[test]
fn duplicates_of_a_termination_signal_are_dropped() {
    let now = start_time();
    let mut driver = leading_with_traffic(now);
    for _ in 0..3 {
        driver.signal(now, libc::SIGTERM);
        driver.signal(now, libc::SIGUSR1);
    }
    assert_eq!(
        driver.take_actions(),
        [libc::SIGUSR1; 3].map(relayed),
        "the first SIGTERM is deferred, and its duplicates are dropped"
    );
    driver.traffic_is_withdrawn(now);
    driver.signal(now + Duration::from_millis(499), libc::SIGTERM);
    assert_eq!(driver.take_actions(), [relayed(libc::SIGTERM)]);
    driver.signal(now + REPEAT_WINDOW, libc::SIGTERM);
    assert_eq!(driver.take_actions(), [relayed(libc::SIGTERM)], "a repeat after the window is relayed again");
}

#[test]
fn the_stop_signal_is_treated_like_sigterm() {
    let now = start_time();
    let mut driver = leading_with_traffic(now);
    driver.elector = driver.elector.with_stop_signal(libc::SIGUSR1);
    driver.signal(now, libc::SIGUSR1);
    assert_eq!(driver.take_actions(), [], "the signal is deferred");
    driver.traffic_is_withdrawn(now);
    assert_eq!(driver.take_actions(), [relayed(libc::SIGUSR1)]);
    assert!(driver.elector.end_was_requested());
}

#[test]
fn a_request_to_step_down_is_relayed_as_sigterm() {
    let now = start_time();
    let mut driver = leading(now);
    driver.election_reports(now, ElectionReport::StepDownRequested);
    assert_eq!(driver.take_actions(), [relayed(libc::SIGTERM)]);
}

#[test]
fn sighup_and_sigquit_do_not_withdraw_traffic() {
    let now = start_time();
    let mut driver = leading_with_traffic(now);
    for signal in [libc::SIGHUP, libc::SIGQUIT] {
        driver.signal(now, signal);
        assert!(!driver.actions.contains(&ElectorAction::Notify(ElectorNotice::Terminating)));
        assert_eq!(driver.take_actions(), [relayed(signal)]);
    }
    driver.signal(now, libc::SIGTERM);
    assert_eq!(driver.take_notices(), [ElectorNotice::TerminationSignal(libc::SIGTERM), ElectorNotice::Terminating]);
}
