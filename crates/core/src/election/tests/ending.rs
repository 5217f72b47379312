//! Tests of losses, releases, and the end of waiting.

use jiff::SignedDuration;

use super::*;
use crate::election::ending::RELEASE_TIMEOUT;

#[test]
fn the_lock_is_lost_to_another_run_even_if_it_has_the_same_identity() {
    for holder in ["other", "me"] {
        let mut driver = Driver::leading();
        driver.advance(2 * SECOND);
        driver.expect_write();
        driver.reply(Reply::Conflict);
        driver.reply_to_read(Some(Record {
            holder_identity: holder.into(),
            ..record_by("r", MarkState::Held, TIME_1, 15)
        }));
        assert!(
            matches!(&driver.take_actions()[..], [ElectionAction::Lose { holder: new_holder }] if new_holder == holder)
        );
        driver.step(ElectionInputs::command_gone(true));
        assert_eq!(driver.take_actions(), [ElectionAction::Finish(Outcome::Lost)]);
    }
}

#[test]
fn a_holder_writes_an_emptied_or_deleted_record_again() {
    for edited in [Some(Record::default()), None] {
        let mut driver = Driver::leading();
        driver.advance(2 * SECOND);
        driver.expect_write();
        driver.reply(Reply::Conflict);
        driver.reply_to_read(edited);
        let second_write = driver.expect_write();
        assert_eq!(second_write.holder_identity, "me");
        driver.reply_to_write(second_write);
        assert!(matches!(driver.take_actions()[..], [ElectionAction::Extend(_)]));
    }
}

#[test]
fn the_lock_is_released_only_after_the_command_is_gone() {
    let mut driver = Driver::leading();
    driver.step(ElectionInputs::stop());
    assert_eq!(driver.take_actions(), [], "a leader should continue until its command is gone");
    driver.step(ElectionInputs::command_gone(true));
    let released = driver.expect_write();
    assert_eq!(released.holder_identity, "");
    assert_eq!(released.mark().unwrap().state, MarkState::Released);
    assert_eq!(released.lease_duration_seconds, Some(15));
    driver.reply_to_write(released);
    assert_eq!(driver.take_actions(), [ElectionAction::Finish(Outcome::Released)]);
}

#[test]
fn a_release_without_a_reply_times_out() {
    let mut driver = Driver::leading();
    driver.step(ElectionInputs::command_gone(true));
    let end = driver.now.boot + 5 * SECOND;
    while driver.now.boot < end {
        driver.take_actions();
        driver.advance(driver.time_to_next_timeout());
    }
    assert_eq!(driver.take_actions(), [ElectionAction::Finish(Outcome::NotReleased)]);
}

#[test]
fn a_stopped_candidate_releases_the_lock_if_its_pending_claim_acquires_it() {
    let mut driver = Driver::start(None);
    driver.reply_to_read(None);
    let claim = driver.expect_write();
    driver.step(ElectionInputs::stop());
    assert_eq!(driver.take_actions(), []);
    driver.reply_to_write(claim);
    let released = driver.expect_write();
    assert_eq!(released.mark().unwrap().state, MarkState::Released);
    driver.reply_to_write(released);
    assert_eq!(driver.take_actions(), [ElectionAction::Finish(Outcome::Stopped)]);
}

#[test]
fn a_stopped_candidate_finds_out_whether_a_claim_with_an_unknown_result_succeeded() {
    let mut driver = Driver::start(None);
    driver.reply_to_read(None);
    let claim = driver.expect_write();
    driver.step(ElectionInputs::stop());
    driver.reply(Reply::Unknown { retry_after: Some(Duration::ZERO) });
    driver.reply_to_read(Some(claim));
    assert_eq!(driver.expect_write().mark().unwrap().state, MarkState::Released);
}

#[test]
fn a_stopped_candidate_keeps_half_of_its_time_for_the_release() {
    let mut driver = Driver::start(None);
    driver.reply_to_read(None);
    let claim = driver.expect_write();
    driver.advance(SECOND);
    driver.step(ElectionInputs::stop());
    assert_eq!(driver.take_actions(), []);
    driver.advance(RELEASE_TIMEOUT / 2);
    driver.reply_to_read(Some(claim));
    let released = driver.expect_write();
    assert_eq!(released.mark().unwrap().state, MarkState::Released);
    driver.reply_to_write(released);
    assert_eq!(driver.take_actions(), [ElectionAction::Finish(Outcome::Stopped)]);
}

