//! Handles replies, and the records that the watch delivers: updates the candidate's phase and what it knows about the
//! record.

use core::time::Duration;

use super::observed_record::{ObservedRecord, precedes};
use super::protocol::{ElectionAction, ElectionNotice, Leadership, Now, Outcome, Reply};
use super::timers::Timer;
use super::{
    Election, ElectionPhase, SILENT_WATCH_LIMIT, WatchState, Write, ZERO_WAIT_MAX_FAILED_READS, ZERO_WAIT_MAX_REFUSALS,
};
use crate::instant::Instant;
use crate::record::{Record, RunId, Stored, Version};
use crate::tenure::Tenure;

/// After more than this many conflicts without a successful write, the next request is delayed, because another client
/// keeps writing.
const MAX_CONFLICTS_WITHOUT_PAUSE: u32 = 3;

/// The maximum number of unconfirmed writes that are remembered. If a write acquires the lock after it was forgotten,
/// this candidate writes the record again to confirm it.
const MAX_UNCONFIRMED_WRITES: usize = 16;

impl Election {
    /// Processes the reply to the pending request.
    pub(super) fn apply_reply(&mut self, now: Now, reply: Reply) {
        let Some(request) = self.pending.take() else { return };
        self.timers.stop(Timer::RequestTimeout);
        if !matches!(reply, Reply::Refused { .. } | Reply::Unknown { .. }) {
            (self.last_usable_reply, self.refusals, self.failed_reads) = (now.boot, 0, 0);
        }
        match reply {
            Reply::Read(stored) => {
                self.must_read = false;
                // A read is outdated if the watch has already delivered a later version.
                let is_outdated = request.is_overtaken
                    && stored
                        .as_ref()
                        .zip(self.observed_version())
                        .is_some_and(|(read, seen)| is_older(&read.version, seen));
                if let Some(observed) = self.observed.as_mut().filter(|_| !is_outdated) {
                    observed.note_hidden_changes(now, &stored);
                }
                let changed = !is_outdated && self.observe(now, stored);
                if changed && matches!(self.watch, WatchState::Open { .. }) {
                    // The watch has not delivered this change, so a new watch is opened. The event may merely be late,
                    // but the watch may also be dead. Or a backup was restored, and the watch waits for changes after a
                    // version that is now in the future.
                    self.drop_watch();
                } else if matches!(self.watch, WatchState::Open { .. }) {
                    self.timers.set(Timer::SilentWatch, now.boot + SILENT_WATCH_LIMIT);
                }
                let reopens_later = self.timers.get(Timer::ReopenWatch).is_some_and(|at| at > now.boot);
                if self.watch == WatchState::Closed && reopens_later {
                    let poll_at = now.boot + self.draw_retry_pause();
                    self.timers.set(Timer::Poll, poll_at);
                } else {
                    self.timers.stop(Timer::Poll);
                }
            }
            Reply::Written(stored) => {
                self.conflicts = 0;
                // Every write has a new `renewTime`. If an admission webhook undoes this change, the API server stores
                // nothing and returns the stored version. Standbys see no renewal, so the write does not count as one.
                let nothing_written =
                    request.write.as_ref().is_some_and(|write| write.base.as_ref() == Some(&stored.version));
                let has_shortened_duration =
                    self.is_mine(&stored.record) && !self.has_full_lease_duration(&stored.record);
                if nothing_written || has_shortened_duration {
                    self.must_read = true;
                    self.back_off(now.boot, None);
                } else {
                    self.unconfirmed_writes.extend(request.write);
                    self.observe(now, Some(stored));
                }
            }
            Reply::Conflict => {
                self.must_read = true;
                self.timers.stop(Timer::Send);
                if self.is_waiting() {
                    match &request.write {
                        Some(claim) => self.claims.note_conflict(claim.transitions),
                        None => self.note_preemption_conflict(),
                    }
                }
                // A proxy may have sent the write twice: the first request succeeded, and this is the reply to the
                // second. The next read shows whether that happened.
                self.remember_unconfirmed(request.write);
                self.conflicts += 1;
                if self.conflicts > MAX_CONFLICTS_WITHOUT_PAUSE {
                    self.back_off(now.boot, None);
                }
            }
            Reply::Refused { retry_after } => {
                self.refusals += 1;
                if self.is_waiting() && self.has_zero_wait() && self.refusals >= ZERO_WAIT_MAX_REFUSALS {
                    return self.stop_waiting(now, Outcome::Unreachable);
                }
                self.back_off(now.boot, retry_after);
            }
            Reply::Unknown { retry_after } => {
                if request.write.is_none() {
                    self.failed_reads = self.failed_reads.saturating_add(1);
                }
                let knows_nothing = self.is_waiting() && self.observed.is_none();
                if knows_nothing && self.has_zero_wait() && self.failed_reads >= ZERO_WAIT_MAX_FAILED_READS {
                    return self.stop_waiting(now, Outcome::Unreachable);
                }
                // Before the candidacy ends, a read must show whether this write acquired or released the lock.
                self.must_read |= request.write.is_some() && matches!(self.phase, ElectionPhase::Releasing { .. });
                self.remember_unconfirmed(request.write);
                self.back_off(now.boot, retry_after);
            }
        }
    }

