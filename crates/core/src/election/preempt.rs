//! Preemption: a standby asks a less preferred leader to step down.
//!
//! The standby sends the same request as `leaderrun step-down`, once to each leader, after it has been a standby of
//! that leader for a configured time. That time starts again when the candidate restarts or the leader changes, so
//! frequent restarts do not cause frequent requests.

use super::protocol::{ElectionAction, ElectionNotice, Now, Request};
use super::{Election, ObservedRecord};
use crate::instant::Instant;
use crate::record::{MarkState, Record, RunId, RunMark};

/// A leader that is less preferred than this candidate, so this candidate may preempt it.
#[derive(Clone, Debug, Hash)]
pub(super) struct Preemption {
    leader: RunId,
    /// When this candidate became a standby of that leader.
    since: Instant,
    /// Whether this candidate has asked that leader to step down.
    was_asked: bool,
}

impl Election {
    /// Determines from the observed record which leader may be preempted.
    pub(super) fn update_preemption(&mut self, now: Instant) {
        let leader = self.less_preferred_leader().cloned();
        if self.preemption.as_ref().map(|preemption| &preemption.leader) != leader.as_ref() {
            self.preemption = leader.map(|leader| Preemption { leader, since: now, was_asked: false });
        }
    }

    /// Returns when to ask the leader to step down, if this candidate will ask.
    pub(super) fn preempt_at(&self) -> Option<Instant> {
        let after = self.config.preference.preempt_after?;
        let Preemption { since, was_asked, .. } = self.preemption.as_ref().filter(|_| self.is_waiting())?;
        (!was_asked).then(|| *since + after)
    }

    pub(super) fn preempt(&mut self, now: Now) {
        let Some(stored) = self.observed.as_ref().and_then(|observed| observed.stored.clone()) else { return };
        let Some(Preemption { leader, was_asked, .. }) = &mut self.preemption else { return };
        *was_asked = true;
        let request = Record { step_down: Some(leader.clone()), ..stored.record };
        let holder = request.holder_identity.clone();
        // This write is not a claim, so it cannot acquire the lock.
        self.begin_request(now, None);
        self.actions.push(ElectionAction::Notify(ElectionNotice::Preempting { holder }));
        self.actions.push(ElectionAction::Send(Request::Update(stored.version, request)));
    }

    /// Makes the request due again after it failed because the record had changed in the meantime, usually by a
    /// renewal.
    pub(super) fn note_preemption_conflict(&mut self) {
        if let Some(preemption) = &mut self.preemption {
            preemption.was_asked = false;
        }
    }

    /// Returns the run that leads, if it is another run with a longer claim delay.
    fn less_preferred_leader(&self) -> Option<&RunId> {
        let record = self.observed.as_ref().and_then(ObservedRecord::record)?;
        let RunMark { run, state, .. } = record.mark()?;
        let is_led_by_another = *state == MarkState::Held && *run != self.config.run;
        let is_less_preferred = self.config.preference.claim_delay < record.claim_delay();
        (is_led_by_another && is_less_preferred).then_some(run)
    }
}
