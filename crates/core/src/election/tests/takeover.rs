//! Tests of when a candidate may replace another holder's record.

use super::*;

#[test]
fn once_the_lease_duration_in_the_record_has_passed_the_record_is_read_again_and_the_lock_is_claimed() {
    let mut driver = Driver::start(None);
    driver.reply_to_read(Some(record_by("r", MarkState::Held, TIME_1, 40)));
    assert!(matches!(driver.take_actions()[..], [ElectionAction::Watch(Some(_))]));
    driver.advance(39 * SECOND);
    assert_eq!(driver.take_actions(), []);
    driver.advance(SECOND);
    driver.expect_read();
    let stored = driver.stored(record_by("r", MarkState::Held, TIME_1, 40));
    driver.reply(Reply::Read(Some(stored)));
    let claim = driver.expect_write();
    assert_eq!(claim.holder_identity, "me");
    assert_eq!(claim.lease_transitions, 1);
}

#[test]
fn the_lease_duration_starts_again_if_the_same_record_is_read_in_a_later_version() {
    let mut driver = Driver::start(None);
    driver.reply_to_read(Some(record_by("r", MarkState::Held, TIME_1, 15)));
    driver.advance(15 * SECOND);
    driver.version += 1;
    driver.reply_to_read(Some(record_by("r", MarkState::Held, TIME_1, 15)));
    driver.take_actions();
    driver.advance(14 * SECOND);
    assert_eq!(driver.take_actions(), []);
    driver.advance(SECOND);
    let stored = driver.stored(record_by("r", MarkState::Held, TIME_1, 15));
    driver.reply(Reply::Read(Some(stored)));
    assert_eq!(driver.expect_write().holder_identity, "me");
}

#[test]
fn a_renewal_seen_by_the_watch_restarts_the_lease_duration() {
    let mut driver = Driver::start(None);
    driver.reply_to_read(Some(record_by("r", MarkState::Held, TIME_1, 15)));
    driver.take_actions();
    driver.advance(10 * SECOND);
    driver.watch_delivers(record_by("r", MarkState::Held, TIME_2, 15));
    driver.advance(14 * SECOND);
    assert_eq!(driver.take_actions(), []);
}

#[test]
fn a_lock_that_its_holder_released_is_claimed_at_once() {
    let mut driver = Driver::start(None);
    driver.reply_to_read(Some(record_by("r", MarkState::Held, TIME_1, 15)));
    driver.take_actions();
    driver.advance(SECOND);
    driver.watch_delivers(record_by("r", MarkState::Released, TIME_2, 15));
    assert_eq!(driver.expect_write().holder_identity, "me");
}

#[test]
fn a_record_that_was_emptied_overwritten_or_deleted_is_free_only_after_its_lease_duration() {
    let emptied = Record { holder_identity: String::new(), ..record_by("r", MarkState::Held, TIME_1, 15) };
    let overwritten =
        Record { renew_time: Some(TIME_2.parse().unwrap()), lease_duration_seconds: Some(1), ..emptied.clone() };
    for edited in [Some(emptied), Some(overwritten), None] {
        let mut driver = Driver::start(None);
        driver.reply_to_read(Some(record_by("r", MarkState::Held, TIME_1, 15)));
        driver.take_actions();
        driver.advance(5 * SECOND);
        match edited {
            Some(record) => driver.watch_delivers(record),
            None => driver.watch_event(WatchEvent::Deleted),
        }
        driver.advance(14 * SECOND);
        assert_eq!(driver.take_actions(), []);
        driver.advance(SECOND);
        driver.expect_read();
    }
}

#[test]
fn only_the_holder_can_release_or_shorten_its_lease() {
    let release_by_another_run = record_by("another", MarkState::Released, TIME_1, 15);
    let shortened = record_by("r", MarkState::Held, TIME_1, 1);
    for edited in [release_by_another_run, shortened] {
        let mut driver = Driver::start(None);
        driver.reply_to_read(Some(record_by("r", MarkState::Held, TIME_1, 15)));
        driver.take_actions();
        driver.watch_delivers(edited);
        assert_eq!(driver.time_to_next_timeout(), 15 * SECOND);
    }
}

