//! Tests of watching and polling.

use super::*;

/// Returns a candidate with an open watch and a pending claim of a released lock.
fn claiming_a_released_lock() -> Driver {
    let mut driver = Driver::start(None);
    driver.reply_to_read(Some(record_by("r", MarkState::Held, TIME_1, 15)));
    assert!(matches!(driver.take_actions()[..], [ElectionAction::Watch(Some(_))]));
    driver.watch_delivers(record_by("r", MarkState::Released, TIME_2, 15));
    driver.expect_write();
    driver
}

#[test]
fn a_watch_is_reopened_if_a_read_shows_a_record_that_it_has_not_delivered() {
    let mut driver = claiming_a_released_lock();
    driver.reply(Reply::Conflict);
    driver.version += 1;
    driver.reply_to_read(Some(record_by("s", MarkState::Held, TIME_1, 15)));
    assert!(matches!(driver.take_actions()[..], [ElectionAction::Unwatch, ElectionAction::Watch(Some(_))]));
}

#[test]
fn a_lock_that_is_still_free_after_a_conflict_is_claimed_without_a_watch() {
    let mut driver = claiming_a_released_lock();
    driver.reply(Reply::Conflict);
    driver.version += 1;
    driver.reply_to_read(Some(record_by("r", MarkState::Released, TIME_1, 15)));
    assert!(matches!(driver.take_actions()[..], [ElectionAction::Unwatch, ElectionAction::Send(Request::Update(..))]));
}

/// The reply to a slow read may be older than the record that the watch has delivered in the meantime.
#[test]
fn a_read_that_the_watch_has_overtaken_changes_nothing() {
    let mut driver = Driver::start(None);
    driver.reply_to_read(Some(record_by("r", MarkState::Held, TIME_1, 15)));
    driver.take_actions();
    driver.advance(15 * SECOND);
    driver.expect_read();
    let expired = driver.stored(record_by("r", MarkState::Held, TIME_1, 15));
    driver.watch_delivers(record_by("s", MarkState::Held, TIME_2, 15));
    take_notices(&mut driver);
    driver.reply(Reply::Read(Some(expired)));
    assert_eq!(driver.unread, [], "the watch should stay open, and its newer record should count");
    assert_eq!(driver.election.observed().unwrap().0.unwrap().renew_time, Some(TIME_2.parse().unwrap()));

    // A record from a restored backup also has an older version. The watch has delivered nothing since this read was
    // sent, so the record counts.
    driver.advance(15 * SECOND);
    driver.expect_read();
    driver.version -= 1;
    let restored = driver.stored(record_by("r", MarkState::Held, TIME_1, 15));
    driver.reply(Reply::Read(Some(restored)));
    assert_eq!(driver.election.observed().unwrap().0.unwrap().renew_time, Some(TIME_1.parse().unwrap()));
}

#[test]
fn a_claim_is_reported_as_failed_only_when_that_is_certain() {
    let mut driver = Driver::start(None);
    driver.reply_to_read(None);
    let drain = |driver: &mut Driver| -> Vec<ElectionAction> { driver.unread.drain(..).collect() };
    assert!(matches!(drain(&mut driver)[..], [ElectionAction::Claiming, ElectionAction::Send(Request::Create(_))]));
    driver.advance(driver.time_to_next_timeout());
    assert!(!drain(&mut driver).contains(&ElectionAction::ClaimFailed), "the first write may have succeeded");
    driver.reply(Reply::Conflict);
    assert!(!drain(&mut driver).contains(&ElectionAction::ClaimFailed), "the conflict may be with the first write");
    let stored = driver.stored(record_by("s", MarkState::Held, TIME_1, 15));
    driver.reply(Reply::Read(Some(stored)));
    assert!(drain(&mut driver).contains(&ElectionAction::ClaimFailed));
}

#[test]
fn a_candidate_without_a_watch_reads_every_retry_period_with_jitter() {
    let mut driver = Driver::start(None);
    driver.reply_to_read(Some(record_by("r", MarkState::Held, TIME_1, 15)));
    driver.take_actions();
    driver.watch_event(WatchEvent::Forbidden);
    for _ in 0..3 {
        let pause = driver.time_to_next_timeout();
        assert!(pause >= 2 * SECOND && pause <= Duration::from_millis(4400), "{pause:?}");
        driver.advance(pause);
        driver.reply_to_read(Some(record_by("r", MarkState::Held, TIME_1, 15)));
    }
}

