//! The decisions about traffic: when it is routed to this candidate's command, and when away from it.
//!
//! [`Route`] is a state machine without I/O. Its driver calls [`Route::step`] with what has happened, carries out the
//! actions in order, and waits for more or for [`Route::next_timeout`]. What it writes to the cluster is a
//! compare-and-swap that names the leadership, so a write that arrives late changes nothing.
//!
//! # The rules
//!
//! - Traffic is routed to a command that has started, and away from it before the command is told to stop.
//! - A candidate that has never led changes nothing.
//! - A step that was given up may have been carried out.
//! - A leader looks again, less and less often, whether traffic is still routed to it: what a predecessor had sent may
//!   have come late.

use alloc::string::String;
use alloc::vec::Vec;
use core::mem;
use core::time::Duration;

use crate::instant::Instant;
use crate::updates::Update;

/// How long after routing traffic here a leader looks again, the first time and at most. Doubled after each look.
const CHECK_INTERVALS: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(60));

/// The pause before a failed step is tried again, the first time and at most. Doubled after each failure.
const RETRY_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// The pause before a step is tried again that is not allowed: a Role may be added later.
const FORBIDDEN_PAUSE: Duration = Duration::from_secs(60);

/// Everything that has happened since the last step.
#[derive(Clone, Debug, Default)]
pub struct RouteInputs {
    pub updates: Vec<Update>,
    /// How the step under way ended.
    pub result: Option<StepResult>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteAction {
    /// Begin this step, and drop the one under way.
    Begin(RoutingStep),
    /// Traffic was routed away from a command that is to end, or cannot be: the command's end need not wait.
    Withdrawn,
    /// There is nothing more to do.
    Finish,
}

/// A change of where traffic is routed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoutingStep {
    /// Route traffic here, and away from everybody else.
    Show {
        /// The fencing token of the leadership.
        token: String,
        /// Nothing is written after this instant.
        until: Instant,
        /// Write even if traffic seems to be routed here: it may just be routed away.
        rewrite: bool,
    },
    /// Route traffic away from here, after the leadership with this token. A write of it may still be on its way.
    Withdraw { token: String },
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepResult {
    Succeeded,
    Failed,
    /// It is not allowed.
    Forbidden,
}

/// Where traffic is routed, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Shown { check_at: Instant },
    Withdrawn,
    Unknown,
}

/// The decisions about the traffic of one candidate, which leads once at most; see the [module](self).
#[derive(Clone, Debug)]
pub struct Route {
    /// How long before the stop of the command traffic is routed away: a request takes its time.
    withdrawal_time: Duration,
    /// The fencing token of the leadership.
    token: Option<String>,
    stop: Option<Instant>,
    started: bool,
    /// The command was told to stop, or is about to be.
    ending: bool,
    exiting: bool,
    known: Known,
    under_way: Option<RoutingStep>,
    /// A withdrawal was begun and not seen to end.
    may_be_withdrawn: bool,
    withdrawal_forbidden: bool,
    /// The command's end waits for the withdrawal.
    awaited: bool,
    check_interval: Duration,
    /// Steps in a row that failed.
    failures: u32,
    /// The next step is not begun before this.
    retry_at: Option<Instant>,
}

impl Route {
    /// Creates the decisions of a candidate that does not lead. `withdrawal_time` is how long routing traffic away may
    /// take.
    pub fn new(withdrawal_time: Duration) -> Self {
        Self {
            withdrawal_time,
            token: None,
            stop: None,
            started: false,
            ending: false,
            exiting: false,
            known: Known::Unknown,
            under_way: None,
            may_be_withdrawn: false,
            withdrawal_forbidden: false,
            awaited: false,
            check_interval: CHECK_INTERVALS.0,
            failures: 0,
            retry_at: None,
        }
    }

    /// Takes in everything that has happened, then the time, and returns what to do, in order.
    pub fn step(&mut self, now: Instant, inputs: RouteInputs) -> Vec<RouteAction> {
        let mut actions = Vec::new();
        for update in &inputs.updates {
            self.handle_update(update);
        }
        if let Some(result) = inputs.result {
            self.handle_result(now, result);
        }
        if let Some(next) = self.next_step(now) {
            match next {
                RoutingStep::Show { .. } => self.known = Known::Unknown,
                RoutingStep::Withdraw { .. } => self.may_be_withdrawn = true,
            }
            self.under_way = Some(next.clone());
            actions.push(RouteAction::Begin(next));
        }
        if !self.may_be_routed() {
            if mem::take(&mut self.awaited) {
                actions.push(RouteAction::Withdrawn);
            }
            if self.exiting {
                actions.push(RouteAction::Finish);
            }
        }
        actions
    }

    /// Returns when [`step`](Self::step) is to be called if nothing happens until then.
    pub fn next_timeout(&self, now: Instant) -> Option<Instant> {
        let check_at = match self.known {
            Known::Shown { check_at } => Some(check_at),
            Known::Withdrawn | Known::Unknown => None,
        };
        self.retry_at.into_iter().chain(check_at).chain(self.shown_until()).filter(|at| *at > now).min()
    }

