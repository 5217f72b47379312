//! Tests of tenures and renewals.

use super::*;

#[test]
fn a_tenure_begins_when_the_request_is_sent() {
    let mut driver = Driver::start(None);
    driver.reply_to_read(None);
    let sent = driver.now.boot;
    let claim = driver.expect_write();
    driver.advance(2 * SECOND);
    driver.reply_to_write(claim);
    let actions = driver.take_actions();
    let [ElectionAction::StartLeading(leadership), ..] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(leadership.tenure.renewal_sent_at, sent);
    assert_eq!(leadership.tenure.stop, sent + 10 * SECOND);
    assert_eq!(leadership.tenure.kill, sent + Duration::from_millis(12_500));
    assert_eq!(leadership.resource_version, "11");
}

#[test]
fn a_leader_sends_one_update_in_every_retry_period() {
    let mut driver = Driver::leading();
    for _ in 0..5 {
        assert_eq!(driver.time_to_next_timeout(), 2 * SECOND);
        driver.advance(2 * SECOND);
        let sent = driver.now.boot;
        let renewal = driver.expect_write();
        driver.reply_to_write(renewal);
        assert!(
            matches!(driver.take_actions()[..], [ElectionAction::Extend(tenure)] if tenure.renewal_sent_at == sent)
        );
    }
}

#[test]
fn a_leader_that_is_woken_late_renews_earlier_by_that_delay() {
    for (delay, pause) in [(500, 1500), (1500, 500), (9000, 500)]
        .map(|pair| (Duration::from_millis(pair.0), Duration::from_millis(pair.1)))
    {
        let mut driver = Driver::leading();
        driver.election.set_wakeup_delay(delay);
        driver.advance(2 * SECOND);
        let renewal = driver.expect_write();
        driver.reply_to_write(renewal);
        assert_eq!(driver.time_to_next_timeout(), pause, "{delay:?}");
    }
}

#[test]
fn a_wall_clock_that_stops_or_jumps_does_not_affect_renewals() {
    let mut driver = Driver::leading();
    let mut before = None;
    for offset in [0, 0, 3600, -7200, 3600, 0] {
        driver.now.boot = driver.now.boot + 2 * SECOND;
        driver.now.wall += jiff::SignedDuration::from_secs(offset);
        driver.step(ElectionInputs::default());
        let renewal = driver.expect_write();
        assert!(renewal.renew_time > before, "each renewal is later than the previous renewal");
        before = renewal.renew_time;
        driver.reply_to_write(renewal);
        assert!(matches!(driver.take_actions()[..], [ElectionAction::Extend(_)]));
    }
}

#[test]
fn a_reply_with_an_unchanged_version_does_not_extend_the_tenure() {
    let mut driver = Driver::leading();
    driver.advance(2 * SECOND);
    let renewal = driver.expect_write();
    driver.version -= 1;
    driver.reply_to_write(renewal);
    assert_eq!(driver.take_actions(), []);
}

#[test]
fn at_least_three_requests_without_a_reply_fit_before_the_stop() {
    let mut driver = Driver::leading();
    let stop = driver.now.boot + 10 * SECOND;
    driver.advance(2 * SECOND);
    let mut renewals = vec![driver.expect_write().renew_time];
    while driver.now.boot + driver.time_to_next_timeout() < stop {
        driver.advance(driver.time_to_next_timeout());
        if let [.., ElectionAction::Send(Request::Update(_, record))] = &driver.take_actions()[..] {
            renewals.push(record.renew_time);
        }
    }
    assert!(renewals.len() >= 3, "{renewals:?}");
    assert!(renewals.is_sorted_by(|a, b| a < b));
}

#[test]
fn the_tenure_of_a_renewal_whose_reply_was_lost_begins_when_the_renewal_was_sent() {
    let mut driver = Driver::leading();
    driver.advance(2 * SECOND);
    let (sent, renewal) = (driver.now.boot, driver.expect_write());
    driver.advance(driver.time_to_next_timeout());
    driver.expect_write();
    driver.reply(Reply::Conflict);
    driver.version += 1;
    driver.reply_to_read(Some(renewal));
    let actions = driver.take_actions();
    let [ElectionAction::Extend(tenure), ..] = actions[..] else { panic!("{actions:?}") };
    assert_eq!(tenure.renewal_sent_at, sent);
}

