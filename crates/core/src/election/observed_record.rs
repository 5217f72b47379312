//! The record as a candidate has observed it, which determines when the lock may be acquired.

use alloc::vec::Vec;
use core::time::Duration;

use jiff::Timestamp;

use super::min_hold;
use super::protocol::Now;
use crate::instant::Instant;
use crate::record::{Record, RunId, Stored};

/// The maximum number of displaced holders that are remembered.
const MAX_DISPLACED: usize = 16;

/// The record as last seen, and when it last changed according to this candidate's clock.
///
/// The record's `renewTime` is never compared with a clock: a holder is considered dead only when its record has not
/// changed for the lease duration stated in it.
#[derive(Clone, Debug, Hash)]
pub(super) struct ObservedRecord {
    /// The record and its version; `None` when there is no record.
    pub(super) stored: Option<Stored>,
    /// When this candidate last saw a change.
    last_changed: Instant,
    /// When this candidate last saw the record, changed or not.
    last_seen: Instant,
    /// The longest lease duration that the record's run itself has written. Other programs can edit the duration in the
    /// record.
    longest_written: Duration,
    /// The longest lease duration that the record has contained since the last renewal.
    longest_since_renewal: Duration,
    displaced: Vec<DisplacedHolder>,
    /// The instant before which the lock must not be acquired, if the release states one.
    not_before: Option<Instant>,
    /// The lease duration to assume if the record does not contain one.
    fallback: Duration,
}

/// A holder that may be alive although the record no longer names it, because another client has emptied, replaced or
/// deleted its record.
#[derive(Clone, Debug, Hash)]
struct DisplacedHolder {
    run: Option<RunId>,
    /// When its lease expires.
    until: Instant,
    /// The longest lease duration that it has written.
    longest_written: Duration,
}

impl DisplacedHolder {
    /// Returns whether `writer` is this holder. If so, the holder has written the record again and is no longer
    /// displaced. A different writer may not know that this holder exists.
    fn has_returned(&self, writer: Option<&RunId>) -> bool {
        self.run.is_some() && self.run.as_ref() == writer
    }
}

impl ObservedRecord {
    /// Creates the state after the first read. `fallback` is the lease duration to assume if the record does not
    /// contain one.
    pub(super) fn first(now: Now, stored: Option<Stored>, fallback: Duration) -> Self {
        let mut observed = Self {
            last_changed: now.boot,
            last_seen: now.boot,
            longest_written: lease_duration(&stored, fallback),
            longest_since_renewal: lease_duration(&stored, fallback),
            displaced: Vec::new(),
            not_before: None,
            stored: None,
            fallback,
        };
        observed.set_stored(now, stored);
        observed
    }

    /// Processes the record that was just seen, and returns whether it has changed, apart from its request to step
    /// down. `may_have_replaced_unseen` states that this run wrote the record, but may have replaced a different record
    /// than the one seen before.
    pub(super) fn update(&mut self, now: Now, stored: Option<Stored>, may_have_replaced_unseen: bool) -> bool {
        self.last_seen = now.boot;
        // If another client has deleted and recreated the object, the previous holder may still be alive.
        let recreated = self
            .stored
            .as_ref()
            .zip(stored.as_ref())
            .is_some_and(|(before, after)| before.version.uid != after.version.uid);
        let changed = recreated || without_step_down(self.record()) != without_step_down(record_in(&stored));
        let writer = run_of(record_in(&stored));
        let forcibly_released =
            record_in(&stored).filter(|record| record.is_released_by_force()).and_then(|record| run_of(Some(record)));
        // A forced release whose mark names no run ends the wait for all displaced holders. If the previous record was
        // held, it does not: a restored backup may contain an old release.
        let releases_all = forcibly_released == Some(&RunId::unknown()) && !self.record().is_some_and(Record::is_held);
        if changed {
            let (before, after) = (self.record(), record_in(&stored));
            let duration = lease_duration(&stored, self.fallback);
            let is_same_run = run_of(before).is_some() && run_of(before) == writer;
            let earlier_duration = if is_same_run {
                Some(self.longest_written)
            } else {
                self.displaced.iter().find(|holder| holder.has_returned(writer)).map(|holder| holder.longest_written)
            };
            // Every write of a run changes `renewTime`, so a change without a new `renewTime` is an edit by another
            // program.
            let is_edit = is_same_run && renew_time_of(before) == renew_time_of(after);
            let is_forced_release = forcibly_released.is_some() && run_of(before) == forcibly_released;
            let is_copy = self.stored.as_ref().zip(after).is_some_and(|(before, after)| is_copy(after, before));
            let rules_out_successor = may_have_replaced_unseen || recreated || is_copy;
            if !is_forced_release && before.is_some_and(|before| is_displaced(before, after, rules_out_successor)) {
                let (until, longest_written) = (now.boot + self.holds_for(), self.longest_written);
                let run = before.and_then(Record::marked_holder).cloned();
                self.remember(DisplacedHolder { run, until, longest_written });
            }
            self.last_changed = now.boot;
            if is_edit {
                self.longest_since_renewal = self.longest_since_renewal.max(duration);
            } else {
                self.longest_written = earlier_duration.map_or(duration, |earlier| earlier.max(duration));
                self.longest_since_renewal = duration;
            }
        }
        self.displaced.retain(|holder| !releases_all && !holder.has_returned(writer));
        self.set_stored(now, stored);
        changed
    }

