//! Tests of the claims of many candidates.

use super::*;

/// Longer than any delay of a claim, which is at most half of the lease duration of 15 s.
const BEYOND_ANY_DELAY: Duration = Duration::from_secs(8);

fn released(contenders: u32) -> Record {
    Record { contenders: Some(contenders), ..record_by("r", MarkState::Released, TIME_2, 15) }
}

/// Returns a standby that has just seen a release of a lock with this many contenders.
fn standby_of_a_released_lock(contenders: u32) -> Driver {
    let mut driver = Driver::start(None);
    driver.reply_to_read(Some(Record { contenders: Some(contenders), ..record_by("r", MarkState::Held, TIME_1, 15) }));
    driver.take_actions();
    driver.watch_delivers(released(contenders));
    driver
}

#[test]
fn up_to_five_candidates_claim_without_a_delay() {
    standby_of_a_released_lock(5).expect_write();
}

#[test]
fn the_claims_of_many_candidates_are_delayed() {
    let mut driver = standby_of_a_released_lock(1000);
    assert_eq!(driver.take_actions(), []);
    let wait = driver.time_to_next_timeout();
    assert!(wait < BEYOND_ANY_DELAY, "{wait:?}");
    driver.advance(wait);
    let claim = driver.expect_write();
    assert_ne!(claim.contenders, Some(1000), "the claim should correct the estimated number of contenders");
}

#[test]
fn a_candidate_that_sees_another_claim_first_writes_nothing() {
    let mut driver = standby_of_a_released_lock(1000);
    driver.watch_delivers(Record { contenders: Some(1000), ..record_by("s", MarkState::Held, TIME_1, 15) });
    driver.advance(BEYOND_ANY_DELAY);
    assert_eq!(driver.take_actions(), []);
}

#[test]
fn a_new_candidate_claims_a_free_lock_without_a_delay() {
    let mut driver = Driver::start(None);
    driver.reply_to_read(Some(released(1000)));
    assert_eq!(driver.expect_write().contenders, Some(1000));
}

#[test]
fn many_candidates_claim_an_expired_lock_with_a_delay() {
    let mut driver = Driver::start(None);
    let held = Record { contenders: Some(1000), ..record_by("r", MarkState::Held, TIME_1, 15) };
    driver.reply_to_read(Some(held.clone()));
    driver.take_actions();
    driver.advance(15 * SECOND);
    assert_eq!(driver.take_actions(), []);
    driver.advance(driver.time_to_next_timeout());
    driver.reply_to_read(Some(held));
    driver.expect_write();
}