#[test]
fn a_claim_whose_reply_was_lost_is_recognized_by_a_read() {
    let mut driver = Driver::start(None);
    driver.reply_to_read(None);
    let (sent, claim) = (driver.now.boot, driver.expect_write());
    driver.advance(driver.time_to_next_timeout());
    driver.expect_write();
    driver.reply(Reply::Conflict);
    driver.reply_to_read(Some(claim));
    let actions = driver.take_actions();
    assert!(
        matches!(&actions[..], [ElectionAction::StartLeading(leadership), ..] if leadership.tenure.renewal_sent_at == sent),
        "{actions:?}"
    );
}

/// This can happen if the API server has a slow disk. In this test, each write takes three seconds, which is longer
/// than the request timeout.
#[test]
fn a_leader_whose_renewals_take_longer_than_the_request_timeout_keeps_the_lock() {
    let mut driver = Driver::leading();
    for _ in 0..20 {
        driver.advance(driver.time_to_next_timeout().min(2 * SECOND));
        let (sent, renewal) = (driver.now.boot, driver.expect_write());
        driver.advance(driver.time_to_next_timeout());
        driver.expect_write();
        driver.now.boot = sent + 3 * SECOND;
        driver.version += 1;
        let stored = driver.stored(renewal);
        driver.step(ElectionInputs { late_write: Some(stored), ..ElectionInputs::default() });
        let actions = driver.take_actions();
        assert!(
            matches!(&actions[..], [ElectionAction::Extend(tenure), ..] if tenure.renewal_sent_at == sent),
            "{actions:?}"
        );
        let Some(ElectionAction::Send(Request::Update(_, next))) = actions.last() else { panic!("{actions:?}") };
        let next = next.clone();
        driver.reply_to_write(next);
        driver.take_actions();
    }
}

#[test]
fn a_late_reply_does_not_replace_a_later_record() {
    let mut driver = Driver::leading();
    driver.advance(2 * SECOND);
    let renewal = driver.expect_write();
    driver.advance(driver.time_to_next_timeout());
    driver.expect_write();
    driver.version += 1;
    let stored = driver.stored(renewal);
    driver.reply(Reply::Conflict);
    driver.version += 1;
    driver.reply_to_read(Some(record_by("r", MarkState::Held, TIME_1, 15)));
    assert!(matches!(driver.take_actions()[..], [ElectionAction::Lose { .. }]));
    driver.step(ElectionInputs { late_write: Some(stored), ..ElectionInputs::default() });
    assert_eq!(driver.take_actions(), []);
}

/// A proxy that sends a write twice passes on the reply to the second request.
#[test]
fn a_write_that_was_carried_out_counts_although_its_reply_is_a_conflict() {
    let mut driver = Driver::start(None);
    driver.reply_to_read(None);
    let (sent, claim) = (driver.now.boot, driver.expect_write());
    driver.advance(SECOND);
    driver.reply(Reply::Conflict);
    driver.version += 1;
    driver.reply_to_read(Some(claim));
    let actions = driver.take_actions();
    assert!(
        matches!(&actions[..], [ElectionAction::StartLeading(leadership), ..] if leadership.tenure.renewal_sent_at == sent),
        "{actions:?}"
    );
    for _ in 0..10 {
        driver.advance(driver.time_to_next_timeout());
        let (sent, renewal) = (driver.now.boot, driver.expect_write());
        driver.reply(Reply::Conflict);
        driver.version += 1;
        driver.reply_to_read(Some(renewal));
        let actions = driver.take_actions();
        assert!(
            matches!(actions[..], [ElectionAction::Extend(tenure), ..] if tenure.renewal_sent_at == sent),
            "{actions:?}"
        );
    }
}

