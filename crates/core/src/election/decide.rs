//! Decides what a candidate sends next, and when.

use alloc::string::String;
use core::time::Duration;

use super::observed_record::ObservedRecord;
use super::protocol::{ElectionAction, ElectionNotice, Now, Request};
use super::timers::Timer;
use super::{Election, ElectionPhase, FIRST_REPLY_TIMEOUT, PendingRequest, SILENT_WATCH_LIMIT, WatchState, Write};
use crate::instant::Instant;
use crate::record::{MarkState, Record, RunMark, to_microseconds};

impl Election {
    /// Sends the next request and opens the watch if they are due, and reports the claim if it has failed.
    pub(super) fn decide(&mut self, now: Now) {
        match self.phase {
            ElectionPhase::Waiting => self.decide_waiting(now),
            ElectionPhase::Leading { taken: false, .. } => self.decide_leading(now),
            ElectionPhase::Releasing { .. } => self.decide_releasing(now),
            ElectionPhase::Leading { .. } | ElectionPhase::Finished => {}
        }
        self.report_failed_claim();
    }

    /// Reports that the claim has failed, once no write of this run can still acquire the lock.
    fn report_failed_claim(&mut self) {
        let is_claim_pending = self.pending.as_ref().is_some_and(|pending| pending.write.is_some());
        let may_still_acquire = is_claim_pending || !self.unconfirmed_writes.is_empty();
        if self.is_waiting() && self.claiming && !may_still_acquire {
            self.claiming = false;
            self.actions.push(ElectionAction::ClaimFailed);
        }
    }

    fn decide_waiting(&mut self, now: Now) {
        if self.pending.is_some() {
            return;
        }
        self.open_watch_if_due(now);
        if self.next_request_at().is_none_or(|at| now.boot < at) {
            return;
        }
        if !self.must_read && self.preempt_at().is_some_and(|at| now.boot >= at) {
            return self.preempt(now);
        }
        let is_claim_due = |observed: &ObservedRecord| {
            let may_acquire = observed.is_acquirable() && self.claim_at(observed).is_some_and(|at| now.boot >= at);
            // If the record already names this run but no tenure has begun, for example because the reply to the claim
            // was late, the lock is claimed again at once.
            may_acquire || self.already_holds(observed)
        };
        if !self.must_read && self.observed.as_ref().is_some_and(is_claim_due) {
            self.claim(now);
        } else {
            self.read(now);
        }
    }

    fn open_watch_if_due(&mut self, now: Now) {
        let Some(observed) = &self.observed else { return };
        let is_due = self.timers.get(Timer::ReopenWatch).is_none_or(|at| now.boot >= at);
        let must_wait = self.claim_at(observed).is_none_or(|at| now.boot < at) && !self.already_holds(observed);
        if self.watch == WatchState::Closed
            && is_due
            && must_wait
            && !self.must_read
            && self.timers.get(Timer::Poll).is_none()
        {
            let last_version = observed.stored.as_ref().map(|stored| stored.version.clone());
            self.watch = WatchState::Open { since: now.boot };
            self.timers.set(Timer::SilentWatch, now.boot + SILENT_WATCH_LIMIT);
            self.watch_events_are_stale = true;
            self.actions.push(ElectionAction::Watch(last_version));
        }
    }

    fn decide_leading(&mut self, now: Now) {
        let ElectionPhase::Leading { record, .. } = &self.phase else { return };
        if self.pending.is_some() || now.boot < self.send_at() {
            return;
        }
        if self.must_read {
            return self.read(now);
        }
        let renewal = self.with_own_fields(record.clone(), MarkState::Held, now);
        self.write(now, renewal);
    }

    fn decide_releasing(&mut self, now: Now) {
        let ElectionPhase::Releasing { on_success, on_timeout, not_before } = self.phase else { return };
        if self.timers.has_expired(Timer::Release, now.boot) {
            return self.finish(on_timeout);
        }
        if self.pending.is_some() || now.boot < self.send_at() {
            return;
        }
        if self.must_read {
            return self.read(now);
        }
        match self.observed.as_ref().and_then(ObservedRecord::record).filter(|record| self.is_mine(record)) {
            Some(mine) => {
                let released = Record { holder_identity: String::new(), not_before, ..mine.clone() };
                let released = self.with_own_fields(released, MarkState::Released, now);
                self.write(now, released);
            }
            None => self.finish(on_success),
        }
    }

    fn claim(&mut self, now: Now) {
        let observed = self.observed.as_ref().and_then(ObservedRecord::record);
        if let Some(expired) = observed.filter(|record| record.is_held() && !self.is_mine(record)) {
            let holder = expired.holder_identity.clone();
            self.actions.push(ElectionAction::Notify(ElectionNotice::Expired { holder }));
        }
        // A claim of a lock that this run already holds was not delayed, so it shows nothing about the number of
        // contenders.
        let (lease_transitions, has_waited) = match observed {
            Some(mine) if self.is_mine(mine) => (mine.lease_transitions, false),
            Some(previous) => (next_transitions(previous), true),
            None => (0, true),
        };
        let claim = Record {
            holder_identity: self.config.identity.clone(),
            lease_transitions,
            replaced_version: self.observed_version().map(|version| version.resource_version.clone()),
            contenders: Some(self.claims.corrected_estimate(lease_transitions, has_waited)),
            ..Record::default()
        };
        let mut claim = self.with_own_fields(claim, MarkState::Held, now);
        // Unlike `renewTime`, `acquireTime` may be earlier than in the previous record, whose writer's clock may be
        // ahead.
        claim.acquire_time = Some(to_microseconds(now.wall));
        if !self.claiming {
            self.claiming = true;
            self.actions.push(ElectionAction::Claiming);
        }
        self.write(now, claim);
    }

