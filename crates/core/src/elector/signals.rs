//! The handling of the signals that leaderrun receives.

use core::mem;
use core::time::Duration;

use super::{Elector, ElectorAction, ElectorNotice, ElectorPhase, ExitReason, RELEASE_TIMEOUT, STOP_TIMEOUT};
use crate::instant::Instant;
use crate::messages::Order;
use crate::signal::{ends_candidate, is_relayed, is_termination_signal};

/// The longest time for which a signal that asks the command to stop is deferred while traffic is routed away.
pub const WITHDRAWAL_TIMEOUT: Duration = Duration::from_secs(1);

/// Duplicates of a signal that asks the command to stop count as one signal within this time. A signal that is repeated
/// later is relayed again, because its sender does not want to wait.
pub const REPEAT_WINDOW: Duration = Duration::from_millis(500);

/// A signal that asks the command to stop, and is deferred while traffic is routed away. It is relayed when the
/// withdrawal is finished or not possible, or when another such signal arrives, but no later than `until`.
#[derive(Clone, Debug, Hash)]
pub(super) struct DeferredSignal {
    signal: i32,
    pub(super) until: Instant,
}

impl Elector {
    pub(super) fn handle_signal(&mut self, now: Instant, signal: i32) {
        match &mut self.phase {
            ElectorPhase::Leading { .. } if is_relayed(signal) => self.handle_signal_while_leading(now, signal),
            ElectorPhase::Waiting { claiming } if ends_candidate(signal) => {
                let timeout = if *claiming { RELEASE_TIMEOUT } else { STOP_TIMEOUT };
                self.phase = ElectorPhase::Exiting { reason: ExitReason::Signaled(signal), until: now + timeout };
                self.notify(ElectorNotice::WaitInterrupted(signal));
                self.actions.push(ElectorAction::StopElection);
            }
            ElectorPhase::Exiting { until, .. } if ends_candidate(signal) => {
                *until = (*until).min(now + RELEASE_TIMEOUT);
                self.first_end_request.get_or_insert(signal);
                // If the lock is being released, this shortens the time that the release may still take.
                self.actions.push(ElectorAction::StopElection);
            }
            ElectorPhase::Killing if ends_candidate(signal) => {
                self.first_end_request.get_or_insert(signal);
            }
            _ => {}
        }
    }

    /// Relays a signal to the command, unless it is a duplicate or is deferred while traffic is routed away. A request
    /// to step down is handled as SIGTERM.
    pub(super) fn handle_signal_while_leading(&mut self, now: Instant, signal: i32) {
        let ElectorPhase::Leading { .. } = self.phase else { return };
        let requests_end = self.requests_end(signal);
        if requests_end {
            let is_duplicate =
                |(last_signal, at): (i32, Instant)| signal == last_signal && now.since(at) < REPEAT_WINDOW;
            if self.last_end_request.is_some_and(is_duplicate) {
                return;
            }
            self.last_end_request = Some((signal, now));
        }
        if requests_end && self.first_end_request.is_none() {
            self.first_end_request = Some(signal);
            self.notify(ElectorNotice::TerminationSignal(signal));
        }
        if requests_end && self.routes_traffic {
            if mem::replace(&mut self.is_withdrawing, true) {
                // A second signal means that its sender does not want to wait.
                self.relay_deferred();
            } else {
                self.notify(ElectorNotice::Terminating);
                if self.started {
                    self.deferred = Some(DeferredSignal { signal, until: now + WITHDRAWAL_TIMEOUT });
                    return;
                }
            }
        }
        self.order(Order::Signal(signal));
    }

    /// Returns whether a signal asks the command to stop. The stop signal does, and every termination signal,
    /// except SIGHUP and SIGQUIT once the command has started.
    fn requests_end(&self, signal: i32) -> bool {
        // Many commands reload their configuration on SIGHUP, and some print a stack trace on SIGQUIT.
        let may_continue = self.started && matches!(signal, libc::SIGHUP | libc::SIGQUIT);
        signal == self.stop_signal || (is_termination_signal(signal) && !may_continue)
    }

    /// Relays the deferred signal, if there is one. Drops it if the supervisor has failed or has reported the command
    /// gone.
    pub(super) fn relay_deferred(&mut self) {
        if let (Some(DeferredSignal { signal, .. }), ElectorPhase::Leading { .. }) = (self.deferred.take(), &self.phase)
        {
            self.order(Order::Signal(signal));
        }
    }
}
