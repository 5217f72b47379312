//! Tests of requests to step down, and of the preference between candidates.

use super::*;

#[test]
fn a_request_to_step_down_is_reported_once_and_removed_from_the_record() {
    let step_down = |record: &Record, run: &str| Record { step_down: Some(RunId::new(run)), ..record.clone() };
    let mut driver = Driver::leading();
    driver.advance(2 * SECOND);
    driver.expect_write();
    driver.reply(Reply::Conflict);
    let mine = driver.election.observed.as_ref().and_then(ObservedRecord::record).cloned().unwrap();
    driver.reply_to_read(Some(step_down(&mine, "another-run")));
    assert!(!driver.take_actions().contains(&ElectionAction::StepDown), "the request names another run");

    driver.advance(2 * SECOND);
    driver.reply(Reply::Conflict);
    driver.reply_to_read(Some(step_down(&mine, "my-run")));
    let actions = driver.take_actions();
    assert_eq!(actions.iter().filter(|action| **action == ElectionAction::StepDown).count(), 1);
    let renewal = actions.into_iter().rev().find_map(|action| match action {
        ElectionAction::Send(Request::Update(_, record)) => Some(record),
        _ => None,
    });
    let renewal = renewal.expect("the lock is still renewed");
    assert_eq!((renewal.step_down.clone(), renewal.is_held()), (None, true));
    driver.reply_to_write(renewal);
    driver.advance(2 * SECOND);
    assert!(!driver.take_actions().contains(&ElectionAction::StepDown));
}

#[test]
fn a_request_to_a_dead_holder_does_not_extend_its_lease() {
    let mut driver = Driver::start(None);
    let dead = record_by("r", MarkState::Held, TIME_1, 15);
    driver.reply_to_read(Some(dead.clone()));
    driver.advance(10 * SECOND);
    driver.watch_delivers(Record { step_down: Some(RunId::new("r")), ..dead });
    assert_eq!(driver.time_to_next_timeout(), 5 * SECOND);
}

#[test]
fn a_request_in_the_record_of_another_run_is_ignored() {
    let mut driver = Driver::leading();
    driver.advance(2 * SECOND);
    driver.expect_write();
    driver.reply(Reply::Conflict);
    let record_of_another_run =
        Record { step_down: Some(RunId::new("my-run")), ..record_by("r", MarkState::Held, TIME_1, 15) };
    driver.reply_to_read(Some(record_of_another_run));
    assert!(matches!(driver.take_actions()[..], [ElectionAction::Lose { .. }]), "another run holds the lock");
}

#[test]
fn a_candidate_claims_a_free_lock_after_its_claim_delay() {
    let mut driver = Driver::start_with_preference(5 * SECOND, None);
    driver.reply_to_read(None);
    assert!(
        matches!(driver.take_actions()[..], [ElectionAction::Watch(_)]),
        "the candidate should watch for claims of candidates with a shorter delay"
    );
    driver.advance(4 * SECOND);
    assert_eq!(driver.take_actions(), []);
    driver.advance(SECOND);
    let claim = driver.expect_write();
    assert_eq!(claim.claim_delay(), 5 * SECOND, "the record should contain the claim delay");
    driver.reply_to_write(claim);
    assert!(matches!(driver.take_actions()[..], [.., ElectionAction::StartLeading(_)]));
}

#[test]
fn a_candidate_with_a_claim_delay_leaves_the_lock_to_another_one_that_claims_first() {
    let mut slower = Driver::start_with_preference(5 * SECOND, None);
    slower.reply_to_read(None);
    slower.advance(2 * SECOND);
    slower.watch_delivers(record_by("r", MarkState::Held, TIME_1, 15));
    slower.advance(10 * SECOND);
    assert!(!slower.take_actions().iter().any(|action| matches!(action, ElectionAction::Send(_))));
}

/// Returns the record of a leader with a claim delay of five seconds.
fn less_preferred(run: &str, renew_time: &str) -> Record {
    Record { claim_delay_millis: Some(5000), ..record_by(run, MarkState::Held, renew_time, 15) }
}

#[test]
fn a_leader_with_a_longer_delay_is_asked_to_step_down_only_once() {
    let mut driver = Driver::start_with_preference(SECOND, Some(60 * SECOND));
    driver.reply_to_read(Some(less_preferred("r", TIME_1)));
    // For nearly 60 s, the leader renews in time and the candidate sends no request.
    for second in 1..=6 {
        driver.take_actions();
        driver.advance(10 * SECOND - Duration::from_millis(1));
        assert!(!driver.take_actions().iter().any(|action| matches!(action, ElectionAction::Send(_))), "{second}");
        driver.watch_delivers(less_preferred("r", &format!("2026-01-01T00:01:0{second}Z")));
    }
    driver.advance(SECOND);
    assert_eq!(driver.expect_write().step_down, Some(RunId::new("r")));
    driver.reply(Reply::Conflict);
    driver.reply_to_read(Some(less_preferred("r", "2026-01-01T00:02:00Z")));
    let request = driver.expect_write();
    assert_eq!(request.step_down, Some(RunId::new("r")), "the request should be sent again after a conflict");
    driver.reply_to_write(request);
    for second in 1..=9 {
        driver.advance(9 * SECOND);
        driver.watch_delivers(less_preferred("r", &format!("2026-01-01T00:03:0{second}Z")));
        assert!(!driver.take_actions().iter().any(|action| matches!(action, ElectionAction::Send(_))), "{second}");
    }
    // The wait of 60 s before a request to step down starts again with the next leader.
    driver.watch_delivers(less_preferred("s", TIME_2));
    driver.advance(9 * SECOND);
    assert!(!driver.take_actions().iter().any(|action| matches!(action, ElectionAction::Send(_))));
}

#[test]
fn a_leader_without_a_longer_delay_is_not_asked_to_step_down() {
    for leader in [
        record_by("r", MarkState::Held, TIME_1, 600),
        Record { claim_delay_millis: Some(1000), ..less_preferred("r", TIME_1) },
    ] {
        let mut driver = Driver::start_with_preference(SECOND, Some(SECOND));
        driver.reply_to_read(Some(leader));
        driver.take_actions();
        driver.advance(10 * SECOND);
        assert_eq!(driver.take_actions(), []);
    }
}
