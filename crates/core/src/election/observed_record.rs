//! What a waiting candidate saw of the record, and when it may take the lease.

use alloc::vec::Vec;
use core::time::Duration;

use super::protocol::Now;
use crate::instant::Instant;
use crate::record::{Record, RunId, Stored};

/// The record as last seen, and since when it has looked like that on our own clock.
///
/// The record's own times are never compared with a clock: a holder is taken for dead only when its
/// record stayed the same for as long as the record says it holds.
#[derive(Clone, Debug, Hash)]
pub struct ObservedRecord {
    /// The record and its version; nothing when there is no record.
    pub stored: Option<Stored>,
    changed: Instant,
    confirmed: Instant,
    /// How long the record holds: the longest that its run has ever said.
    holds_for: Duration,
    displaced: Vec<Displaced>,
    /// It was released, and the command is not due before.
    due: Option<Instant>,
    fallback: Duration,
}

/// Displaced holders that are remembered.
const MOST_DISPLACED: usize = 16;

/// A holder that may be alive although the record no longer says so: somebody else emptied, overwrote or
/// deleted what it held.
#[derive(Clone, Debug, Hash)]
struct Displaced {
    run: Option<RunId>,
    until: Instant,
    holds_for: Duration,
}

impl Displaced {
    /// Only such a run itself can say how it goes on with it: whoever else writes may not know of it.
    fn is_back(&self, writer: Option<&RunId>) -> bool {
        self.run.is_some() && self.run.as_ref() == writer
    }
}

impl ObservedRecord {
    /// The first sight; `fallback` is how long a record holds that does not say.
    pub fn first(now: Now, stored: Option<Stored>, fallback: Duration) -> Self {
        let mut observed = Self {
            changed: now.boot,
            confirmed: now.boot,
            holds_for: lease_duration(&stored, fallback),
            displaced: Vec::new(),
            due: None,
            stored: None,
            fallback,
        };
        observed.take_in(now, stored);
        observed
    }

    /// Takes in what was just seen; `out_of_turn` says that it was written by us over something else than
    /// what was seen before. True when the record changed.
    pub fn update(&mut self, now: Now, stored: Option<Stored>, out_of_turn: bool) -> bool {
        self.confirmed = now.boot;
        // Deleted and made anew: somebody else did that, and whoever held it may live.
        let made_anew = self
            .stored
            .as_ref()
            .zip(stored.as_ref())
            .is_some_and(|(before, after)| before.version.uid != after.version.uid);
        let changed = made_anew || renewed(self.record()) != renewed(record(&stored));
        let writer = run(record(&stored));
        if changed {
            self.changed = now.boot;
            let (before, after) = (self.record(), record(&stored));
            let said = lease_duration(&stored, self.fallback);
            let same_run = run(before).is_some() && run(before) == writer;
            let said_before = match same_run {
                true => Some(self.holds_for),
                false => self.displaced.iter().find(|run| run.is_back(writer)).map(|run| run.holds_for),
            };
            if before.is_some_and(|before| is_displaced(before, after, out_of_turn || made_anew)) {
                let (until, holds_for) = (now.boot + self.holds_for, self.holds_for);
                self.remember(Displaced { run: run(before).cloned(), until, holds_for });
            }
            self.holds_for = said_before.map_or(said, |before| before.max(said));
        }
        self.displaced.retain(|displaced| !displaced.is_back(writer));
        self.take_in(now, stored);
        changed
    }

    fn take_in(&mut self, now: Now, stored: Option<Stored>) {
        // No wait is longer than the hold itself, whatever the clocks say.
        let longest = record(&stored).and_then(Record::min_hold).map(|hold| self.changed + hold);
        self.due = due(now, &stored).map(|due| longest.map_or(due, |longest| due.min(longest)));
        self.stored = stored;
    }

    /// Its time may pass and it may still come back: what it stated is not forgotten by then.
    fn remember(&mut self, displaced: Displaced) {
        let first_over = (0..self.displaced.len()).min_by_key(|index| self.displaced[*index].until);
        if let Some(first_over) = first_over.filter(|_| self.displaced.len() >= MOST_DISPLACED) {
            self.displaced.remove(first_over);
        }
        self.displaced.push(displaced);
    }

    /// The record, if there is one.
    pub fn record(&self) -> Option<&Record> {
        record(&self.stored)
    }

    /// When the lease may be taken, if nothing changes until then.
    pub fn takeable_at(&self) -> Instant {
        let is_held = self.record().is_some_and(Record::is_held);
        let holds_until = if is_held { self.changed + self.holds_for } else { self.changed };
        let displaced_until = self.displaced.iter().map(|displaced| displaced.until);
        displaced_until.chain(self.due).fold(holds_until, Instant::max)
    }

    /// Whether a run may live that the record no longer names.
    pub fn is_displaced(&self) -> bool {
        self.displaced.iter().any(|displaced| self.confirmed < displaced.until)
    }

    /// Whether the record was seen like this when it might already be taken: a free one at once, an
    /// expired one after one more look.
    pub fn is_takeable(&self) -> bool {
        self.confirmed >= self.takeable_at()
    }
}

fn record(stored: &Option<Stored>) -> Option<&Record> {
    stored.as_ref().map(|stored| &stored.record)
}

/// What a renewal changes. Whoever asks a dead holder to step down does not make it live.
fn renewed(record: Option<&Record>) -> Option<Record> {
    Some(Record { step_down: None, ..record?.clone() })
}

/// When a released record's command is due, on the boot clock as the wall clock has it now.
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

/// Whether the change from `before` to `after` took the lease from a holder that neither released it
/// nor ran out of time, as far as one can see. An empty holder is how other implementations release.
fn is_displaced(before: &Record, after: Option<&Record>, out_of_turn: bool) -> bool {
    let Some(after) = after else { return before.is_held() };
    let by_another = (!after.is_held() || out_of_turn) && run(Some(after)) != run(Some(before));
    before.is_held() && before.mark().is_some() && (after.mark().is_none() || by_another)
}