/// A script may acquire a released lock by writing only the holder's name.
#[test]
fn a_candidate_waits_for_a_holder_that_acquired_the_lock_without_changing_the_renew_time() {
    let released = record_by("r", MarkState::Released, TIME_1, 15);
    let mut driver = Driver::start(None);
    driver.reply_to_read(Some(released.clone()));
    driver.expect_write();
    driver.reply(Reply::Conflict);
    let acquired_by_script = Record { holder_identity: "script".into(), ..released.clone() };
    driver.reply_to_read(Some(acquired_by_script.clone()));
    assert_eq!(driver.time_to_next_timeout(), 15 * SECOND);
    driver.watch_delivers(released);
    assert_eq!(driver.expect_write().holder_identity, "me", "the script has released the lock");
}

#[test]
fn a_lease_duration_that_another_program_wrote_counts_until_the_holder_renews() {
    let mut driver = Driver::start(None);
    driver.reply_to_read(Some(record_by("r", MarkState::Held, TIME_1, 15)));
    driver.watch_delivers(record_by("r", MarkState::Held, TIME_1, 86_400));
    assert_eq!(driver.time_to_takeover(), 86_400 * SECOND);
    driver.watch_delivers(record_by("r", MarkState::Held, TIME_2, 15));
    assert_eq!(driver.time_to_takeover(), 15 * SECOND);
}

#[test]
fn a_longer_lease_duration_that_another_program_wrote_counts_even_if_it_is_shortened_again() {
    let mut driver = Driver::start(None);
    driver.reply_to_read(Some(record_by("r", MarkState::Held, TIME_1, 1)));
    driver.watch_delivers(record_by("r", MarkState::Held, TIME_1, 15));
    driver.watch_delivers(record_by("r", MarkState::Held, TIME_1, 1));
    assert_eq!(driver.time_to_takeover(), 15 * SECOND);
}

#[test]
fn a_displaced_holder_that_has_written_its_record_again_can_release_the_lock() {
    let mut driver = Driver::start(None);
    driver.reply_to_read(Some(record_by("r", MarkState::Held, TIME_1, 15)));
    driver.take_actions();
    driver.watch_event(WatchEvent::Deleted);
    assert_eq!(driver.time_to_next_timeout(), 15 * SECOND);
    driver.watch_delivers(record_by("r", MarkState::Held, TIME_2, 15));
    driver.watch_delivers(record_by("r", MarkState::Released, "2020-01-01T00:00:03Z", 15));
    driver.expect_write();
}

#[test]
fn the_longest_lease_duration_of_a_displaced_holder_still_counts_when_it_writes_again() {
    for displaced_for in [Duration::ZERO, 60 * SECOND] {
        let mut driver = Driver::start(None);
        driver.reply_to_read(Some(record_by("r", MarkState::Held, TIME_1, 15)));
        driver.take_actions();
        driver.watch_event(WatchEvent::Deleted);
        driver.advance(displaced_for);
        // After the longer time, a request is pending. It fails, and the watch repeats that the record was deleted.
        driver.reply(Reply::Conflict);
        driver.watch_event(WatchEvent::Deleted);
        // Meanwhile the holder wrote the record again, unseen by this candidate, and another client shortened the lease
        // duration.
        driver.watch_delivers(record_by("r", MarkState::Held, TIME_2, 1));
        assert_eq!(driver.time_to_takeover(), 15 * SECOND, "displaced for {displaced_for:?}");
    }
}

#[test]
fn a_recreated_record_is_free_only_after_the_lease_duration_of_the_former_holder() {
    let mut driver = Driver::start(None);
    driver.reply_to_read(Some(record_by("r", MarkState::Held, TIME_1, 15)));
    driver.take_actions();
    let mut recreated = driver.stored(record_by("another", MarkState::Held, TIME_2, 3));
    recreated.version.uid = "another".into();
    driver.watch_event(WatchEvent::Changed(recreated));
    assert_eq!(driver.time_to_next_timeout(), 15 * SECOND);
}

/// Returns a candidate that has seen another holder since its claim timed out, and that claim, which may still be
/// carried out.
fn candidate_with_a_late_claim() -> (Driver, Record) {
    let mut driver = Driver::start(None);
    driver.reply_to_read(None);
    let claim = driver.expect_write();
    driver.advance(driver.time_to_next_timeout());
    driver.expect_write();
    driver.reply(Reply::Conflict);
    driver.reply_to_read(Some(record_by("r", MarkState::Held, TIME_1, 15)));
    driver.take_actions();
    (driver, claim)
}