#[test]
fn a_claim_whose_reply_was_a_conflict_is_released_at_the_end() {
    let mut driver = Driver::start(None);
    driver.reply_to_read(None);
    let claim = driver.expect_write();
    driver.reply(Reply::Conflict);
    driver.expect_read();
    driver.step(ElectionInputs::stop());
    driver.version += 1;
    let stored = driver.stored(claim);
    driver.reply(Reply::Read(Some(stored)));
    assert_eq!(driver.expect_write().holder_identity, "");
}

/// `kubectl annotate` can remove annotations, and so can a client that replaces the object without knowing them.
#[test]
fn a_holder_whose_mark_was_removed_writes_it_again() {
    let mut driver = Driver::leading();
    driver.advance(2 * SECOND);
    let renewal = driver.expect_write();
    driver.reply_to_write(renewal.clone());
    driver.advance(2 * SECOND);
    driver.expect_write();
    driver.reply(Reply::Conflict);
    driver.version += 1;
    driver.reply_to_read(Some(Record { run: None, retry_period_millis: None, replaced_version: None, ..renewal }));
    let notice = ElectionAction::Notify(ElectionNotice::Edited);
    assert!(driver.unread.contains(&notice), "{:?}", driver.unread);
    let restored = driver.expect_write();
    assert!(restored.run.is_some());
    driver.reply_to_write(restored);
    assert!(matches!(driver.take_actions()[..], [ElectionAction::Extend(_)]));
}

#[test]
fn a_renewal_without_a_mark_by_a_client_with_the_same_identity_is_a_loss() {
    let mut driver = Driver::leading();
    driver.advance(2 * SECOND);
    let renewal = driver.expect_write();
    driver.reply(Reply::Conflict);
    driver.version += 1;
    driver.reply_to_read(Some(Record { run: None, renew_time: Some(TIME_2.parse().unwrap()), ..renewal }));
    assert!(matches!(driver.take_actions()[..], [ElectionAction::Lose { .. }]));
}

#[test]
fn a_clone_of_a_leader_loses_the_lock_if_the_original_renews_first() {
    let mut original = Driver::leading();
    let snapshot = original.election.clone();
    original.advance(2 * SECOND);
    let renewal = original.expect_write();
    original.reply_to_write(renewal.clone());
    assert!(matches!(original.take_actions()[..], [ElectionAction::Extend(_)]));
    // The clone's wall clock may be behind or ahead of the original's.
    for offset in [-1, 1] {
        let mut clone = Driver { election: snapshot.clone(), unread: Vec::new(), ..original };
        clone.now.wall += jiff::SignedDuration::from_secs(offset);
        clone.step(ElectionInputs::default());
        clone.expect_write();
        clone.reply(Reply::Conflict);
        clone.reply_to_read(Some(renewal.clone()));
        assert!(matches!(clone.take_actions()[..], [ElectionAction::Lose { .. }]));
    }
}

#[test]
fn a_leader_keeps_the_lock_if_its_own_older_record_is_restored() {
    let mut driver = Driver::leading();
    driver.advance(2 * SECOND);
    let older = driver.expect_write();
    driver.reply_to_write(older.clone());
    driver.advance(2 * SECOND);
    let newer = driver.expect_write();
    driver.reply_to_write(newer);
    driver.advance(2 * SECOND);
    driver.expect_write();
    driver.reply(Reply::Conflict);
    driver.version += 5;
    driver.reply_to_read(Some(older));
    let renewal = driver.expect_write();
    driver.reply_to_write(renewal);
    assert!(matches!(driver.take_actions()[..], [ElectionAction::Extend(_)]));
}

#[test]
fn a_lock_is_claimed_again_before_the_command_starts_if_the_reply_to_the_claim_is_late() {
    let mut driver = Driver::start(None);
    driver.reply_to_read(None);
    let claim = driver.expect_write();
    driver.now.boot = driver.now.boot + 9 * SECOND;
    driver.reply_to_write(claim);
    let sent = driver.now.boot;
    let second_claim = driver.expect_write();
    driver.reply_to_write(second_claim);
    let actions = driver.take_actions();
    assert!(
        matches!(&actions[..], [ElectionAction::StartLeading(leadership), ..] if leadership.tenure.renewal_sent_at == sent),
        "{actions:?}"
    );
}

