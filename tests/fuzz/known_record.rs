//! A second, simple implementation of the rules for when a candidate may write, given the records that it has observed.

use std::time::Duration;

use leaderrun_core::instant::Instant;
use leaderrun_core::record::{MarkState, Record, RunId, Stored};

/// The record as the candidate last observed it, and the time until which other runs may still be alive.
pub struct KnownRecord {
    /// The run of the candidate.
    run: RunId,
    /// The lease duration that applies to a record without one.
    fallback: Duration,
    last: Option<Stored>,
    /// `true` once the candidate has observed whether there is a record.
    has_observed: bool,
    /// The time at which a change of the record was last observed.
    changed_at: Instant,
    /// The longest lease duration that the run in the record's mark has written itself.
    longest_written: Duration,
    /// `true` if another program has removed the mark from the record of the candidate's own run, but has kept the
    /// holder and the times.
    own_mark_removed: bool,
    /// The instant until which a run that was observed to hold the lock may be alive, even if the record no longer
    /// names it.
    may_live_until: Instant,
}

impl KnownRecord {
    pub fn new(run: RunId, fallback: Duration, now: Instant) -> Self {
        Self {
            run,
            fallback,
            last: None,
            has_observed: false,
            changed_at: now,
            longest_written: Duration::ZERO,
            own_mark_removed: false,
            may_live_until: now,
        }
    }

    /// Observes the record. Returns whether it has changed.
    pub fn observe(&mut self, now: Instant, stored: Option<&Stored>) -> bool {
        let (before, after) = (self.last.take(), stored.cloned());
        // A request to step down is not a renewal.
        let content = |stored: &Option<Stored>| {
            stored.as_ref().map(|stored| {
                let record = Record { step_down: None, ..stored.record.clone() };
                (record, stored.version.uid.clone())
            })
        };
        let changed = !self.has_observed || content(&before) != content(&after);
        if changed {
            self.changed_at = now;
        }
        let new_mark = after.as_ref().and_then(|after| after.record.mark());
        let old_mark = before.as_ref().and_then(|before| before.record.mark());
        if new_mark.is_some() && new_mark != old_mark {
            // A new mark was written by a run that was allowed to write, so no earlier holder can be alive.
            self.may_live_until = now;
        } else if let Some(before) = before.as_ref().filter(|_| changed)
            && before.record.is_held()
            && !self.is_own(&before.record)
            // Another program, whose records have no mark, releases the lock by emptying the record. No candidate
            // waits after such a release.
            && (before.record.marked_holder().is_some() || after.is_none())
        {
            // If an edit left the mark valid, the durations that the run itself wrote count, not those from edits.
            let mark_is_unchanged = new_mark.is_some();
            let duration =
                if mark_is_unchanged { self.longest_written } else { before.record.lease_duration(self.fallback) };
            self.may_live_until = self.may_live_until.max(now + duration);
        }
        if let (Some(mark), Some(after)) = (new_mark, &after) {
            let duration = after.record.lease_duration(self.fallback);
            match old_mark.filter(|old| old.run == mark.run) {
                Some(old) if old.renew_time == mark.renew_time => {}
                Some(_) => self.longest_written = self.longest_written.max(duration),
                None => self.longest_written = duration,
            }
        }
        let has_lost_mark = |before: &Record, after: &Record| {
            let holder_and_times =
                |record: &Record| (record.holder_identity.clone(), record.acquire_time, record.renew_time);
            after.run.is_none() && holder_and_times(before) == holder_and_times(after)
        };
        self.own_mark_removed = before.zip(after.as_ref()).is_some_and(|(before, after)| {
            (self.is_own(&before.record) || self.own_mark_removed) && has_lost_mark(&before.record, &after.record)
        });
        (self.last, self.has_observed) = (after, true);
        changed
    }

    /// Returns the record that was last observed; `None` if there was none.
    pub fn last(&self) -> Option<&Stored> {
        self.last.as_ref()
    }

    /// Returns whether a record says that the candidate's own run holds the lock.
    pub fn is_own(&self, record: &Record) -> bool {
        record.mark().is_some_and(|mark| mark.run == self.run && mark.state == MarkState::Held)
    }

    /// Returns whether another run or another program holds the lock, according to the last record.
    pub fn is_held_by_other(&self) -> bool {
        let is_own = |record: &Record| self.is_own(record) || self.own_mark_removed;
        self.last.as_ref().is_some_and(|last| last.record.is_held() && !is_own(&last.record))
    }

    /// Returns the earliest instant at which the candidate may write.
    pub fn may_write_at(&self) -> Instant {
        match &self.last {
            Some(last) if self.is_own(&last.record) => self.changed_at,
            Some(last) if last.record.is_held() => {
                self.may_live_until.max(self.changed_at + last.record.lease_duration(self.fallback))
            }
            _ => self.may_live_until,
        }
    }
}