/// Checks that the candidate acquires the lock with another write, although its late claim is stored.
fn expect_another_claim(mut driver: Driver, claim: Record) {
    driver.advance(driver.time_to_next_timeout());
    driver.reply_to_read(Some(claim));
    let second_claim = driver.expect_write();
    driver.reply_to_write(second_claim);
    assert!(matches!(driver.take_actions()[..], [.., ElectionAction::StartLeading(_)]));
}

#[test]
fn a_late_claim_does_not_acquire_the_lock_while_a_displaced_holder_may_be_alive() {
    let (mut driver, claim) = candidate_with_a_late_claim();
    driver.watch_event(WatchEvent::Deleted);
    driver.watch_delivers(claim.clone());
    assert_eq!(driver.take_actions(), []);
    driver.advance(14 * SECOND);
    assert_eq!(driver.take_actions(), []);
    driver.advance(SECOND);
    expect_another_claim(driver, claim);
}

/// The holder may have renewed the record, unseen by this candidate, before another client deleted it.
#[test]
fn a_late_claim_does_not_acquire_the_lock_from_a_holder_whose_lease_seems_to_have_expired() {
    let (mut driver, claim) = candidate_with_a_late_claim();
    driver.advance(15 * SECOND);
    driver.version += 2;
    driver.reply_to_read(Some(claim.clone()));
    assert!(!driver.take_actions().iter().any(|action| matches!(action, ElectionAction::Send(_))));
    driver.advance(14 * SECOND);
    assert!(!driver.take_actions().iter().any(|action| matches!(action, ElectionAction::Send(Request::Update(..)))));
    driver.advance(SECOND);
    expect_another_claim(driver, claim);
}

#[test]
fn a_candidate_does_not_treat_the_record_of_another_run_with_its_identity_as_its_own() {
    let mut driver = Driver::start(None);
    let same_identity = Record { holder_identity: "me".into(), ..record_by("r", MarkState::Held, TIME_1, 15) };
    driver.reply_to_read(Some(same_identity));
    assert!(matches!(driver.take_actions()[..], [ElectionAction::Watch(Some(_))]));
}

#[test]
fn a_standby_waits_for_a_clone_of_itself_from_the_same_vm_snapshot() {
    let mut driver = Driver::start(None);
    let record_of_clone = Record { holder_identity: "me".into(), ..record_by("my-run", MarkState::Held, TIME_1, 15) };
    driver.reply_to_read(Some(record_of_clone));
    assert!(matches!(driver.take_actions()[..], [ElectionAction::Watch(Some(_))]));
}

#[test]
fn a_restored_old_record_does_not_shorten_the_wait_for_the_holder() {
    let held = Record { lease_transitions: 7, ..record_by("r", MarkState::Held, TIME_1, 60) };
    for transitions in [6, 7] {
        let mut driver = Driver::start(None);
        driver.reply_to_read(Some(held.clone()));
        driver.advance(10 * SECOND);
        driver.take_actions();
        let old = record_by("earlier", MarkState::Held, TIME_2, 3);
        driver.watch_delivers(Record { lease_transitions: transitions, ..old });
        assert_eq!(driver.time_to_next_timeout(), 60 * SECOND);
    }
}

#[test]
fn a_candidate_waits_for_a_holder_whose_renewals_it_missed_before_an_old_record_was_restored() {
    let held = Record { lease_transitions: 7, ..record_by("r", MarkState::Held, TIME_1, 60) };
    let mut driver = Driver::start(None);
    driver.reply_to_read(Some(held));
    driver.advance(60 * SECOND);
    driver.expect_read();
    let old = Record { lease_transitions: 6, ..record_by("earlier", MarkState::Held, TIME_2, 3) };
    driver.version += 1;
    let stored = driver.stored(old);
    driver.reply(Reply::Read(Some(stored)));
    assert_eq!(driver.time_to_takeover(), 60 * SECOND);
}

/// Returns a candidate that is not allowed to watch, and the record that it has read.
fn polling_candidate() -> (Driver, Record) {
    let held = record_by("r", MarkState::Held, TIME_1, 15);
    let mut driver = Driver::start(None);
    driver.reply_to_read(Some(held.clone()));
    driver.watch_event(WatchEvent::Forbidden);
    driver.take_actions();
    (driver, held)
}

/// Between two reads, the holder renews the record and another program restores the old one.
#[test]
fn a_candidate_waits_after_a_renewal_that_was_reverted_between_two_reads() {
    let (mut driver, held) = polling_candidate();
    driver.advance(driver.time_to_next_timeout());
    driver.now.boot = driver.now.boot + 100 * SECOND;
    driver.version += 2;
    driver.reply_to_read(Some(held));
    assert_eq!(driver.time_to_takeover(), 15 * SECOND, "the lease duration should start again at the read");
}