/// A cluster's admission policies may change the record.
#[test]
fn no_tenure_begins_if_the_server_shortens_the_lease_duration_of_a_claim() {
    let shortened = |record: Record, seconds| Record { lease_duration_seconds: seconds, ..record };
    for (stored_seconds, leads) in [(Some(14), false), (None, false), (Some(15), true), (Some(16), true)] {
        for watch_is_first in [false, true] {
            let mut driver = Driver::start(None);
            driver.reply_to_read(Some(record_by("other", MarkState::Released, TIME_1, 15)));
            let claim = shortened(driver.expect_write(), stored_seconds);
            driver.version += 1;
            let stored = driver.stored(claim);
            if watch_is_first {
                driver.watch_event(WatchEvent::Changed(stored.clone()));
            }
            driver.reply(Reply::Written(stored.clone()));
            let actions = driver.take_actions();
            let started = actions.iter().any(|action| matches!(action, ElectionAction::StartLeading(_)));
            assert_eq!(started, leads, "{stored_seconds:?}: {actions:?}");
            if !leads {
                assert!(driver.take_actions().is_empty(), "there should be a pause before the next request");
                driver.advance(5 * SECOND);
                driver.reply(Reply::Read(Some(stored)));
                let claim = driver.expect_write();
                driver.reply_to_write(claim);
                assert!(
                    matches!(driver.take_actions()[..], [ElectionAction::StartLeading(_)]),
                    "the candidate should lead once the server no longer shortens the lease duration"
                );
            }
        }
    }
}

#[test]
fn a_renewal_whose_lease_duration_the_server_shortens_does_not_extend_the_tenure() {
    let mut driver = Driver::leading();
    driver.advance(2 * SECOND);
    let renewal = driver.expect_write();
    driver.version += 1;
    let stored = driver.stored(Record { lease_duration_seconds: Some(5), ..renewal });
    driver.reply(Reply::Written(stored.clone()));
    assert_eq!(driver.take_actions(), []);
    driver.advance(SECOND);
    assert_eq!(driver.take_actions(), [ElectionAction::Send(Request::Get)]);
    driver.reply(Reply::Read(Some(stored)));
    let renewal = driver.expect_write();
    assert_eq!(renewal.lease_duration_seconds, Some(15));
    driver.reply_to_write(renewal);
    assert!(matches!(driver.take_actions()[..], [ElectionAction::Extend(_)]));
}

#[test]
fn a_candidate_gives_up_if_the_server_shortens_every_lease_duration() {
    for wait in [Duration::ZERO, 10 * SECOND] {
        let mut driver = Driver::start(Some(wait));
        driver.reply_to_read(None);
        // The reply to every other claim is a refusal, although the claim was stored.
        let (mut replies, mut current) = (0, None);
        let outcome = loop {
            let actions = driver.take_actions();
            if let Some(ElectionAction::Finish(outcome)) = actions.last() {
                break *outcome;
            }
            driver.version += 1;
            match actions.last() {
                Some(ElectionAction::Send(Request::Get)) => {
                    driver.reply(Reply::Read(current.clone()));
                }
                Some(ElectionAction::Send(Request::Create(record) | Request::Update(_, record))) => {
                    let stored = driver.stored(Record { lease_duration_seconds: Some(5), ..record.clone() });
                    current = Some(stored.clone());
                    if replies % 2 == 0 {
                        driver.watch_event(WatchEvent::Changed(stored));
                        driver.reply(Reply::Refused { retry_after: None });
                    } else {
                        driver.reply(Reply::Written(stored));
                    }
                    replies += 1;
                }
                _ => driver.advance(SECOND),
            }
            assert!(replies < 20, "{wait:?}");
        };
        assert_eq!(outcome, Outcome::Unreachable, "{wait:?}");
    }
}