    /// Processes the late reply to a renewal that had timed out. The reply counts only if the renewal is still in
    /// `unconfirmed_writes`. While this run leads, that list contains only writes that replace the version last seen
    /// (see [`forget_settled_writes`](Self::forget_settled_writes)), so the reply is newer than that version.
    pub(super) fn handle_late_write(&mut self, now: Now, stored: Stored) {
        let was_carried_out = self
            .unconfirmed_writes
            .iter()
            .any(|write| write.renew_time == stored.record.renew_time && write.base.as_ref() != Some(&stored.version));
        if !matches!(self.phase, ElectionPhase::Leading { taken: false, .. }) || !was_carried_out {
            return;
        }
        self.observe(now, Some(stored));
        // A pending write that replaces the previous version can no longer be carried out.
        let is_conflict = |write: &Write| write.base.as_ref() != self.observed_version();
        if self.pending.as_ref().and_then(|pending| pending.write.as_ref()).is_some_and(is_conflict) {
            self.pending = None;
            self.timers.stop(Timer::RequestTimeout);
        }
        self.decide(now);
    }

    fn remember_unconfirmed(&mut self, write: Option<Write>) {
        self.unconfirmed_writes.extend(write);
        if self.unconfirmed_writes.len() > MAX_UNCONFIRMED_WRITES {
            self.unconfirmed_writes.pop_front();
        }
    }

