//! Tests of the deferral of termination signals while traffic is routed away.

use super::*;

#[test]
fn traffic_is_routed_away_before_the_command_gets_a_termination_signal() {
    let now = start_time();
    let mut driver = leading_with_traffic(now);
    driver.signal(now, libc::SIGTERM);
    driver.signal(now, libc::SIGUSR1);
    assert!(driver.actions.contains(&ElectorAction::Notify(ElectorNotice::Terminating)));
    assert_eq!(driver.take_actions(), [relayed(libc::SIGUSR1)]);
    driver.traffic_is_withdrawn(now);
    driver.traffic_is_withdrawn(now);
    assert_eq!(driver.take_actions(), [relayed(libc::SIGTERM)]);
}

#[test]
fn the_deferral_of_a_termination_signal_times_out() {
    let now = start_time();
    let mut driver = leading_with_traffic(now);
    driver.election_reports(now, ElectionReport::StepDownRequested);
    assert_eq!(driver.take_actions(), []);
    assert_eq!(driver.elector.next_timeout(), Some(now + WITHDRAWAL_TIMEOUT));
    driver.wake(now + WITHDRAWAL_TIMEOUT);
    assert_eq!(driver.take_actions(), [relayed(libc::SIGTERM)]);
    assert_eq!(driver.elector.next_timeout(), Some(tenure(now).elector_kill_at()));
}

#[test]
fn a_second_termination_signal_ends_the_deferral() {
    let now = start_time();
    let mut driver = leading_with_traffic(now);
    for termination in [libc::SIGTERM, libc::SIGINT, libc::SIGTERM] {
        driver.signal(now, termination);
    }
    assert_eq!(driver.take_actions(), [libc::SIGTERM, libc::SIGINT, libc::SIGTERM].map(relayed));
    driver.traffic_is_withdrawn(now);
    assert_eq!(driver.take_actions(), []);
}

#[test]
fn nothing_is_deferred_before_the_command_has_started() {
    let now = start_time();
    let mut driver = leading_with_routing(true, now);
    driver.signal(now, libc::SIGTERM);
    assert!(
        driver.actions.contains(&ElectorAction::Notify(ElectorNotice::Terminating)),
        "after this notice, no traffic is routed to the command"
    );
    assert_eq!(driver.take_actions(), [relayed(libc::SIGTERM)]);
}

#[test]
fn a_command_that_is_gone_gets_no_termination_signal() {
    let now = start_time();
    let mut driver = leading_with_traffic(now);
    driver.signal(now, libc::SIGTERM);
    driver.supervisor_reports(now, gone(End::Exited(0), false));
    driver.traffic_is_withdrawn(now);
    driver.wake(now + WITHDRAWAL_TIMEOUT);
    assert_eq!(driver.take_actions(), [command_gone(true)]);
}
