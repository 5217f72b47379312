//! What a waiting candidate saw of the record, and when it may acquire the lock.

use alloc::vec::Vec;
use core::time::Duration;

use super::protocol::Now;
use crate::instant::Instant;
use crate::record::{Record, RunId, Stored};

/// How many displaced holders are remembered.
const MAX_DISPLACED: usize = 16;

/// The record as last seen, and since when it has looked like that on our own clock.
///
/// The record's own times are never compared with a clock: a holder is considered dead only when its record stayed the
/// same for as long as the record says it holds.
#[derive(Clone, Debug, Hash)]
pub(super) struct ObservedRecord {
    /// The record and its version; nothing when there is no record.
    pub(super) stored: Option<Stored>,
    changed: Instant,
    confirmed: Instant,
    /// How long the record holds: the longest that its run has ever stated.
    holds_for: Duration,
    displaced: Vec<DisplacedHolder>,
    /// The earliest time of the next run, where the record was released with one.
    due: Option<Instant>,
    fallback: Duration,
}

/// A holder that may be alive although the record no longer says so: somebody else emptied, replaced or deleted what
/// it held.
#[derive(Clone, Debug, Hash)]
struct DisplacedHolder {
    run: Option<RunId>,
    until: Instant,
    holds_for: Duration,
}

impl DisplacedHolder {
    /// Returns whether this holder wrote the record again. Only it can say how it goes on: no other writer may know of
    /// it.
    fn is_back(&self, writer: Option<&RunId>) -> bool {
        self.run.is_some() && self.run.as_ref() == writer
    }
}

impl ObservedRecord {
    /// Creates what is known after the first sight; `fallback` is how long a record holds that does not say.
    pub(super) fn first(now: Now, stored: Option<Stored>, fallback: Duration) -> Self {
        let mut observed = Self {
            changed: now.boot,
            confirmed: now.boot,
            holds_for: lease_duration(&stored, fallback),
            displaced: Vec::new(),
            due: None,
            stored: None,
            fallback,
        };
        observed.set_stored(now, stored);
        observed
    }

    /// Takes in what was just seen, and returns whether the record changed. `out_of_turn` says that it was written by
    /// this run over something else than what was seen before.
    pub(super) fn update(&mut self, now: Now, stored: Option<Stored>, out_of_turn: bool) -> bool {
        self.confirmed = now.boot;
        // Deleted and made anew: somebody else did that, and the holder may be alive.
        let made_anew = self
            .stored
            .as_ref()
            .zip(stored.as_ref())
            .is_some_and(|(before, after)| before.version.uid != after.version.uid);
        let changed = made_anew || renewed_part(self.record()) != renewed_part(record(&stored));
        let writer = run(record(&stored));
        let is_forced = record(&stored).is_some_and(Record::is_released_by_force);
        if changed {
            let (before, after) = (self.record(), record(&stored));
            let is_early = now.boot < self.changed + self.holds_for;
            let stated = lease_duration(&stored, self.fallback);
            let stated_before = if run(before).is_some() && run(before) == writer {
                Some(self.holds_for)
            } else {
                self.displaced.iter().find(|holder| holder.is_back(writer)).map(|holder| holder.holds_for)
            };
            if !is_forced
                && before.is_some_and(|before| is_displaced(before, after, out_of_turn || made_anew, is_early))
            {
                let (until, holds_for) = (now.boot + self.holds_for, self.holds_for);
                self.remember(DisplacedHolder { run: run(before).cloned(), until, holds_for });
            }
            self.changed = now.boot;
            self.holds_for = stated_before.map_or(stated, |before| before.max(stated));
        }
        self.displaced.retain(|holder| !is_forced && !holder.is_back(writer));
        self.set_stored(now, stored);
        changed
    }

    fn set_stored(&mut self, now: Now, stored: Option<Stored>) {
        // No wait is longer than the hold itself, whatever the clocks say.
        let longest = record(&stored).and_then(Record::min_hold).map(|hold| self.changed + hold);
        self.due = due(now, &stored).map(|due| longest.map_or(due, |longest| due.min(longest)));
        self.stored = stored;
    }

    /// Remembers a displaced holder, beyond its time, too: it may still come back, and what it stated counts then.
    fn remember(&mut self, displaced: DisplacedHolder) {
        if self.displaced.len() >= MAX_DISPLACED {
            let first_over = (0..self.displaced.len()).min_by_key(|index| self.displaced[*index].until);
            first_over.map(|index| self.displaced.remove(index));
        }
        self.displaced.push(displaced);
    }

    /// Returns the record, if there is one.
    pub(super) fn record(&self) -> Option<&Record> {
        record(&self.stored)
    }

    /// Returns when the lock may be acquired, if nothing changes until then.
    pub(super) fn takeable_at(&self) -> Instant {
        let is_held = self.record().is_some_and(Record::is_held);
        let holds_until = if is_held { self.changed + self.holds_for } else { self.changed };
        let displaced_until = self.displaced.iter().map(|holder| holder.until);
        displaced_until.chain(self.due).fold(holds_until, Instant::max)
    }

    /// Returns whether a run may be alive that the record no longer names.
    pub(super) fn is_displaced(&self) -> bool {
        self.displaced.iter().any(|holder| self.confirmed < holder.until)
    }

    /// Returns whether the record was seen like this when the lock could already be acquired: a free one at once, an
    /// expired one after one more read.
    pub(super) fn is_takeable(&self) -> bool {
        self.confirmed >= self.takeable_at()
    }
}

fn record(stored: &Option<Stored>) -> Option<&Record> {
    stored.as_ref().map(|stored| &stored.record)
}

/// Returns the part of a record that renewals change. A request to step down does not make a dead holder alive.
fn renewed_part(record: Option<&Record>) -> Option<Record> {
    Some(Record { step_down: None, ..record?.clone() })
}

/// Returns when a released record's command is due, on the boot clock as the wall clock has it now.
fn due(now: Now, stored: &Option<Stored>) -> Option<Instant> {
    let due = record(stored)?.due()?;
    let ahead = Duration::try_from(due.duration_since(now.wall)).ok()?;
    Some(now.boot + ahead)
}

fn lease_duration(stored: &Option<Stored>, fallback: Duration) -> Duration {
    record(stored).map_or(fallback, |record| record.lease_duration(fallback))
}

fn run(record: Option<&Record>) -> Option<&RunId> {
    Some(&record?.mark()?.run)
}

/// Returns whether the change from `before` to `after` took the lock from a holder that neither released it nor let it
/// expire, as far as one can see. An empty holder is how other implementations release.
///
/// A run that acquires the lock from a holder counts the acquisition. A mark that follows early without that is a copy
/// of an older record, such as a restored backup.
fn is_displaced(before: &Record, after: Option<&Record>, out_of_turn: bool, is_early: bool) -> bool {
    let Some(after) = after else { return before.is_held() };
    let is_copy = is_early && after.lease_transitions <= before.lease_transitions;
    let by_another = (!after.is_held() || out_of_turn || is_copy) && run(Some(after)) != run(Some(before));
    before.is_held() && before.mark().is_some() && (after.mark().is_none() || by_another)
}
