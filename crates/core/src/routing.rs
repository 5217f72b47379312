//! Decides when traffic is routed to this candidate's command, and when it is routed away.
//!
//! [`Route`] is a state machine without I/O. Its driver calls [`Route::step`] with everything that has arrived, carries
//! out the actions in order, and waits for more or for [`Route::next_timeout`]. The driver makes every write a
//! compare-and-swap that contains this leader's fencing token, so a late write cannot overwrite what a later leader has
//! written.
//!
//! # The rules
//!
//! - Traffic is routed to the command after it has started. The withdrawal begins before the command gets the stop
//!   signal, unless the command must be stopped at once.
//! - A candidate that has never led changes nothing.
//! - A routing step that was dropped to begin another may still have been carried out, so traffic is withdrawn even if
//!   the step that routed it was dropped.
//! - A leader checks at growing intervals whether traffic is still routed to its command. Another client may have
//!   routed it elsewhere. A predecessor's late write may also have done so, if it reached an object that this leader
//!   has not written yet.

use alloc::string::String;
use alloc::vec::Vec;
use core::mem;
use core::time::Duration;

use crate::instant::Instant;
use crate::updates::Update;

/// The first interval after which a leader checks whether traffic is routed to its command. The interval is doubled
/// after each check, up to [`LONGEST_CHECK_INTERVAL`].
const FIRST_CHECK_INTERVAL: Duration = Duration::from_secs(4);

const LONGEST_CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// The pause before a failed routing step is retried. The pause is doubled after each further failure, up to
/// [`LONGEST_RETRY_PAUSE`].
const FIRST_RETRY_PAUSE: Duration = Duration::from_millis(100);

const LONGEST_RETRY_PAUSE: Duration = Duration::from_secs(10);

/// The pause before a forbidden routing step is retried. A Role that permits the step may have been added by then.
const FORBIDDEN_PAUSE: Duration = Duration::from_secs(60);

/// Everything that has arrived since the last call to [`Route::step`].
#[derive(Clone, Debug, Default)]
pub struct RouteInputs {
    pub updates: Vec<Update>,
    /// The result of the current routing step.
    pub result: Option<StepResult>,
}

/// An action for the driver of a route to carry out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteAction {
    /// Drop the current routing step, if there is one, and begin this step.
    Begin(RoutingStep),
    /// The withdrawal is finished or forbidden, so the deferred termination signal can now be sent to the command.
    Withdrawn,
    /// The run is over and no traffic is left that could be withdrawn: stop driving this route.
    Finish,
}

/// A change to where traffic is routed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoutingStep {
    /// Route traffic to this candidate, and away from all others.
    RouteHere {
        /// This leader's fencing token.
        token: String,
        /// The step must not write anything after this instant.
        until: Instant,
        /// Whether to write even if traffic is already routed here, because a pending withdrawal may change that.
        rewrite: bool,
    },
    /// Route traffic away from this candidate, which led with this token. Writes of its earlier steps may still arrive.
    Withdraw { token: String },
}

/// The result of a routing step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepResult {
    Succeeded,
    Failed,
    /// The API server does not permit the step.
    Forbidden,
}

/// Where traffic was last known to be routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KnownRoute {
    Here { check_at: Instant },
    Withdrawn,
    Unknown,
}

/// The routing decisions for one candidate, which leads at most once; see the [module](self).
#[derive(Clone, Debug)]
pub struct Route {
    /// How long before the stop signal the withdrawal begins.
    withdrawal_time: Duration,
    /// This leader's fencing token.
    token: Option<String>,
    /// When the stop signal is sent to the command.
    stop: Option<Instant>,
    started: bool,
    /// Whether the command has ended or is about to be stopped. From then on, no traffic is routed to it.
    command_ending: bool,
    run_ending: bool,
    known: KnownRoute,
    under_way: Option<RoutingStep>,
    /// Whether a withdrawal was begun and no step has succeeded since. If so, [`RoutingStep::RouteHere`] must write
    /// even if traffic is already routed here.
    may_be_withdrawn: bool,
    withdrawal_forbidden: bool,
    /// Whether a termination signal is deferred until the withdrawal is finished.
    withdrawal_awaited: bool,
    check_interval: Duration,
    /// The number of routing steps that have failed since one succeeded or an update reset the number.
    failures: u32,
    /// No routing step is begun before this instant.
    retry_at: Option<Instant>,
}

