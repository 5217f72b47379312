//! A standby asks a leader to step down that it comes before.
//!
//! It does so once a leader, by the request of `leaderrun step-down`, and only after it has been a standby of that
//! leader for a time. A candidate that starts again counts from then, and so does everybody when the leader changes: so
//! leaders that flap are asked at most once in that time.

use super::protocol::{ElectionAction, ElectionNotice, Now, Request};
use super::{Election, ObservedRecord};
use crate::instant::Instant;
use crate::record::{Record, RunId, RunMark, RunState};

/// A leader that this candidate comes before.
#[derive(Clone, Debug, Hash)]
pub(super) struct Preemption {
    leader: RunId,
    /// Since when this candidate is its standby.
    since: Instant,
    was_asked: bool,
}

impl Election {
    /// Notes who leads now.
    pub(super) fn follow_leader(&mut self, now: Instant) {
        let leader = self.less_preferred_leader().cloned();
        if self.preemption.as_ref().map(|preemption| &preemption.leader) != leader.as_ref() {
            self.preemption = leader.map(|leader| Preemption { leader, since: now, was_asked: false });
        }
    }

    /// Returns when the leader is to be asked to step down, if it is.
    pub(super) fn preempt_at(&self) -> Option<Instant> {
        let after = self.config.preference.preempt_after?;
        let Preemption { since, was_asked, .. } = self.preemption.as_ref().filter(|_| self.is_waiting())?;
        (!was_asked).then(|| *since + after)
    }

    /// Asks the leader to step down.
    pub(super) fn preempt(&mut self, now: Now) {
        let Some(stored) = self.observed.as_ref().and_then(|observed| observed.stored.clone()) else { return };
        let Some(Preemption { leader, was_asked, .. }) = &mut self.preemption else { return };
        *was_asked = true;
        let asking = Record { step_down: Some(leader.clone()), ..stored.record };
        let holder = asking.holder_identity.clone();
        // No claim: nothing is held by it, whatever becomes of it.
        self.begin_attempt(now, None);
        self.actions.push(ElectionAction::Notify(ElectionNotice::Preempting { holder }));
        self.actions.push(ElectionAction::Send(Request::Update(stored.version, asking)));
    }

    /// The request was refused because the leader has renewed meanwhile, so it is sent again.
    pub(super) fn ask_again(&mut self) {
        if let Some(preemption) = &mut self.preemption {
            preemption.was_asked = false;
        }
    }

    fn less_preferred_leader(&self) -> Option<&RunId> {
        let record = self.observed.as_ref().and_then(ObservedRecord::record)?;
        let RunMark { run, state, .. } = record.mark()?;
        let is_led_by_another = *state == RunState::Held && *run != self.config.run;
        let is_preferred = self.config.preference.claim_delay < record.claim_delay();
        (is_led_by_another && is_preferred).then_some(run)
    }
}