#[test]
fn a_stopped_candidate_with_nothing_to_release_ends_at_once() {
    let mut driver = Driver::start(None);
    driver.step(ElectionInputs::stop());
    assert!(matches!(driver.take_actions()[..], [_, ElectionAction::Finish(Outcome::Stopped)]));
}

#[test]
fn a_candidate_gives_up_when_its_wait_is_over() {
    let mut driver = Driver::start(Some(3 * SECOND));
    driver.reply_to_read(Some(record_by("r", MarkState::Held, TIME_1, 15)));
    driver.take_actions();
    assert_eq!(driver.time_to_next_timeout(), 3 * SECOND);
    driver.advance(3 * SECOND);
    assert_eq!(driver.take_actions(), [ElectionAction::Finish(Outcome::NotAcquired)]);
}

#[test]
fn a_candidate_that_does_not_wait_ends_when_a_renewal_shows_that_the_holder_is_alive() {
    let mut driver = Driver::start(Some(Duration::ZERO));
    driver.reply_to_read(Some(record_by("r", MarkState::Held, TIME_1, 15)));
    assert!(matches!(driver.take_actions()[..], [ElectionAction::Watch(_)]));
    driver.advance(SECOND);
    assert_eq!(driver.take_actions(), [], "the holder may be dead");
    driver.watch_delivers(record_by("r", MarkState::Held, TIME_2, 15));
    assert_eq!(driver.take_actions(), [ElectionAction::Finish(Outcome::NotAcquired)]);
}

#[test]
fn a_command_that_succeeded_is_not_due_before_the_end_of_its_minimum_hold() {
    for succeeded in [true, false] {
        let mut driver = Driver::leading();
        let acquired = driver.now.wall;
        driver.advance(SECOND);
        driver.step(ElectionInputs::command_gone(succeeded));
        let released = driver.expect_write();
        assert_eq!(released.valid_not_before(), succeeded.then(|| acquired + 60 * SECOND));
        // After each change of the record, another candidate waits for at most the minimum hold, even if its wall clock
        // is behind or ahead.
        for (clock_offset, wait) in [(-3600, 60), (-10, 60), (1, 59), (59, 1)] {
            let mut other = Driver::start(None);
            other.now.wall = acquired + SignedDuration::from_secs(clock_offset);
            other.reply_to_read(Some(released.clone()));
            if succeeded {
                assert_eq!(other.time_to_next_timeout().as_secs(), wait);
                other.advance(SECOND / 2);
                other.watch_delivers(Record { contenders: Some(7), ..released.clone() });
                assert!(other.time_to_next_timeout().as_secs() <= wait, "after a change of the record");
            } else {
                other.expect_write();
            }
        }
    }
}

#[test]
fn a_leader_reports_edits_of_its_record() {
    let mut driver = Driver::leading();
    let mine = driver.election.observed.as_ref().and_then(ObservedRecord::record).cloned().unwrap();
    for (current, expected) in [
        (mine.clone(), vec![]),
        (Record { step_down: Some(RunId::new("other")), ..mine.clone() }, vec![]),
        (Record { lease_duration_seconds: Some(1), ..mine }, vec![ElectionNotice::Edited]),
    ] {
        driver.advance(2 * SECOND);
        take_notices(&mut driver);
        driver.reply(Reply::Conflict);
        driver.version += 1;
        let stored = driver.stored(current);
        driver.reply(Reply::Read(Some(stored)));
        assert_eq!(take_notices(&mut driver), expected);
    }
}