    /// Returns `record` with the fields that every claim, renewal and release of this run sets. The lease duration is
    /// always the configured one, even if another client has edited it in the stored record.
    fn with_own_fields(&self, record: Record, state: MarkState, now: Now) -> Record {
        let observed = self.observed.as_ref().and_then(ObservedRecord::record);
        let observed_renew_time = observed.and_then(|record| record.renew_time);
        let previous = observed_renew_time.max(self.own_renew_times.back().copied());
        let renew_time = Record::next_renew_time(previous, now.wall);
        let run = Some(RunMark { run: self.config.run.clone(), state, renew_time });
        let lease_duration_seconds = u32::try_from(self.config.timing.lease_duration().as_secs()).ok();
        let claim_delay = self.config.preference.claim_delay;
        let retry_period_millis = u64::try_from(self.config.timing.retry_period().as_millis()).ok();
        Record {
            lease_duration_seconds,
            retry_period_millis,
            claim_delay_millis: u64::try_from(claim_delay.as_millis()).ok().filter(|millis| *millis > 0),
            slot: self.slot,
            renew_time: Some(renew_time),
            run,
            forced: None,
            step_down: None,
            ..record
        }
    }

    fn read(&mut self, now: Now) {
        self.begin_request(now, None);
        self.actions.push(ElectionAction::Send(Request::Get));
    }

    /// Sends `record`. The write's `sent_at` is T0: the instant just before the request is sent.
    fn write(&mut self, now: Now, record: Record) {
        let base = self.observed_version().cloned();
        self.remember_own_write(record.renew_time);
        let Record { lease_transitions: transitions, renew_time, .. } = record;
        self.begin_request(now, Some(Write { base: base.clone(), transitions, renew_time, sent_at: now.boot }));
        self.actions.push(ElectionAction::Send(match base {
            Some(version) => Request::Update(version, record),
            None => Request::Create(record),
        }));
    }

    /// Records a pending request, and sets its timeout.
    pub(super) fn begin_request(&mut self, now: Now, write: Option<Write>) {
        let timeout = self.request_timeout(write.as_ref());
        self.pending = Some(PendingRequest { write, is_overtaken: false });
        self.timers.set(Timer::RequestTimeout, now.boot + timeout);
    }

    /// Returns the timeout of a request. For a standby's reads and requests to step down, it doubles each time one of
    /// them fails, up to the lease duration: the API server may just be slow, and a standby can safely wait.
    fn request_timeout(&self, write: Option<&Write>) -> Duration {
        let timing = &self.config.timing;
        if write.is_none() && self.is_waiting() {
            let doubled = timing.request_timeout().saturating_mul(1 << self.failed_reads.min(16));
            doubled.min(timing.lease_duration().max(timing.request_timeout()))
        } else {
            timing.request_timeout()
        }
    }

    /// Returns when this candidate claims the lock: once the lock may be acquired and this candidate's delays have
    /// passed. Returns `None` if claims are not allowed.
    fn claim_at(&self, observed: &ObservedRecord) -> Option<Instant> {
        let delay = self.claims.delay(self.config.timing.lease_duration() / 2);
        self.may_claim.then(|| observed.acquirable_at() + self.config.preference.claim_delay + delay)
    }

    /// Returns the earliest instant at which the next request may be sent; an instant in the past if there is no pause.
    fn send_at(&self) -> Instant {
        self.timers.get(Timer::Send).unwrap_or(self.started)
    }

    /// Returns when the next request or watch is due if nothing arrives before then.
    pub(super) fn next_request_at(&self) -> Option<Instant> {
        match &self.observed {
            Some(observed) if self.is_waiting() && !self.must_read && !self.already_holds(observed) => {
                let read_at = match self.watch {
                    WatchState::Open { .. } => self.timers.get(Timer::SilentWatch),
                    WatchState::Closed => {
                        let reopen_at = self.timers.get(Timer::ReopenWatch).unwrap_or(self.started);
                        Some(self.timers.get(Timer::Poll).unwrap_or(reopen_at))
                    }
                };
                let next = read_at.into_iter().chain(self.claim_at(observed)).chain(self.preempt_at()).min()?;
                Some(next.max(self.send_at()))
            }
            _ => Some(self.send_at()),
        }
    }

    /// Returns when this candidate gives up waiting; `None` if it never does.
    pub(super) fn waits_until(&self) -> Option<Instant> {
        let wait = self.config.wait?;
        if !wait.is_zero() {
            return Some(self.started + wait);
        }
        let lease_duration = self.config.timing.lease_duration();
        // Even with a wait of zero, a dead holder's record gets time to expire, and a claim gets time to succeed. Until
        // the first reply, no holder is known, so the time is shorter.
        Some(match &self.observed {
            Some(observed) => {
                observed.acquirable_at().max(self.last_usable_reply)
                    + self.config.preference.claim_delay
                    + lease_duration
            }
            None => self.last_usable_reply + lease_duration.min(FIRST_REPLY_TIMEOUT),
        })
    }
}

/// Returns `leaseTransitions` for the acquisition after the one in this record.
fn next_transitions(record: &Record) -> u32 {
    record.lease_transitions.saturating_add(1).min(i32::MAX as u32)
}