    /// Returns whether this candidate may still have traffic, and something can be done about that.
    pub fn may_be_routed(&self) -> bool {
        !self.withdrawal_forbidden && self.token.is_some() && self.known != Known::Withdrawn
    }

    fn handle_update(&mut self, update: &Update) {
        match update {
            Update::Leading { stop, .. } => return self.stop = Some(*stop),
            Update::Acquired { token, .. } => self.token = Some(token.clone()),
            Update::CommandStarted => self.started = true,
            Update::Terminating => (self.ending, self.awaited) = (true, true),
            Update::Lost(_) | Update::CommandGone => self.ending = true,
            Update::Exiting => (self.ending, self.exiting) = (true, true),
            _ => return,
        }
        (self.failures, self.retry_at) = (0, None);
    }

    fn handle_result(&mut self, now: Instant, result: StepResult) {
        let Some(step) = self.under_way.take() else { return };
        self.withdrawal_forbidden = result == StepResult::Forbidden && matches!(step, RoutingStep::Withdraw { .. });
        if result != StepResult::Succeeded {
            let pause = if result == StepResult::Forbidden {
                FORBIDDEN_PAUSE
            } else {
                RETRY_PAUSES.0.saturating_mul(2_u32.saturating_pow(self.failures)).min(RETRY_PAUSES.1)
            };
            self.failures += 1;
            self.retry_at = Some(now + pause);
            return;
        }
        (self.failures, self.retry_at, self.may_be_withdrawn) = (0, None, false);
        self.known = match step {
            RoutingStep::Show { .. } => {
                let check_at = now + self.check_interval;
                self.check_interval = (self.check_interval * 2).min(CHECK_INTERVALS.1);
                Known::Shown { check_at }
            }
            RoutingStep::Withdraw { .. } => Known::Withdrawn,
        };
    }

    /// Returns the step to begin at this instant, unless one of its kind is under way.
    fn next_step(&self, now: Instant) -> Option<RoutingStep> {
        if self.retry_at.is_some_and(|at| now < at) {
            return None;
        }
        let shown_until = self.shown_until().filter(|until| now < *until);
        let next = match (shown_until, &self.token, self.known) {
            (Some(_), Some(_), Known::Shown { check_at }) if now < check_at => return None,
            (Some(until), Some(token), _) => {
                RoutingStep::Show { token: token.clone(), until, rewrite: self.may_be_withdrawn }
            }
            (_, _, Known::Withdrawn) => return None,
            // Before the start, traffic is left where a predecessor routed it.
            (_, Some(token), _) if self.started || self.ending => RoutingStep::Withdraw { token: token.clone() },
            _ => return None,
        };
        let is_under_way = |step: &RoutingStep| mem::discriminant(step) == mem::discriminant(&next);
        if self.under_way.as_ref().is_some_and(is_under_way) { None } else { Some(next) }
    }