    /// Processes the current record, from a reply or from the watch. Returns whether it has changed or is the first
    /// one.
    pub(super) fn observe(&mut self, now: Now, mut stored: Option<Stored>) -> bool {
        if let Some(stored) = stored.as_mut().filter(|_| self.config.ignores_min_hold) {
            stored.record.not_before = None;
        }
        let mine = stored.as_ref().filter(|stored| self.is_mine(&stored.record));
        let own_write = mine.and_then(|mine| self.write_of(&mine.record));
        let tenure_start = own_write
            .filter(|_| mine.is_some_and(|mine| self.has_full_lease_duration(&mine.record)))
            .map(|write| write.sent_at);
        // A write of this run may have replaced a different record than the observed one. For example, a delayed create
        // may be carried out after another run has created and renewed the record and another client has deleted it,
        // all without this run having observed any of it.
        let may_have_replaced_unseen =
            mine.is_some() && own_write.is_none_or(|write| write.base.as_ref() != self.observed_version());
        let (is_mine, was_known) = (mine.is_some(), self.observed.is_some());
        let before = self.observed.as_ref().and_then(ObservedRecord::record).cloned();
        let changed = match &mut self.observed {
            Some(observed) => observed.update(now, stored.clone(), may_have_replaced_unseen),
            unobserved => {
                let fallback = self.config.timing.lease_duration();
                *unobserved = Some(ObservedRecord::first(now, stored.clone(), fallback));
                true
            }
        };
        if changed {
            let acquisitions = match (&before, &stored) {
                (Some(before), Some(stored)) => {
                    stored.record.lease_transitions.saturating_sub(before.lease_transitions)
                }
                _ => 0,
            };
            let contenders = stored.as_ref().and_then(|stored| stored.record.contenders);
            let is_first_and_free = !was_known && self.observed.as_ref().is_some_and(ObservedRecord::is_acquirable);
            self.claims.note_change(contenders, acquisitions, is_first_and_free, &mut self.random);
        }
        let has_displaced_holder = self.observed.as_ref().is_some_and(ObservedRecord::has_displaced_holder);
        let renewal_interval = self.renewal_interval();
        match &mut self.phase {
            ElectionPhase::Waiting => match (tenure_start.filter(|_| !has_displaced_holder), stored) {
                // If more than half of the renew deadline has passed since the claim was sent, too little time is left,
                // so the lock is claimed again before the command starts.
                (Some(sent), Some(stored)) if now.boot < sent + self.config.timing.renew_deadline() / 2 => {
                    self.start_leading(sent, stored);
                }
                // The server shortens the lease duration that this run writes, so this run cannot lead. A candidate
                // that does not wait gives up.
                (None, Some(stored))
                    if is_mine && self.has_zero_wait() && !self.has_full_lease_duration(&stored.record) =>
                {
                    self.stop_waiting(now, Outcome::Unreachable);
                }
                (_, stored) if changed && !is_mine => {
                    self.handle_change(before, stored.map(|stored| stored.record), was_known, now);
                }
                _ => {}
            },
            ElectionPhase::Leading { taken: true, .. } => {}
            ElectionPhase::Leading { tenure, taken, record } => {
                self.timers.stop(Timer::Send);
                match stored {
                    Some(stored) if is_mine => {
                        if is_edited(&stored.record, record) {
                            self.actions.push(ElectionAction::Notify(ElectionNotice::Edited));
                        }
                        if let Some(sent) = tenure_start.filter(|sent| *sent > tenure.renewal_sent_at) {
                            self.conflicts = 0;
                            *tenure = Tenure::of_renewal(sent, &self.config.timing);
                            self.actions.push(ElectionAction::Extend(*tenure));
                        }
                        self.timers.set(Timer::Send, tenure.renewal_sent_at + renewal_interval);
                    }
                    Some(Stored { record, .. })
                        if before.as_ref().is_some_and(|before| has_lost_its_mark(&record, before)) =>
                    {
                        self.actions.push(ElectionAction::Notify(ElectionNotice::Edited));
                    }
                    Some(Stored { record, .. }) if was_taken_by_another(&record, &self.config.run) => {
                        *taken = true;
                        self.actions.push(ElectionAction::Lose { holder: record.holder_identity });
                    }
                    _ => self.actions.push(ElectionAction::Notify(ElectionNotice::Restoring)),
                }
            }
            ElectionPhase::Releasing { .. } => self.timers.stop(Timer::Send),
            ElectionPhase::Finished => {}
        }
        self.forget_settled_writes();
        self.update_preemption(now.boot);
        self.check_step_down();
        changed
    }

    /// Adds [`ElectionAction::StepDown`], at most once, if this run holds the lock and its record contains a request to
    /// step down.
    fn check_step_down(&mut self) {
        let record = self.observed.as_ref().and_then(ObservedRecord::record);
        let is_requested =
            record.is_some_and(|record| self.is_mine(record) && record.asks_to_step_down(&self.config.run));
        if is_requested
            && matches!(self.phase, ElectionPhase::Leading { taken: false, .. })
            && !self.step_down_requested
        {
            self.step_down_requested = true;
            self.actions.push(ElectionAction::StepDown);
        }
    }

    fn start_leading(&mut self, sent: Instant, stored: Stored) {
        let tenure = Tenure::of_renewal(sent, &self.config.timing);
        self.drop_watch();
        // The reply to a pending read may be older than this record.
        self.pending = self.pending.take().filter(|pending| pending.write.is_some());
        self.claiming = false;
        self.timers.set(Timer::Send, sent + self.renewal_interval());
        let (Version { uid, resource_version }, transitions) = (stored.version, stored.record.lease_transitions);
        let leadership = Leadership { tenure, uid, resource_version, transitions };
        self.actions.push(ElectionAction::StartLeading(leadership));
        self.phase = ElectionPhase::Leading { tenure, record: stored.record, taken: false };
    }