#[test]
fn the_minimum_hold_does_not_depend_on_the_clock_of_an_earlier_holder() {
    let mut driver = Driver::start(None);
    let acquired = driver.now.wall;
    let ahead = (acquired + SignedDuration::from_hours(9)).to_string();
    driver.reply_to_read(Some(record_by("r", MarkState::Released, &ahead, 15)));
    let claim = driver.expect_write();
    driver.reply_to_write(claim);
    driver.take_actions();
    driver.step(ElectionInputs::command_gone(true));
    assert_eq!(driver.expect_write().valid_not_before(), Some(acquired + 60 * SECOND));
}

#[test]
fn a_candidate_that_does_not_wait_ends_if_the_command_is_not_due() {
    let mut driver = Driver::start(Some(Duration::ZERO));
    let not_before = Some(driver.now.wall + SECOND);
    driver.reply_to_read(Some(Record { not_before, ..record_by("r", MarkState::Released, TIME_1, 15) }));
    assert_eq!(driver.take_actions(), [ElectionAction::Finish(Outcome::NotAcquired)]);
}

#[test]
fn the_outcome_states_whether_the_lock_was_held_or_unreachable() {
    let mut held = Driver::start(Some(3 * SECOND));
    held.reply_to_read(Some(record_by("r", MarkState::Held, TIME_1, 15)));
    held.advance(3 * SECOND);
    assert!(held.take_actions().contains(&ElectionAction::Finish(Outcome::NotAcquired)));

    let mut silent = Driver::start(Some(3 * SECOND));
    silent.advance(3 * SECOND);
    assert!(silent.take_actions().contains(&ElectionAction::Finish(Outcome::Unreachable)));

    let mut unusable = Driver::start(Some(3 * SECOND));
    unusable.reply_to_read(None);
    unusable.reply(Reply::Refused { retry_after: None });
    unusable.advance(3 * SECOND);
    assert!(unusable.take_actions().contains(&ElectionAction::Finish(Outcome::Unreachable)));
}

#[test]
fn a_candidate_that_does_not_wait_gives_up_after_two_refusals() {
    let mut driver = Driver::start(Some(Duration::ZERO));
    driver.reply(Reply::Refused { retry_after: None });
    assert_eq!(driver.take_actions().len(), 1, "an API server that is starting may refuse one request");
    driver.advance(driver.time_to_next_timeout());
    driver.expect_read();
    driver.reply(Reply::Refused { retry_after: None });
    assert_eq!(driver.take_actions(), [ElectionAction::Finish(Outcome::Unreachable)]);
}

#[test]
fn a_candidate_that_does_not_wait_gives_up_after_three_failed_reads() {
    let mut driver = Driver::start(Some(Duration::ZERO));
    for _ in 0..2 {
        driver.reply(Reply::Unknown { retry_after: None });
        assert!(
            driver.time_to_next_timeout() <= SECOND,
            "the next read is due soon: {:?}",
            driver.time_to_next_timeout()
        );
        driver.advance(driver.time_to_next_timeout());
        driver.expect_read();
    }
    driver.reply(Reply::Unknown { retry_after: None });
    assert_eq!(driver.take_actions(), [ElectionAction::Finish(Outcome::Unreachable)]);
}

#[test]
fn a_candidate_that_does_not_wait_gives_up_if_there_is_no_first_reply() {
    let hour = 3600 * SECOND;
    let mut driver =
        Driver::start_with_timing(Timing::new(hour, hour / 2, 60 * SECOND, None).unwrap(), Some(Duration::ZERO));
    driver.advance(FIRST_REPLY_TIMEOUT);
    assert!(driver.take_actions().contains(&ElectionAction::Finish(Outcome::Unreachable)));
}

/// The holder may be dead, and the candidate can acquire the lock when the record expires.
#[test]
fn a_candidate_that_does_not_wait_does_not_give_up_after_failed_reads_if_it_knows_the_record() {
    let mut driver = Driver::start(Some(Duration::ZERO));
    driver.reply_to_read(Some(record_by("r", MarkState::Held, TIME_1, 15)));
    driver.watch_event(WatchEvent::Broken);
    for _ in 0..4 {
        driver.advance(driver.time_to_next_timeout());
        driver.reply(Reply::Unknown { retry_after: None });
    }
    assert!(!driver.take_actions().contains(&ElectionAction::Finish(Outcome::Unreachable)));
}