/// Replies to the next read, and checks that the watch is opened again.
fn read_and_reopen_the_watch(driver: &mut Driver) {
    driver.advance(driver.time_to_next_timeout());
    driver.reply_to_read(Some(record_by("r", MarkState::Held, TIME_1, 15)));
    assert!(driver.unread.iter().any(|action| matches!(action, ElectionAction::Watch(_))));
}

#[test]
fn the_start_and_the_end_of_polling_are_reported() {
    let mut driver = Driver::start(None);
    driver.reply_to_read(Some(record_by("r", MarkState::Held, TIME_1, 15)));
    take_notices(&mut driver);
    driver.watch_event(WatchEvent::Broken);
    read_and_reopen_the_watch(&mut driver);
    assert_eq!(take_notices(&mut driver), [], "one broken watch should not be reported as polling");
    driver.watch_event(WatchEvent::Broken);
    assert_eq!(take_notices(&mut driver), [ElectionNotice::Polling]);
    driver.unread.clear();
    read_and_reopen_the_watch(&mut driver);
    driver.watch_event(WatchEvent::Opened);
    assert_eq!(take_notices(&mut driver), [], "the watch may break again");
    driver.advance(15 * SECOND);
    assert_eq!(take_notices(&mut driver)[..1], [ElectionNotice::Watching]);
}

/// After the pause, the watch is opened when the reply to the next read arrives. Without a watch, the record is read at
/// least every five seconds.
#[test]
fn a_refused_watch_is_opened_again_after_the_requested_pause_of_at_most_a_minute() {
    for (retry_after, pause) in [(0, 0), (30, 30), (86_400, 60)] {
        let mut driver = Driver::start(None);
        let held = record_by("r", MarkState::Held, TIME_1, 600);
        driver.reply_to_read(Some(held.clone()));
        driver.unread.clear();
        driver.watch_event(WatchEvent::Refused { retry_after: retry_after * SECOND });
        let mut waited = Duration::ZERO;
        while !driver.unread.iter().any(|action| matches!(action, ElectionAction::Watch(_))) {
            let until_read = driver.time_to_next_timeout();
            assert!(until_read <= 5 * SECOND, "the record should be read in the meantime");
            driver.advance(until_read);
            driver.reply_to_read(Some(held.clone()));
            waited += until_read;
        }
        assert!(waited >= pause * SECOND && waited <= (pause + 5) * SECOND, "{retry_after}: {waited:?}");
    }
}

#[test]
fn the_record_is_read_if_its_watch_is_silent() {
    let mut driver = Driver::start(None);
    let held = record_by("r", MarkState::Held, TIME_1, 600);
    driver.reply_to_read(Some(held.clone()));
    assert!(matches!(driver.take_actions()[..], [ElectionAction::Watch(_)]));
    driver.advance(60 * SECOND);
    driver.watch_event(WatchEvent::Bookmark);
    driver.advance(SILENT_WATCH_LIMIT - SECOND);
    assert_eq!(driver.take_actions(), [], "a bookmark should restart the timer for silent watches");
    driver.advance(SECOND);
    driver.reply_to_read(Some(held));
    driver.advance(SILENT_WATCH_LIMIT - SECOND);
    assert_eq!(driver.take_actions(), [], "the reply to a read should restart the timer for silent watches");
    driver.advance(SECOND);
    assert_eq!(driver.take_actions(), [ElectionAction::Send(Request::Get)]);
}

#[test]
fn polling_begins_when_the_watch_is_forbidden() {
    let mut driver = Driver::start(None);
    driver.reply_to_read(Some(record_by("r", MarkState::Held, TIME_1, 15)));
    take_notices(&mut driver);
    driver.watch_event(WatchEvent::Forbidden);
    assert_eq!(take_notices(&mut driver), [ElectionNotice::Polling]);
}

#[test]
fn the_read_timeout_of_a_standby_doubles() {
    let mut driver = Driver::start(None);
    let mut timeouts = Vec::new();
    for _ in 0..4 {
        driver.expect_read();
        timeouts.push(driver.time_to_next_timeout().as_millis());
        driver.advance(driver.time_to_next_timeout());
    }
    assert_eq!(timeouts, [2666, 5333, 10_666, 15_000]);
    driver.reply_to_read(None);
    driver.expect_write();
    assert_eq!(driver.time_to_next_timeout().as_millis(), 2666, "the timeout of writes should not grow");
}