impl Route {
    /// Creates the route of a candidate that does not lead. `withdrawal_time` is the time that is reserved for a
    /// withdrawal.
    pub fn new(withdrawal_time: Duration) -> Self {
        Self {
            withdrawal_time,
            token: None,
            stop: None,
            started: false,
            command_ending: false,
            run_ending: false,
            known: KnownRoute::Unknown,
            under_way: None,
            may_be_withdrawn: false,
            withdrawal_forbidden: false,
            withdrawal_awaited: false,
            check_interval: FIRST_CHECK_INTERVAL,
            failures: 0,
            retry_at: None,
        }
    }

    /// Processes everything that has arrived, then timeouts, and returns the actions to carry out, in order.
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
                RoutingStep::RouteHere { .. } => self.known = KnownRoute::Unknown,
                RoutingStep::Withdraw { .. } => self.may_be_withdrawn = true,
            }
            self.under_way = Some(next.clone());
            actions.push(RouteAction::Begin(next));
        }
        if !self.may_need_withdrawal() {
            if mem::take(&mut self.withdrawal_awaited) {
                actions.push(RouteAction::Withdrawn);
            }
            if self.run_ending {
                actions.push(RouteAction::Finish);
            }
        }
        actions
    }

    /// Returns when to call [`step`](Self::step) next if nothing arrives before then.
    pub fn next_timeout(&self, now: Instant) -> Option<Instant> {
        let check_at = match self.known {
            KnownRoute::Here { check_at } => Some(check_at),
            KnownRoute::Withdrawn | KnownRoute::Unknown => None,
        };
        self.retry_at.into_iter().chain(check_at).chain(self.route_until()).filter(|at| *at > now).min()
    }

    /// Returns whether traffic may still be routed to this candidate and withdrawing it has not been forbidden.
    pub fn may_need_withdrawal(&self) -> bool {
        !self.withdrawal_forbidden && self.token.is_some() && self.known != KnownRoute::Withdrawn
    }

    fn handle_update(&mut self, update: &Update) {
        match update {
            Update::Leading { stop, .. } => return self.stop = Some(*stop),
            Update::Acquired { token, .. } => self.token = Some(token.clone()),
            Update::CommandStarted => self.started = true,
            Update::Terminating => (self.command_ending, self.withdrawal_awaited) = (true, true),
            Update::Lost(_) | Update::CommandGone => self.command_ending = true,
            Update::RunEnding => (self.command_ending, self.run_ending) = (true, true),
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
                FIRST_RETRY_PAUSE.saturating_mul(2_u32.saturating_pow(self.failures)).min(LONGEST_RETRY_PAUSE)
            };
            self.failures += 1;
            self.retry_at = Some(now + pause);
            return;
        }
        (self.failures, self.retry_at, self.may_be_withdrawn) = (0, None, false);
        self.known = match step {
            RoutingStep::RouteHere { .. } => {
                let check_at = now + self.check_interval;
                self.check_interval = (self.check_interval * 2).min(LONGEST_CHECK_INTERVAL);
                KnownRoute::Here { check_at }
            }
            RoutingStep::Withdraw { .. } => KnownRoute::Withdrawn,
        };
    }

    /// Returns the routing step to begin at this instant, if there is one and it is not already under way.
    fn next_step(&self, now: Instant) -> Option<RoutingStep> {
        if self.retry_at.is_some_and(|at| now < at) {
            return None;
        }
        let route_until = self.route_until().filter(|until| now < *until);
        let next = match (route_until, &self.token, self.known) {
            (Some(_), Some(_), KnownRoute::Here { check_at }) if now < check_at => return None,
            (Some(until), Some(token), _) => {
                RoutingStep::RouteHere { token: token.clone(), until, rewrite: self.may_be_withdrawn }
            }
            (_, _, KnownRoute::Withdrawn) => return None,
            // Before the command starts, this leader has routed no traffic to its pod. When its leadership ends,
            // traffic is withdrawn even if the command was never started, because an earlier run in the same pod may
            // have left traffic routed to it.
            (_, Some(token), _) if self.started || self.command_ending => {
                RoutingStep::Withdraw { token: token.clone() }
            }
            _ => return None,
        };
        let is_under_way = |step: &RoutingStep| mem::discriminant(step) == mem::discriminant(&next);
        if self.under_way.as_ref().is_some_and(is_under_way) { None } else { Some(next) }
    }

    /// Returns the instant from which traffic must be routed away, if the command may get traffic until then.
    fn route_until(&self) -> Option<Instant> {
        self.stop.filter(|_| self.started && !self.command_ending).map(|stop| stop - self.withdrawal_time)
    }
}

#[cfg(test)]
mod tests;
