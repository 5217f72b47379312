//! The end of a candidacy, and the release of the lock.

use core::time::Duration;

use jiff::Timestamp;

use super::timers::Timer;
use super::{Election, ElectionAction, ElectionPhase, Now, Outcome, min_hold};
use crate::record::Record;

/// How long a candidate that has stopped waiting keeps trying to release a lock that its last claims may have acquired
/// or may still acquire. A leader that is stopped during its release has at most the same time left to complete it.
pub(super) const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

impl Election {
    pub(super) fn handle_command_gone(&mut self, now: Now, succeeded: bool) {
        match &self.phase {
            ElectionPhase::Leading { taken: true, .. } => self.finish(Outcome::Lost),
            ElectionPhase::Leading { record, .. } => {
                let not_before = min_hold::not_before(record, self.config.min_hold).filter(|_| succeeded);
                let timeout = self.config.timing.renew_deadline() / 2;
                self.begin_release(now, timeout, Outcome::Released, Outcome::NotReleased, not_before);
                self.decide(now);
            }
            _ => {}
        }
    }

    /// Ends the candidacy and releases a lock that may just have been acquired. A leader continues until its command is
    /// gone. A release that has already begun gets at most [`RELEASE_TIMEOUT`] more.
    pub(super) fn handle_stop(&mut self, now: Now) {
        match &self.phase {
            ElectionPhase::Waiting => self.stop_waiting(now, Outcome::Stopped),
            ElectionPhase::Releasing { .. } => {
                let latest = now.boot + RELEASE_TIMEOUT;
                let until = self.timers.get(Timer::Release).map_or(latest, |current| current.min(latest));
                self.timers.set(Timer::Release, until);
            }
            ElectionPhase::Leading { .. } | ElectionPhase::Finished => {}
        }
        self.decide(now);
    }

    /// Ends the candidacy with this outcome, after a release if the lock may have been acquired.
    pub(super) fn stop_waiting(&mut self, now: Now, outcome: Outcome) {
        let is_claim_pending = self.pending.as_ref().is_some_and(|pending| pending.write.is_some());
        let is_mine = self.observed.as_ref().is_some_and(|observed| self.observed_is_mine(observed));
        if !is_claim_pending && !is_mine && self.unconfirmed_writes.is_empty() {
            return self.finish(outcome);
        }
        self.drop_watch();
        self.must_read |= !self.unconfirmed_writes.is_empty();
        self.begin_release(now, RELEASE_TIMEOUT, outcome, outcome, None);
        // A pending claim is abandoned early enough to leave time to read its outcome and to release the lock.
        let half_time = now.boot + RELEASE_TIMEOUT / 2;
        if self.timers.get(Timer::RequestTimeout).is_some_and(|at| at > half_time) {
            self.timers.set(Timer::RequestTimeout, half_time);
        }
    }

    fn begin_release(
        &mut self,
        now: Now,
        timeout: Duration,
        on_success: Outcome,
        on_timeout: Outcome,
        not_before: Option<Timestamp>,
    ) {
        self.phase = ElectionPhase::Releasing { on_success, on_timeout, not_before };
        self.timers.set(Timer::Release, now.boot + timeout);
        self.timers.stop(Timer::Send);
    }

    pub(super) fn finish(&mut self, outcome: Outcome) {
        self.phase = ElectionPhase::Finished;
        self.pending = None;
        self.actions.push(ElectionAction::Finish(outcome));
    }

    /// Returns the outcome for a candidate that gives up: `NotAcquired` if the lock was held or could not be acquired
    /// yet, and `Unreachable` if the record could not be read or written.
    pub(super) fn outcome_of_waiting(&self, now: Now) -> Outcome {
        let Some(observed) = &self.observed else { return Outcome::Unreachable };
        let is_mine = self.observed_is_mine(observed);
        let is_held = observed.record().is_some_and(Record::is_held) && !is_mine;
        let must_wait = observed.has_displaced_holder() || (!is_mine && observed.acquirable_at() > now.boot);
        if is_held || must_wait { Outcome::NotAcquired } else { Outcome::Unreachable }
    }
}