    /// Notes a change if a read returns the same held record in a different version. Between the two versions, the
    /// holder may have renewed the record and another client restored the old one. Only a watch would have shown that.
    pub(super) fn note_hidden_changes(&mut self, now: Now, read: &Option<Stored>) {
        let Some((before, after)) = self.stored.as_ref().zip(read.as_ref()) else { return };
        let is_same = without_step_down(Some(&before.record)) == without_step_down(Some(&after.record));
        if is_same && before.record.is_held() && before.version != after.version {
            self.last_changed = now.boot;
        }
    }

    fn set_stored(&mut self, now: Now, stored: Option<Stored>) {
        self.not_before =
            record_in(&stored).and_then(|record| min_hold::earliest_acquisition(record, now, self.last_changed));
        self.stored = stored;
    }

    /// Remembers a displaced holder, even after its lease has expired: if it writes again, its longest lease duration
    /// still counts.
    fn remember(&mut self, displaced: DisplacedHolder) {
        if self.displaced.len() >= MAX_DISPLACED {
            let expires_first = (0..self.displaced.len()).min_by_key(|index| self.displaced[*index].until);
            expires_first.map(|index| self.displaced.remove(index));
        }
        self.displaced.push(displaced);
    }

    /// Returns the record, if there is one.
    pub(super) fn record(&self) -> Option<&Record> {
        record_in(&self.stored)
    }

    /// Returns how long the lock stays held without a renewal: the longest duration that the holder has written, or a
    /// longer one that another program has written since the last renewal.
    fn holds_for(&self) -> Duration {
        self.longest_written.max(self.longest_since_renewal)
    }

    /// Returns when the lock may be acquired if the record does not change until then.
    pub(super) fn acquirable_at(&self) -> Instant {
        let is_held = self.record().is_some_and(Record::is_held);
        let holds_until = if is_held { self.last_changed + self.holds_for() } else { self.last_changed };
        let displaced_until = self.displaced.iter().map(|holder| holder.until);
        displaced_until.chain(self.not_before).fold(holds_until, Instant::max)
    }

    /// Returns whether a displaced holder could still be alive when the record was last seen.
    pub(super) fn has_displaced_holder(&self) -> bool {
        self.displaced.iter().any(|holder| self.last_seen < holder.until)
    }

    /// Returns whether the lock could already be acquired when the record was last seen. A candidate claims the
    /// lock only then: a free lock at once, but an expired one only after another read.
    pub(super) fn is_acquirable(&self) -> bool {
        self.last_seen >= self.acquirable_at()
    }
}

fn record_in(stored: &Option<Stored>) -> Option<&Record> {
    stored.as_ref().map(|stored| &stored.record)
}

/// Returns a record without its request to step down. A changed request does not show that the holder is alive.
fn without_step_down(record: Option<&Record>) -> Option<Record> {
    Some(Record { step_down: None, ..record?.clone() })
}

fn lease_duration(stored: &Option<Stored>, fallback: Duration) -> Duration {
    record_in(stored).map_or(fallback, |record| record.lease_duration(fallback))
}

fn run_of(record: Option<&Record>) -> Option<&RunId> {
    Some(&record?.mark()?.run)
}

fn renew_time_of(record: Option<&Record>) -> Option<Timestamp> {
    record?.renew_time
}

/// Returns whether `after`, if another run wrote it, is a copy of an older record, such as a restored backup, and not
/// an acquisition that followed `before`.
///
/// A run that acquires the lock increments `leaseTransitions` and records the version that it replaced. Both are
/// checked even if `before` seems to have expired, because this candidate may have missed renewals. `leaseTransitions`
/// alone is not enough: if the run in `before` replaced a restored copy, it continued from that copy's lower count, so
/// a copy that is restored later can have a higher one.
fn is_copy(after: &Record, before: &Stored) -> bool {
    let replaced_older =
        after.replaced_version.as_ref().is_some_and(|replaced| precedes(replaced, &before.version.resource_version));
    replaced_older || after.lease_transitions <= before.record.lease_transitions
}

/// Returns whether the holder of `before` is displaced: it has not released the lock, and no successor has written
/// `after`. If `rules_out_successor` is true, `after` does not count as written by a run that acquired the lock after
/// `before`, even if it has the mark of another run. Only a deletion of the record displaces a holder without a mark,
/// because other implementations release the lock by emptying `holderIdentity`.
fn is_displaced(before: &Record, after: Option<&Record>, rules_out_successor: bool) -> bool {
    let Some(after) = after else { return before.is_held() };
    let by_another = (!after.is_held() || rules_out_successor) && run_of(Some(after)) != run_of(Some(before));
    before.marked_holder().is_some() && (after.mark().is_none() || by_another)
}

/// Returns whether a resourceVersion precedes another one. Returns false if they are not numbers, which is the case for
/// some kinds of lock.
pub(super) fn precedes(version: &str, other: &str) -> bool {
    let are_numbers = version.bytes().chain(other.bytes()).all(|digit| digit.is_ascii_digit());
    are_numbers && (version.len(), version) < (other.len(), other)
}
