//! What a candidate does next, given what it knows.

use alloc::string::String;

use super::observed_record::ObservedRecord;
use super::protocol::{Action, News, Now, Request};
use super::{Attempt, Election, Phase, Watching, Write, herd, next_transitions};
use crate::instant::Instant;
use crate::record::{Record, RunMark, RunState};

impl Election {
    /// Sends what is due.
    pub(super) fn decide(&mut self, now: Now) {
        match self.phase {
            Phase::Waiting => self.decide_waiting(now),
            Phase::Holding { lost: false, .. } => self.decide_holding(now),
            Phase::Releasing { .. } => self.decide_releasing(now),
            Phase::Holding { .. } | Phase::Finished => {}
        }
        let undecided =
            self.attempt.as_ref().is_some_and(|attempt| attempt.write.is_some()) || !self.doubtful.is_empty();
        if self.is_waiting() && self.claiming && !undecided {
            self.claiming = false;
            self.actions.push_back(Action::NotWon);
        }
    }

    fn decide_waiting(&mut self, now: Now) {
        if self.attempt.is_some() {
            return;
        }
        if let Some(observed) = &self.observed
            && let Watching::Closed { reopen_at } = self.watching
            && (now.boot >= reopen_at && self.poll_at.is_none() && !self.must_read)
            && (now.boot < self.claim_at(observed) && !self.is_mine_already(observed))
        {
            let from = observed.stored.as_ref().map(|stored| stored.version.clone());
            self.watching = Watching::Open { since: now.boot };
            self.actions.push_back(Action::Watch(from));
        }
        if now.boot < self.next_request() {
            return;
        }
        let may_claim = |observed: &ObservedRecord| {
            self.is_mine_already(observed) || (observed.is_takeable() && now.boot >= self.claim_at(observed))
        };
        if !self.must_read && self.observed.as_ref().is_some_and(may_claim) {
            self.claim(now);
        } else {
            self.read(now);
        }
    }

    fn decide_holding(&mut self, now: Now) {
        let Phase::Holding { record, .. } = &self.phase else { return };
        if self.attempt.is_some() || now.boot < self.send_at {
            return;
        }
        if self.must_read {
            return self.read(now);
        }
        let renewal = self.written_by_me(record.clone(), RunState::Held, now);
        self.write(now, renewal);
    }

    fn decide_releasing(&mut self, now: Now) {
        let Phase::Releasing { until, done, late, not_before } = self.phase else { return };
        if now.boot >= until {
            return self.finish(late);
        }
        if self.attempt.is_some() || now.boot < self.send_at {
            return;
        }
        if self.must_read {
            return self.read(now);
        }
        match self.observed.as_ref().and_then(ObservedRecord::record).filter(|record| self.is_mine(record)) {
            Some(mine) => {
                let released = Record { holder_identity: String::new(), not_before, ..mine.clone() };
                let released = self.written_by_me(released, RunState::Released, now);
                self.write(now, released);
            }
            None => self.finish(done),
        }
    }

    fn claim(&mut self, now: Now) {
        let observed = self.observed.as_ref().and_then(ObservedRecord::record);
        if let Some(expired) = observed.filter(|record| record.is_held() && !self.is_mine(record)) {
            let holder = expired.holder_identity.clone();
            self.actions.push_back(Action::Tell(News::Expired { holder }));
        }
        let (lease_transitions, fraction) = match observed {
            Some(mine) if self.is_mine(mine) => (mine.lease_transitions, None),
            Some(others) => (next_transitions(others), self.fraction),
            None => (0, self.fraction),
        };
        let experience = herd::Experience {
            fraction: fraction.map(|share| share.0),
            refused_ago: self.refused.map(|refused| lease_transitions.saturating_sub(refused)),
            missed: self.missed,
        };
        let claim = Record {
            holder_identity: self.config.identity.clone(),
            lease_transitions,
            contenders: Some(herd::corrected(self.contenders, experience, lease_transitions)),
            ..Record::default()
        };
        let mut claim = self.written_by_me(claim, RunState::Held, now);
        claim.acquire_time = claim.renew_time;
        if !self.claiming {
            self.claiming = true;
            self.actions.push_back(Action::Claiming);
        }
        self.write(now, claim);
    }

    /// The record as this run writes it next: with its own duration, whatever somebody made of it.
    fn written_by_me(&self, record: Record, state: RunState, now: Now) -> Record {
        let observed = self.observed.as_ref().and_then(ObservedRecord::record).and_then(|record| record.renew_time);
        let renew_time = Record::next_renew_time(observed.max(self.last_renew_time), now.wall);
        let run = Some(RunMark { run: self.config.run.clone(), state, renew_time });
        let lease_duration_seconds = u32::try_from(self.config.timing.lease_duration().as_secs()).ok();
        Record { lease_duration_seconds, renew_time: Some(renew_time), run, step_down: None, ..record }
    }

    fn read(&mut self, now: Now) {
        self.attempt = Some(Attempt { sent: now.boot, write: None });
        self.actions.push_back(Action::Send(Request::Get));
    }

    fn write(&mut self, now: Now, record: Record) {
        let base =
            self.observed.as_ref().and_then(|observed| observed.stored.as_ref()).map(|stored| stored.version.clone());
        self.last_renew_time = record.renew_time;
        let Record { lease_transitions: transitions, renew_time, .. } = record;
        let write = Write { base: base.clone(), transitions, renew_time, sent: now.boot };
        self.attempt = Some(Attempt { sent: now.boot, write: Some(write) });
        self.actions.push_back(Action::Send(match base {
            Some(version) => Request::Update(version, record),
            None => Request::Create(record),
        }));
    }

    /// When this candidate takes what it may take: many do not do so at the same instant.
    fn claim_at(&self, observed: &ObservedRecord) -> Instant {
        let longest = self.config.timing.lease_duration() / 2;
        observed.takeable_at() + herd::spread(self.contenders, longest).mul_f64(self.fraction.unwrap_or_default().0)
    }

    /// When the next request is due, if nothing happens until then.
    pub(super) fn next_request(&self) -> Instant {
        match &self.observed {
            Some(observed) if self.is_waiting() && !self.must_read && !self.is_mine_already(observed) => {
                let look_at = match self.watching {
                    Watching::Open { .. } => None,
                    Watching::Closed { reopen_at } => Some(self.poll_at.unwrap_or(reopen_at)),
                };
                let claim_at = self.claim_at(observed);
                look_at.map_or(claim_at, |look_at| look_at.min(claim_at)).max(self.send_at)
            }
            _ => self.send_at,
        }
    }

    /// When a candidate gives up.
    pub(super) fn waits_until(&self) -> Option<Instant> {
        let wait = self.config.wait?;
        if !wait.is_zero() {
            return Some(self.started + wait);
        }
        // A dead holder's time is waited out, an API server that does not answer is not.
        let takeable_at = self.observed.as_ref().map(ObservedRecord::takeable_at);
        Some(takeable_at.map_or(self.heard, |at| at.max(self.heard)) + self.config.timing.lease_duration())
    }
}
