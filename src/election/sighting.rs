//! What a waiting candidate saw of the record, and when it may take the lease.

use std::time::Duration;

use super::protocol::Now;
use super::record::{Record, Stored};
use crate::process::clock::Instant;

/// The record as last seen, and since when it has looked like that on our own clock.
///
/// The record's own times are never compared with a clock: a holder is taken for dead only when its
/// record stayed the same for as long as the record says it holds.
#[derive(Debug)]
pub struct Sighting {
    /// The record and its version; nothing when there is no record.
    pub stored: Option<Stored>,
    changed: Instant,
    confirmed: Instant,
    /// A run may live until then although the record no longer says so: somebody else emptied,
    /// overwrote or deleted what that run held.
    displaced_until: Option<Instant>,
    /// It was released, and the command is not due before.
    due: Option<Instant>,
    fallback: Duration,
}

impl Sighting {
    /// The first sight; `fallback` is how long a record holds that does not say.
    pub fn first(now: Now, stored: Option<Stored>, fallback: Duration) -> Self {
        let due = due(now, &stored);
        Self { stored, changed: now.boot, confirmed: now.boot, displaced_until: None, due, fallback }
    }

    /// Takes in what was just seen. True when the record changed.
    pub fn update(&mut self, now: Now, stored: Option<Stored>) -> bool {
        self.confirmed = now.boot;
        let before = self.stored.as_ref();
        let changed = match (before, &stored) {
            (Some(before), Some(after)) => before.record != after.record || before.version.uid != after.version.uid,
            (None, None) => false,
            _ => true,
        };
        if changed {
            self.changed = now.boot;
            let displaced = before.map(|before| &before.record).filter(|before| displaced(before, record(&stored)));
            if let Some(run) = displaced {
                let until = now.boot + run.lease_duration(self.fallback);
                self.displaced_until = self.displaced_until.max(Some(until));
            }
        }
        if record(&stored).is_some_and(|record| record.mark().is_some()) {
            // The run that wrote this waited for whoever held the lease before it, or is that one.
            self.displaced_until = None;
        }
        self.due = due(now, &stored);
        self.stored = stored;
        changed
    }

    /// The record, if there is one.
    pub fn record(&self) -> Option<&Record> {
        record(&self.stored)
    }

    /// When the lease may be taken, if nothing changes until then.
    pub fn takeable_at(&self) -> Instant {
        let holds_until = match self.record() {
            Some(record) if record.is_held() => self.changed + record.lease_duration(self.fallback),
            _ => self.changed,
        };
        holds_until.max(self.displaced_until.unwrap_or(holds_until)).max(self.due.unwrap_or(holds_until))
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

/// When a released record's command is due, on the boot clock as the wall clock has it now.
fn due(now: Now, stored: &Option<Stored>) -> Option<Instant> {
    let due = record(stored)?.due()?;
    let ahead = Duration::try_from(due.duration_since(now.wall)).ok()?;
    Some(now.boot + ahead)
}

/// Whether the change from `before` to `after` took the lease from a holder that neither released it
/// nor ran out of time, as far as one can see. An empty holder is how other implementations release.
fn displaced(before: &Record, after: Option<&Record>) -> bool {
    match after {
        None => before.is_held(),
        Some(after) => before.is_held() && before.mark().is_some() && after.mark().is_none(),
    }
}
