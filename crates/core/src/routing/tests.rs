//! Tests of the routing decisions.

use super::*;
use crate::updates::Loss;

const WITHDRAWAL_TIME: Duration = Duration::from_secs(2);

fn at(seconds: u64) -> Instant {
    Instant::after_boot(Duration::from_secs(seconds))
}

fn leading(stop: u64) -> Update {
    Update::Leading { stop: at(stop), gone_by: at(stop + 3) }
}

fn route_here(until: u64) -> Option<RoutingStep> {
    Some(RoutingStep::RouteHere { token: "7".into(), until: at(until), rewrite: false })
}

fn withdraw() -> Option<RoutingStep> {
    Some(RoutingStep::Withdraw { token: "7".into() })
}

fn acquired() -> Update {
    Update::Acquired { token: "7".into(), uids: Vec::new() }
}

/// Returns the routing step among the actions, if any.
fn step_to_begin(actions: Vec<RouteAction>) -> Option<RoutingStep> {
    actions.into_iter().find_map(|action| if let RouteAction::Begin(step) = action { Some(step) } else { None })
}

fn update(route: &mut Route, now: u64, update: Update) -> Option<RoutingStep> {
    step_to_begin(route.step(at(now), RouteInputs { updates: vec![update], result: None }))
}

fn result(route: &mut Route, now: u64, result: StepResult) -> Vec<RouteAction> {
    route.step(at(now), RouteInputs { updates: Vec::new(), result: Some(result) })
}

fn timeout(route: &mut Route, now: u64) -> Option<RoutingStep> {
    step_to_begin(route.step(at(now), RouteInputs::default()))
}

/// Returns a leader whose command has not started and whose stop is due at t = 10 s.
fn leader_before_the_start() -> Route {
    let mut route = Route::new(WITHDRAWAL_TIME);
    for first in [acquired(), leading(10)] {
        assert_eq!(update(&mut route, 1, first), None);
    }
    route
}

/// Returns a leader to which traffic has been routed since t = 1 s, and whose stop is due at t = 10 s.
fn routed() -> Route {
    let mut route = leader_before_the_start();
    assert_eq!(update(&mut route, 1, Update::CommandStarted), route_here(8));
    assert_eq!(result(&mut route, 1, StepResult::Succeeded), []);
    route
}

#[test]
fn a_standby_changes_nothing() {
    let mut route = Route::new(WITHDRAWAL_TIME);
    assert_eq!((timeout(&mut route, 0), route.next_timeout(at(0))), (None, None));
    for end in [Update::Lost(Loss::Taken), Update::RunEnding] {
        assert_eq!(update(&mut route, 1, end), None);
    }
}

#[test]
fn a_forbidden_withdrawal_is_not_awaited_and_is_retried_after_a_minute() {
    let mut route = routed();
    assert_eq!(update(&mut route, 2, Update::Terminating), withdraw());
    assert_eq!(
        result(&mut route, 2, StepResult::Forbidden),
        [RouteAction::Withdrawn],
        "a forbidden withdrawal should not delay the command's termination"
    );
    assert_eq!((timeout(&mut route, 61), route.next_timeout(at(61))), (None, Some(at(62))));
    assert_eq!(timeout(&mut route, 62), withdraw());
}

#[test]
fn the_pauses_between_retries_grow_until_an_update_resets_them() {
    let mut route = routed();
    assert_eq!(update(&mut route, 2, Update::Terminating), withdraw());
    let mut pauses = Vec::new();
    for retry in 0..12 {
        let now = 1000 * (retry + 1);
        assert_eq!(step_to_begin(result(&mut route, now, StepResult::Failed)), None);
        pauses.push(route.next_timeout(at(now)).expect("a retry is due").since(at(now)).as_millis());
        assert_eq!(timeout(&mut route, now + 500), withdraw());
    }
    assert_eq!(pauses[..4], [100, 200, 400, 800]);
    assert_eq!(pauses[11], 10_000);
    result(&mut route, 13_000, StepResult::Failed);
    assert_eq!(update(&mut route, 13_000, Update::RunEnding), withdraw());
}

#[test]
fn traffic_is_routed_to_a_command_that_has_started() {
    let mut route = leader_before_the_start();
    assert_eq!(update(&mut route, 1, Update::CommandStarted), route_here(8));
}

#[test]
fn traffic_is_routed_away_before_the_stop_unless_the_lock_is_renewed() {
    let mut route = routed();
    assert_eq!((timeout(&mut route, 4), route.next_timeout(at(6))), (None, Some(at(8))));
    assert_eq!(update(&mut route, 6, leading(12)), route_here(10), "a check is due");
    result(&mut route, 6, StepResult::Succeeded);
    assert_eq!(timeout(&mut route, 9), None);
    assert_eq!(timeout(&mut route, 10), withdraw());
}

#[test]
fn the_route_is_written_again_while_a_withdrawal_may_be_pending() {
    let mut route = routed();
    assert_eq!(timeout(&mut route, 8), withdraw());
    assert!(matches!(update(&mut route, 8, leading(12)), Some(RoutingStep::RouteHere { rewrite: true, .. })));
    result(&mut route, 8, StepResult::Succeeded);
    update(&mut route, 9, leading(1000));
    assert!(matches!(timeout(&mut route, 500), Some(RoutingStep::RouteHere { rewrite: false, .. })));
}

#[test]
fn traffic_is_routed_away_whenever_the_command_ends() {
    for end in [Update::Terminating, Update::Lost(Loss::Taken), Update::CommandGone] {
        let mut route = routed();
        assert_eq!(update(&mut route, 2, end), withdraw());
        assert_eq!(update(&mut route, 2, leading(12)), None, "traffic should not be routed back after a later renewal");
        assert!(route.may_need_withdrawal());
        result(&mut route, 2, StepResult::Succeeded);
        assert!(!route.may_need_withdrawal());
    }
}

#[test]
fn the_end_of_the_withdrawal_is_reported_and_the_route_finishes_with_the_run() {
    let mut route = routed();
    let terminating = RouteInputs { updates: vec![Update::Terminating], result: None };
    let withdrawal = RoutingStep::Withdraw { token: "7".into() };
    assert_eq!(route.step(at(2), terminating), [RouteAction::Begin(withdrawal)]);
    assert_eq!(result(&mut route, 2, StepResult::Succeeded), [RouteAction::Withdrawn]);
    let run_ending = RouteInputs { updates: vec![Update::RunEnding], result: None };
    assert_eq!(route.step(at(3), run_ending), [RouteAction::Finish]);
}

#[test]
fn a_leader_checks_its_route_at_growing_intervals() {
    let mut route = routed();
    update(&mut route, 1, leading(1000));
    let mut checks = vec![1];
    for _ in 0..6 {
        let next = route.next_timeout(at(*checks.last().unwrap())).expect("a check is due");
        let next = next.since(at(0)).as_secs();
        assert!(timeout(&mut route, next).is_some());
        result(&mut route, next, StepResult::Succeeded);
        checks.push(next);
    }
    assert_eq!(checks, [1, 5, 13, 29, 61, 121, 181]);
}

#[test]
fn traffic_is_withdrawn_even_if_the_step_that_routes_it_was_dropped() {
    let mut route = leader_before_the_start();
    assert_eq!(update(&mut route, 1, Update::CommandStarted), route_here(8));
    assert_eq!(update(&mut route, 1, Update::Terminating), withdraw());
}
