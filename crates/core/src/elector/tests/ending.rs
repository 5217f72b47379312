//! Tests of the release, the exit, and rejoining.

use super::*;

#[test]
fn the_exit_waits_for_the_release_up_to_a_timeout() {
    let now = start_time();
    let mut driver = leading(now);
    driver.supervisor_reports(now, gone(End::Exited(0), false));
    assert_eq!(driver.take_actions(), [command_gone(true)]);
    // Half of the renew deadline of four seconds, plus `RELEASE_SLACK`.
    assert_eq!(driver.elector.next_timeout(), Some(now + Duration::from_millis(2500)));
    assert_eq!(driver.exit_at(now), None);
    // A signal shortens the wait.
    driver.signal(now, libc::SIGTERM);
    assert_eq!(driver.take_actions(), [ElectorAction::StopElection]);
    assert_eq!(driver.exit_at(now + RELEASE_TIMEOUT), Some(ExitReason::Command(End::Exited(0))));
}

#[test]
fn a_candidate_that_did_not_acquire_the_lock_exits_at_once() {
    let now = start_time();
    let mut driver = Driver::new(false);
    driver.election_reports(now, ElectionReport::Finished(Outcome::NotAcquired));
    assert_eq!(driver.exit_at(now), Some(ExitReason::NotAcquired));
}

#[test]
fn a_claim_that_is_sent_during_the_shutdown_extends_the_time_for_the_release() {
    let now = start_time();
    let mut driver = Driver::new(false);
    driver.signal(now, libc::SIGTERM);
    assert_eq!(driver.elector.next_timeout(), Some(now + STOP_TIMEOUT));
    driver.election_reports(now, ElectionReport::Claiming);
    assert_eq!(driver.elector.next_timeout(), Some(now + RELEASE_TIMEOUT));
    driver.election_reports(now, ElectionReport::Finished(Outcome::Stopped));
    assert_eq!(driver.exit_at(now), Some(ExitReason::Signaled(libc::SIGTERM)));
}

#[test]
fn a_candidate_may_rejoin_after_a_loss_unless_its_end_was_requested() {
    let now = start_time();
    let exit_after = |action: &dyn Fn(&mut Driver), status: i32, lost: bool| {
        let mut driver = leading(now);
        driver.supervisor_reports(now, Report::Started { pid: 7 });
        action(&mut driver);
        driver.supervisor_reports(now, gone(End::Exited(status), lost));
        driver.election_reports(now, ElectionReport::Finished(Outcome::Lost));
        driver.exit_at(now)
    };
    let without_rejoining = Some(LOST_WITHOUT_REJOINING);
    let sends = |signal| move |driver: &mut Driver| driver.signal(now, signal);
    assert_eq!(exit_after(&|_| {}, 0, true), Some(LOST));
    assert_eq!(exit_after(&sends(libc::SIGHUP), 0, true), Some(LOST), "SIGHUP does not request the end of the command");
    assert_eq!(exit_after(&sends(libc::SIGTERM), 0, true), without_rejoining);
    let status_for_a_loss = 76;
    assert_eq!(
        exit_after(&|_| {}, status_for_a_loss, false),
        Some(ExitReason::Command(End::Exited(status_for_a_loss))),
        "a command may itself exit with leaderrun's status for a loss"
    );

    let mut driver = leading(now);
    driver.supervisor_dies(now);
    driver.signal(now, libc::SIGTERM);
    driver.tree_becomes_empty(now);
    driver.election_reports(now, ElectionReport::Finished(Outcome::Released));
    assert_eq!(driver.exit_at(now), without_rejoining);

    let mut driver = leading(now);
    driver.supervisor_reports(now, gone(End::Exited(0), true));
    driver.signal(now, libc::SIGTERM);
    driver.election_reports(now, ElectionReport::Finished(Outcome::Lost));
    assert_eq!(driver.exit_at(now), without_rejoining);

    // The elector is frozen for a minute after the loss. When it is thawed, the release has timed out and a signal has
    // arrived.
    let mut driver = leading(now);
    driver.supervisor_reports(now, gone(End::Exited(0), true));
    let later = now + Duration::from_secs(60);
    driver.signal(later, libc::SIGTERM);
    assert_eq!(driver.exit_at(later), without_rejoining);
}