    /// Drops the unconfirmed writes that can no longer be carried out, because the version they replace is gone.
    fn forget_settled_writes(&mut self) {
        let current = self.observed_version().cloned();
        self.unconfirmed_writes.retain(|write| write.base == current);
    }

    /// Reports a change of the record while this candidate waits. `was_known` states whether the record was read before
    /// the change. A candidate that does not wait gives up if the change shows that the lock cannot be acquired.
    fn handle_change(&mut self, before: Option<Record>, after: Option<Record>, was_known: bool, now: Now) {
        let acquirable_at = self.observed.as_ref().map_or(now.boot, ObservedRecord::acquirable_at);
        let has_zero_wait = self.has_zero_wait();
        let notice = match after {
            Some(Record { holder_identity: holder, acquire_time: since, .. }) if !holder.is_empty() => {
                if was_known && has_zero_wait {
                    // The record changed since it was first read, so its holder is most likely alive.
                    return self.stop_waiting(now, Outcome::NotAcquired);
                }
                if before.is_some_and(|before| before.holder_identity == holder) {
                    return;
                }
                ElectionNotice::Held { holder, since, acquirable_in: acquirable_at.since(now.boot) }
            }
            Some(record) if record.valid_not_before().is_some_and(|not_before| not_before > now.wall) => {
                let not_before = record.valid_not_before().unwrap_or_default();
                self.actions.push(ElectionAction::Notify(ElectionNotice::NotDue { not_before }));
                if has_zero_wait {
                    self.stop_waiting(now, Outcome::NotAcquired);
                }
                return;
            }
            Some(record) if record.is_released_by_force() => {
                let holder = before.filter(Record::is_held).map(|before| before.holder_identity);
                ElectionNotice::ReleasedByForce { holder }
            }
            _ if acquirable_at > now.boot => ElectionNotice::Displaced,
            Some(_) => match before.filter(Record::is_held) {
                Some(Record { holder_identity: holder, .. }) => ElectionNotice::Released { holder },
                None => return,
            },
            None => return,
        };
        self.actions.push(ElectionAction::Notify(notice));
    }

    /// Returns the pending or unconfirmed write of this run that produced this record.
    fn write_of(&self, record: &Record) -> Option<&Write> {
        let pending = self.pending.as_ref().and_then(|pending| pending.write.as_ref());
        self.unconfirmed_writes.iter().chain(pending).find(|write| write.renew_time == record.renew_time)
    }

    /// Returns whether the lease duration in a record of this run is at least the configured one. If a server or
    /// another client has shortened it, others may acquire the lock before the command of this run is dead, so no
    /// tenure begins.
    fn has_full_lease_duration(&self, mine: &Record) -> bool {
        mine.lease_duration(Duration::ZERO) >= self.config.timing.lease_duration()
    }

    pub(super) fn observed_version(&self) -> Option<&Version> {
        Some(&self.observed.as_ref()?.stored.as_ref()?.version)
    }
}

/// Returns whether `version` is an older version of the same object than `other`.
fn is_older(version: &Version, other: &Version) -> bool {
    version.uid == other.uid && precedes(&version.resource_version, &other.resource_version)
}

/// Returns whether another client edited a field of this run's record that renewals do not change.
fn is_edited(current: &Record, written: &Record) -> bool {
    let Record { renew_time, run, step_down, .. } = current.clone();
    Record { renew_time, run, step_down, ..written.clone() } != *current
}

/// Returns whether another client has removed the mark of `before`. An acquisition or renewal would also change the
/// record's times.
fn has_lost_its_mark(current: &Record, before: &Record) -> bool {
    let is_same_holder = current.holder_identity == before.holder_identity;
    let has_same_times = current.acquire_time == before.acquire_time && current.renew_time == before.renew_time;
    current.run.is_none() && is_same_holder && has_same_times
}

/// Returns whether `record` shows that another candidate has acquired the lock, even if it has released it since.
/// `record` must not show this run as the holder.
fn was_taken_by_another(record: &Record, run: &RunId) -> bool {
    !record.holder_identity.is_empty() || record.mark().is_some_and(|mark| mark.run != *run)
}