    fn shown_until(&self) -> Option<Instant> {
        self.stop.filter(|_| self.started && !self.ending).map(|stop| stop - self.withdrawal_time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::updates::Loss;

    const WITHDRAWAL_TIME: Duration = Duration::from_secs(2);

    fn at(seconds: u64) -> Instant {
        Instant::after_boot(Duration::from_secs(seconds))
    }

    fn leading(stop: u64) -> Update {
        Update::Leading { stop: at(stop), gone: at(stop + 3) }
    }

    fn show(until: u64) -> Option<RoutingStep> {
        Some(RoutingStep::Show { token: "7".into(), until: at(until), rewrite: false })
    }

    fn withdraw() -> Option<RoutingStep> {
        Some(RoutingStep::Withdraw { token: "7".into() })
    }

    fn acquired() -> Update {
        Update::Acquired { token: "7".into(), uids: Vec::new() }
    }

    /// The step that is begun, if any.
    fn begun(actions: Vec<RouteAction>) -> Option<RoutingStep> {
        actions.into_iter().find_map(|action| if let RouteAction::Begin(step) = action { Some(step) } else { None })
    }

    fn update(route: &mut Route, now: u64, update: Update) -> Option<RoutingStep> {
        begun(route.step(at(now), RouteInputs { updates: vec![update], result: None }))
    }

    fn result(route: &mut Route, now: u64, result: StepResult) -> Vec<RouteAction> {
        route.step(at(now), RouteInputs { updates: Vec::new(), result: Some(result) })
    }

    fn time(route: &mut Route, now: u64) -> Option<RoutingStep> {
        begun(route.step(at(now), RouteInputs::default()))
    }

    fn started() -> Route {
        let mut route = Route::new(WITHDRAWAL_TIME);
        for before in [acquired(), leading(10)] {
            assert_eq!(update(&mut route, 1, before), None);
        }
        route
    }

    /// A leader to which traffic is routed since the first second; its command is stopped in the tenth.
    fn shown() -> Route {
        let mut route = started();
        assert_eq!(update(&mut route, 1, Update::CommandStarted), show(8));
        assert_eq!(result(&mut route, 1, StepResult::Succeeded), []);
        route
    }

    #[test]
    fn a_candidate_that_waits_changes_nothing() {
        let mut route = Route::new(WITHDRAWAL_TIME);
        assert_eq!((time(&mut route, 0), route.next_timeout(at(0))), (None, None));
        for end in [Update::Lost(Loss::Taken), Update::Exiting] {
            assert_eq!(update(&mut route, 1, end), None);
        }
    }

    #[test]
    fn a_step_that_is_not_allowed_is_tried_again_after_a_minute() {
        let mut route = shown();
        assert_eq!(update(&mut route, 2, Update::Terminating), withdraw());
        assert_eq!(result(&mut route, 2, StepResult::Forbidden), [RouteAction::Withdrawn], "nobody waits for it");
        assert_eq!((time(&mut route, 61), route.next_timeout(at(61))), (None, Some(at(62))));
        assert_eq!(time(&mut route, 62), withdraw());
    }

    #[test]
    fn a_step_that_fails_is_tried_less_and_less_often_until_something_happens() {
        let mut route = shown();
        assert_eq!(update(&mut route, 2, Update::Terminating), withdraw());
        let mut pauses = Vec::new();
        for try_number in 0..12 {
            let now = 1000 * (try_number + 1);
            assert_eq!(begun(result(&mut route, now, StepResult::Failed)), None);
            pauses.push(route.next_timeout(at(now)).expect("another try").since(at(now)).as_millis());
            assert_eq!(time(&mut route, now + 500), withdraw());
        }
        assert_eq!(pauses[..4], [100, 200, 400, 800]);
        assert_eq!(pauses[11], 10_000);
        result(&mut route, 13_000, StepResult::Failed);
        assert_eq!(update(&mut route, 13_000, Update::Exiting), withdraw());
    }

    #[test]
    fn traffic_is_routed_to_a_command_that_has_started() {
        let mut route = started();
        assert_eq!(update(&mut route, 1, Update::CommandStarted), show(8));
    }

    #[test]
    fn traffic_is_routed_away_before_the_stop_unless_a_renewal_comes() {
        let mut route = shown();
        assert_eq!((time(&mut route, 4), route.next_timeout(at(6))), (None, Some(at(8))));
        assert_eq!(update(&mut route, 6, leading(12)), show(10), "a check is due");
        result(&mut route, 6, StepResult::Succeeded);
        assert_eq!(time(&mut route, 9), None);
        assert_eq!(time(&mut route, 10), withdraw());
    }

    #[test]
    fn traffic_that_may_just_be_routed_away_is_routed_here_by_another_write() {
        let mut route = shown();
        assert_eq!(time(&mut route, 8), withdraw());
        assert!(matches!(update(&mut route, 8, leading(12)), Some(RoutingStep::Show { rewrite: true, .. })));
        result(&mut route, 8, StepResult::Succeeded);
        update(&mut route, 9, leading(1000));
        assert!(matches!(time(&mut route, 500), Some(RoutingStep::Show { rewrite: false, .. })));
    }

    #[test]
    fn traffic_is_routed_away_whenever_the_command_ends() {
        for end in [Update::Terminating, Update::Lost(Loss::Taken), Update::CommandGone] {
            let mut route = shown();
            assert_eq!(update(&mut route, 2, end), withdraw());
            assert_eq!(update(&mut route, 2, leading(12)), None, "renewals keep the lock, not the command");
            assert!(route.may_be_routed());
            result(&mut route, 2, StepResult::Succeeded);
            assert!(!route.may_be_routed());
        }
    }

    #[test]
    fn the_end_of_the_command_waits_for_the_withdrawal() {
        let mut route = shown();
        let terminating = RouteInputs { updates: vec![Update::Terminating], result: None };
        let withdrawal = RoutingStep::Withdraw { token: "7".into() };
        assert_eq!(route.step(at(2), terminating), [RouteAction::Begin(withdrawal)]);
        assert_eq!(result(&mut route, 2, StepResult::Succeeded), [RouteAction::Withdrawn]);
        let exiting = RouteInputs { updates: vec![Update::Exiting], result: None };
        assert_eq!(route.step(at(3), exiting), [RouteAction::Finish]);
    }

    #[test]
    fn a_leader_looks_again_less_and_less_often() {
        let mut route = shown();
        update(&mut route, 1, leading(1000));
        let mut checks = vec![1];
        for _ in 0..6 {
            let next = route.next_timeout(at(*checks.last().unwrap())).expect("a check");
            let next = next.since(at(0)).as_secs();
            assert!(time(&mut route, next).is_some());
            result(&mut route, next, StepResult::Succeeded);
            checks.push(next);
        }
        assert_eq!(checks, [1, 5, 13, 29, 61, 121, 181]);
    }

    #[test]
    fn a_step_that_was_given_up_may_have_been_carried_out() {
        let mut route = started();
        assert_eq!(update(&mut route, 1, Update::CommandStarted), show(8));
        assert_eq!(update(&mut route, 1, Update::Terminating), withdraw());
    }
}
