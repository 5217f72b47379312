//! Tests of losses, and of supervisors and elections that fail.

use super::*;

#[test]
fn the_command_is_killed_when_the_tenure_that_the_supervisor_reported_is_over() {
    let now = start_time();
    let mut driver = leading(now);
    let (first, second) = (tenure(now), tenure(now + Duration::from_secs(2)));
    // An order that is not confirmed does not extend the tenure.
    driver.election_reports(now, ElectionReport::Renewed(second));
    assert_eq!(driver.take_actions(), [ElectorAction::Order(Order::Extend(second))]);
    assert_eq!(driver.elector.next_timeout(), Some(first.elector_kill_at()));
    driver.supervisor_reports(now, Report::Enforcing(second));
    assert_eq!(driver.elector.next_timeout(), Some(second.elector_kill_at()));
    driver.wake(first.elector_kill_at());
    assert_eq!(driver.take_actions(), []);
    driver.wake(second.elector_kill_at());
    assert_eq!(driver.take_actions(), [ElectorAction::KillAll(SupervisorFailure::Late)]);
}

#[test]
fn there_is_no_grace_period_if_another_candidate_holds_the_lock() {
    let now = start_time();
    let mut driver = leading(now);
    driver.election_reports(now, ElectionReport::Taken);
    assert_eq!(driver.take_actions(), [ElectorAction::Order(Order::Lose)]);
    driver.supervisor_reports(now, Report::Enforcing(tenure(now)));
    assert_eq!(driver.elector.next_timeout(), Some(Tenure::over(now).elector_kill_at()));
}

#[test]
fn each_loss_is_reported_once() {
    let now = start_time();
    for (report, loss) in [(None, Loss::NotRenewed), (Some(ElectionReport::Taken), Loss::Taken)] {
        let mut driver = leading(now);
        report.into_iter().for_each(|report| driver.election_reports(now, report));
        driver.supervisor_reports(now, gone(End::Signaled(libc::SIGKILL), true));
        let losses: Vec<ElectorNotice> =
            driver.take_notices().into_iter().filter(|notice| matches!(notice, ElectorNotice::Lost(_))).collect();
        assert_eq!(losses, [ElectorNotice::Lost(loss)]);
    }
}

/// In the log, a cause must come before its effect.
#[test]
fn the_notice_of_a_loss_precedes_the_reaction_of_the_supervisor() {
    let now = start_time();
    let stopping = SupervisorNotice::Stopping { signal: libc::SIGTERM };
    let killing = SupervisorNotice::Killing { reason: KillReason::Lost, processes: String::new() };
    for notice in [stopping, killing] {
        let mut driver = leading(now);
        driver.supervisor_reports(now, Report::Notice(notice.clone()));
        driver.supervisor_reports(now, gone(End::Signaled(libc::SIGTERM), true));
        let notices = driver.take_notices();
        let lost = ElectorNotice::Lost(Loss::NotRenewed);
        assert_eq!(notices[..2], [lost.clone(), ElectorNotice::Supervisor(notice)]);
        assert!(!notices[2..].contains(&lost), "{notices:?}");
    }
    // After a termination signal, the supervisor kills the command without a loss.
    let killing = SupervisorNotice::Killing { reason: KillReason::Terminated, processes: String::new() };
    let mut driver = leading(now);
    driver.supervisor_reports(now, Report::Notice(killing));
    assert!(!driver.take_notices().contains(&ElectorNotice::Lost(Loss::NotRenewed)));
}

#[test]
fn after_the_supervisor_has_failed_the_lock_is_released_only_when_no_process_is_left() {
    let now = start_time();
    let mut driver = leading(now);
    driver.supervisor_dies(now);
    assert_eq!(driver.take_actions(), [ElectorAction::KillAll(SupervisorFailure::Died)]);
    // A late report and a second notice of the death are ignored.
    driver.supervisor_reports(now, gone(End::Exited(0), false));
    driver.supervisor_dies(now);
    driver.wake(now + Duration::from_secs(3600));
    assert_eq!(driver.take_actions(), []);
    driver.tree_becomes_empty(now);
    assert_eq!(driver.take_actions(), [command_gone(false)]);
    driver.election_reports(now, ElectionReport::Finished(Outcome::Released));
    assert_eq!(driver.exit_at(now), Some(LOST));
}