#[test]
fn only_a_record_that_replaced_an_older_version_than_the_observed_one_is_treated_as_a_restored_copy() {
    let held = Record { lease_transitions: 3, ..record_by("r", MarkState::Held, TIME_1, 60) };
    for (replaced_version, expected) in [("1", 60), ("9", 60), ("10", 3), ("11", 3), ("unknown", 3)] {
        let mut driver = Driver::start(None);
        driver.version = 10;
        driver.reply_to_read(Some(held.clone()));
        driver.take_actions();
        let replaced_version = Some(replaced_version.into());
        let later = Record { lease_transitions: 4, replaced_version, ..record_by("later", MarkState::Held, TIME_2, 3) };
        driver.watch_delivers(later);
        assert_eq!(driver.time_to_next_timeout(), expected * SECOND);
    }
}

#[test]
fn a_claim_states_the_version_that_it_replaces() {
    let mut driver = Driver::start(None);
    driver.reply_to_read(Some(record_by("r", MarkState::Released, TIME_1, 15)));
    let version = driver.version.to_string();
    assert_eq!(driver.expect_write().replaced_version, Some(version));
    let mut driver = Driver::start(None);
    driver.reply_to_read(None);
    assert_eq!(driver.expect_write().replaced_version, None);
}

#[test]
fn a_successor_that_increments_the_transitions_replaces_the_holder() {
    let held = Record { lease_transitions: 7, ..record_by("r", MarkState::Held, TIME_1, 60) };
    let mut driver = Driver::start(None);
    driver.reply_to_read(Some(held.clone()));
    driver.advance(50 * SECOND);
    driver.take_actions();
    driver.watch_delivers(Record { lease_transitions: 8, ..record_by("successor", MarkState::Held, TIME_2, 3) });
    assert_eq!(driver.time_to_next_timeout(), 3 * SECOND);
}

#[test]
fn a_forced_release_ends_the_wait_for_every_earlier_holder() {
    let held = record_by("r", MarkState::Held, TIME_1, 3600);
    let now = Driver::start(None).now.wall;
    let mut standby = Driver::start(None);
    standby.reply_to_read(Some(held.clone()));
    standby.take_actions();
    standby.watch_delivers(held.clone().released_by_force(now));
    standby.expect_write();

    for emptied in [Some(Record { holder_identity: String::new(), run: None, ..held.clone() }), None] {
        let mut standby = Driver::start(None);
        standby.reply_to_read(Some(held.clone()));
        match emptied.clone() {
            Some(record) => standby.watch_delivers(record),
            None => standby.watch_event(WatchEvent::Deleted),
        }
        standby.take_actions();
        assert!(
            standby.time_to_next_timeout() > SECOND,
            "the candidate should wait for the lease duration of the known holder"
        );
        standby.watch_delivers(emptied.unwrap_or_default().released_by_force(now));
        standby.expect_write();
    }
}

#[test]
fn an_old_forced_release_does_not_release_the_lock_of_a_later_holder() {
    let now = Driver::start(None).now.wall;
    let release_of_another_run = record_by("dead", MarkState::Held, TIME_1, 15).released_by_force(now);
    let release_without_a_run =
        Record { run: None, ..record_by("dead", MarkState::Held, TIME_1, 15) }.released_by_force(now);
    for old in [release_of_another_run, release_without_a_run] {
        let mut standby = Driver::start(None);
        standby.reply_to_read(Some(record_by("r", MarkState::Held, TIME_1, 3600)));
        standby.take_actions();
        standby.watch_delivers(old);
        standby.take_actions();
        assert!(standby.time_to_next_timeout() > SECOND, "the candidate should wait for the holder's lease duration");
    }
}

#[test]
fn a_forced_release_is_valid_only_if_its_time_equals_the_renew_time() {
    let forced = record_by("r", MarkState::Held, TIME_1, 15).released_by_force(TIME_2.parse().unwrap());
    assert!(forced.is_released_by_force() && !forced.is_held());
    assert!(!Record { renew_time: Some(TIME_1.parse().unwrap()), ..forced.clone() }.is_released_by_force());
    let mut standby = Driver::start(None);
    standby.reply_to_read(Some(forced));
    assert_eq!(standby.expect_write().forced, None, "the next claim removes the time of the forced release");
}
