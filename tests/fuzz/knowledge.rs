//! What a candidate knows of a record, worked out a second time and as simply as it can be said: when
//! may it be taken at the earliest?

use std::time::Duration;

use leaderrun_core::instant::Instant;
use leaderrun_core::record::{Record, RunId, RunState, Stored};

/// All that was seen of the record.
pub struct Knowledge {
    run: RunId,
    fallback: Duration,
    last: Option<Stored>,
    known: bool,
    changed: Instant,
    /// A run that was seen holding the lease may live until then, whatever the record says now.
    alive_until: Instant,
}

impl Knowledge {
    pub fn new(run: RunId, fallback: Duration, now: Instant) -> Self {
        Self { run, fallback, last: None, known: false, changed: now, alive_until: now }
    }

    /// Takes in what was just seen. True when that is something else than before.
    pub fn see(&mut self, now: Instant, stored: Option<&Stored>) -> bool {
        let (before, after) = (self.last.take(), stored.cloned());
        // Whoever asks it to step down does not show that the holder lives.
        let what = |stored: &Option<Stored>| {
            stored.as_ref().map(|it| (Record { step_down: None, ..it.record.clone() }, it.version.uid.clone()))
        };
        let changed = !self.known || what(&before) != what(&after);
        if changed {
            self.changed = now;
        }
        let new_mark = after.as_ref().and_then(|after| after.record.mark());
        let old_mark = before.as_ref().and_then(|before| before.record.mark());
        if new_mark.is_some() && new_mark != old_mark {
            self.alive_until = now;
        } else if let Some(before) = before.as_ref().filter(|_| changed)
            && before.record.is_held()
            && !self.is_mine(&before.record)
            && (old_mark.is_some() || after.is_none())
        {
            self.alive_until = self.alive_until.max(now + before.record.lease_duration(self.fallback));
        }
        (self.last, self.known) = (after, true);
        changed
    }

    pub fn last(&self) -> Option<&Stored> {
        self.last.as_ref()
    }

    pub fn is_mine(&self, record: &Record) -> bool {
        record.mark().is_some_and(|mark| mark.run == self.run && mark.state == RunState::Held)
    }

    /// Whether somebody else has it.
    pub fn is_anothers(&self) -> bool {
        self.last.as_ref().is_some_and(|last| last.record.is_held() && !self.is_mine(&last.record))
    }

    /// The earliest instant at which a candidate may write.
    pub fn free_at(&self) -> Instant {
        match &self.last {
            Some(last) if self.is_mine(&last.record) => self.changed,
            Some(last) if last.record.is_held() => {
                self.alive_until.max(self.changed + last.record.lease_duration(self.fallback))
            }
            _ => self.alive_until,
        }
    }
}
