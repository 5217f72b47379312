//! Tests of tenures and renewals.

use super::*;

#[test]
fn a_tenure_begins_when_the_request_is_sent() {
    let mut driver = Driver::start(None);
    driver.read(None);
    let sent = driver.now.boot;
    let claim = driver.expect_write();
    driver.advance(2 * SECOND);
    driver.written(claim);
    let [ElectionAction::StartLeading(leadership), ..] = &driver.actions()[..] else { panic!() };
    assert_eq!(leadership.tenure.renewal_sent_at, sent);
    assert_eq!(leadership.tenure.stop, sent + 10 * SECOND);
    assert_eq!(leadership.tenure.kill, sent + Duration::from_millis(12_500));
    assert_eq!(leadership.resource_version, "11");
}

#[test]
fn a_leader_renews_by_one_update_every_retry_period() {
    let mut driver = Driver::leading();
    for _ in 0..5 {
        assert_eq!(driver.time_to_next_timeout(), 2 * SECOND);
        driver.advance(2 * SECOND);
        let sent = driver.now.boot;
        let renewal = driver.expect_write();
        driver.written(renewal);
        assert!(matches!(driver.actions()[..], [ElectionAction::Extend(tenure)] if tenure.renewal_sent_at == sent));
    }
}

#[test]
fn a_leader_that_is_woken_late_renews_earlier_by_that_delay() {
    for (delay, pause) in [(500, 1500), (1500, 500), (9000, 500)]
        .map(|pair| (Duration::from_millis(pair.0), Duration::from_millis(pair.1)))
    {
        let mut driver = Driver::leading();
        driver.election.expect_delay(delay);
        driver.advance(2 * SECOND);
        let renewal = driver.expect_write();
        driver.written(renewal);
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
        assert!(renewal.renew_time > before, "each renewal differs from the one before");
        before = renewal.renew_time;
        driver.written(renewal);
        assert!(matches!(driver.actions()[..], [ElectionAction::Extend(_)]));
    }
}

#[test]
fn a_reply_with_an_unchanged_version_renews_nothing() {
    let mut driver = Driver::leading();
    driver.advance(2 * SECOND);
    let renewal = driver.expect_write();
    driver.version -= 1;
    driver.written(renewal);
    assert_eq!(driver.actions(), []);
}

#[test]
fn at_least_three_unanswered_requests_fit_before_the_stop() {
    let mut driver = Driver::leading();
    let stop = driver.now.boot + 10 * SECOND;
    driver.advance(2 * SECOND);
    let mut renewals = vec![driver.expect_write().renew_time];
    while driver.now.boot + driver.time_to_next_timeout() < stop {
        driver.advance(driver.time_to_next_timeout());
        if let [.., ElectionAction::Send(Request::Update(_, record))] = &driver.actions()[..] {
            renewals.push(record.renew_time);
        }
    }
    assert!(renewals.len() >= 3, "{renewals:?}");
    assert!(renewals.is_sorted_by(|a, b| a < b));
}

#[test]
fn the_tenure_of_a_renewal_whose_reply_was_lost_begins_when_it_was_sent() {
    let mut driver = Driver::leading();
    driver.advance(2 * SECOND);
    let (sent, renewal) = (driver.now.boot, driver.expect_write());
    driver.advance(driver.time_to_next_timeout());
    driver.expect_write();
    driver.reply(Reply::Conflict);
    driver.version += 1;
    driver.read(Some(renewal));
    let actions = driver.actions();
    let [ElectionAction::Extend(tenure), ..] = actions[..] else { panic!("{actions:?}") };
    assert_eq!(tenure.renewal_sent_at, sent);
}

#[test]
fn a_claim_whose_reply_was_lost_is_recognised_by_a_read() {
    let mut driver = Driver::start(None);
    driver.read(None);
    let (sent, claim) = (driver.now.boot, driver.expect_write());
    driver.advance(driver.time_to_next_timeout());
    driver.expect_write();
    driver.reply(Reply::Conflict);
    driver.read(Some(claim));
    let actions = driver.actions();
    assert!(
        matches!(&actions[..], [ElectionAction::StartLeading(leadership), ..] if leadership.tenure.renewal_sent_at == sent),
        "{actions:?}"
    );
}

#[test]
fn a_claim_whose_reply_is_late_is_renewed_before_the_command_starts() {
    let mut driver = Driver::start(None);
    driver.read(None);
    let claim = driver.expect_write();
    driver.now.boot = driver.now.boot + 9 * SECOND;
    driver.written(claim);
    let sent = driver.now.boot;
    let renewal = driver.expect_write();
    driver.written(renewal);
    let actions = driver.actions();
    assert!(
        matches!(&actions[..], [ElectionAction::StartLeading(leadership), ..] if leadership.tenure.renewal_sent_at == sent),
        "{actions:?}"
    );
}