#[test]
fn a_report_sent_before_the_death_of_the_supervisor_counts() {
    let now = start_time();
    let mut driver = leading(now);
    driver.supervisor_reports(now, gone(End::Exited(7), false));
    driver.supervisor_dies(now);
    assert_eq!(driver.take_actions(), [command_gone(false)]);
    driver.election_reports(now, ElectionReport::Finished(Outcome::Released));
    assert_eq!(driver.exit_at(now), Some(ExitReason::Command(End::Exited(7))));
}

#[test]
fn an_empty_tree_is_ignored_while_the_supervisor_is_alive() {
    let now = start_time();
    let mut driver = leading(now);
    driver.tree_becomes_empty(now);
    assert_eq!(driver.take_actions(), []);
}

#[test]
fn a_candidate_without_a_supervisor_stops_waiting() {
    let now = start_time();
    let mut driver = Driver::new(false);
    driver.supervisor_dies(now);
    assert_eq!(driver.take_actions(), [ElectorAction::StopElection]);
    assert_eq!(driver.exit_at(now + RELEASE_TIMEOUT), Some(ExitReason::Failed { is_transient: true }));
}

#[test]
fn a_command_runs_to_the_end_of_its_tenure_when_the_election_fails() {
    let now = start_time();
    // Without a command, the elector exits at once.
    for is_transient in [true, false] {
        let mut waiting = Driver::new(false);
        waiting.election_reports(now, ElectionReport::Failed { is_transient });
        assert_eq!(waiting.exit_at(now), Some(ExitReason::Failed { is_transient }));
    }

    let mut driver = leading(now);
    driver.election_reports(now, ElectionReport::Failed { is_transient: true });
    assert_eq!(driver.exit_at(now), None);
    driver.wake(tenure(now).elector_kill_at());
    assert_eq!(driver.take_actions(), [ElectorAction::KillAll(SupervisorFailure::Late)]);
    driver.tree_becomes_empty(now);
    driver.election_reports(now, ElectionReport::Failed { is_transient: true });
    assert_eq!(driver.exit_at(now), Some(LOST));
}

#[test]
fn a_supervisor_that_kills_processes_gradually_gets_more_time() {
    let (now, duration) = (start_time(), Duration::from_secs(3));
    let pace = Some(KillPace { max_killed_threads: 10, duration });
    let killing = SupervisorNotice::Killing { reason: KillReason::Lost, processes: String::new() };
    let advance = Duration::from_secs(4);
    let enforced = tenure(now).earlier_by(advance);
    // The time from the enforced kill instant until the elector itself kills the command.
    let elector_waits_for = |pace, has_begun: bool| {
        let mut driver = leading(now);
        driver.supervisor_reports(now, Report::Enforcing(enforced));
        let kill_time = SupervisorNotice::KillTime { kill_time: duration, processes: 7, threads: 14_000, pace };
        driver.supervisor_reports(now, Report::Notice(kill_time));
        let kill = enforced.kill;
        if has_begun {
            driver.supervisor_reports(kill, Report::Notice(killing.clone()));
        }
        driver.elector.next_timeout().expect("the elector kills the command at some point").since(kill)
    };
    assert_eq!(elector_waits_for(pace, true), duration);
    let longer = Some(KillPace { max_killed_threads: 10, duration: duration * 3 });
    assert_eq!(elector_waits_for(longer, true), advance, "a gradual kill should end at the granted kill instant");
    let usual = enforced.elector_kill_at().since(enforced.kill);
    assert_eq!(elector_waits_for(pace, false), usual, "a gradual kill should get more time only once it has begun");
    assert_eq!(elector_waits_for(None, true), usual, "killing all processes at once should get no more time");
}

#[test]
fn a_delay_that_occurs_twice_is_sent_to_the_supervisor() {
    let (now, late) = (start_time(), Duration::from_millis(300));
    let mut driver = leading(now);
    assert_eq!(driver.elector.note_delay(now, late), None);
    assert_eq!(driver.elector.note_delay(now, late), Some(late));
    driver.wake(now);
    assert_eq!(driver.take_actions(), [ElectorAction::Order(Order::ElectorLate { delay: late })]);
}

#[test]
fn a_loss_because_a_kill_would_take_too_long_is_reported_as_too_slow() {
    let now = start_time();
    let mut driver = leading(now);
    let (advance, max_advance) = (Duration::from_secs(2), Duration::from_secs(1));
    driver.supervisor_reports(now, Report::Notice(SupervisorNotice::TooSlow { advance, max_advance }));
    driver.supervisor_reports(now, gone(End::Signaled(libc::SIGTERM), true));
    assert!(driver.take_notices().contains(&ElectorNotice::Lost(Loss::TooSlow)));
}
