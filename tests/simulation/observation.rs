//! Tracks the records that each election observes, for the invariants, and applies the mutations to these records.

use leaderrun_core::election::{ElectionInputs, Now, Reply, WatchEvent};
use leaderrun_core::record::{MarkState, RunId, Stored};

use crate::mutation::Mutation;
use crate::world::{ObservedMark, Run, World};

impl World {
    /// Tracks a reply, and returns it as changed by the mutation.
    pub fn observe_reply(&mut self, run: usize, reply: Reply, read_revision: u64) -> Reply {
        match reply {
            Reply::Read(stored) => {
                let revision = stored.as_ref().map_or(0, revision);
                let elector = &mut self.runs[run].elector;
                if elector.reply_was_in_time {
                    // If a read returns a change that the watch has not delivered, the election closes the watch.
                    elector.watch_is_current &= elector.observed_revision == revision;
                    self.record_observation(run, stored.as_ref(), read_revision);
                }
                Reply::Read(stored.map(|stored| self.mutated_record(run, stored)))
            }
            Reply::Written(stored) => {
                if self.runs[run].elector.reply_was_in_time {
                    self.record_observation(run, Some(&stored), revision(&stored));
                }
                Reply::Written(self.mutated_record(run, stored))
            }
            reply => reply,
        }
    }

    /// Tracks a late reply to a write, and returns it as changed by the mutation.
    pub fn observe_late_write(&mut self, run: usize, stored: Stored) -> Stored {
        if self.runs[run].led_since.is_some() && revision(&stored) > self.runs[run].elector.observed_revision {
            self.record_observation(run, Some(&stored), revision(&stored));
        }
        self.mutated_record(run, stored)
    }

    pub fn mutated_watch_event(&self, run: usize, event: WatchEvent) -> WatchEvent {
        match event {
            WatchEvent::Changed(stored) => WatchEvent::Changed(self.mutated_record(run, stored)),
            event => event,
        }
    }

    /// Tracks a watch event that the election has processed.
    pub fn observe_watch_event(&mut self, run: usize, event: &WatchEvent) {
        if !self.runs[run].elector.watch_is_current {
            return;
        }
        match event {
            WatchEvent::Changed(stored) => self.record_observation(run, Some(stored), revision(stored)),
            WatchEvent::Deleted => {
                let deleted_at_revision = self.store.deleted_after(self.runs[run].elector.observed_revision);
                self.record_observation(run, None, deleted_at_revision);
            }
            _ => {}
        }
    }

    /// Returns a record as changed by the mutation for this run.
    fn mutated_record(&self, run: usize, mut stored: Stored) -> Stored {
        if let (Mutation::ReadFirstObjectOnly, Some(pair)) = (self.mutation, &self.runs[run].elector.pair) {
            return Stored { record: pair.first_record(), ..stored };
        }
        let timing = &self.machines[self.runs[run].machine].plan.timing;
        let id = &self.runs[run].id;
        let stored_duration = stored.record.lease_duration_seconds.unwrap_or_default();
        match (self.mutation, &mut stored.record.run) {
            (Mutation::OwnLeaseDuration, _) => {
                stored.record.lease_duration_seconds = Some(timing.lease_duration().as_secs() as u32);
            }
            (Mutation::TenureOfShortenedWrite, Some(mark)) if mark.run == *id => {
                stored.record.lease_duration_seconds = Some(timing.lease_duration().as_secs() as u32);
            }
            (Mutation::OwnByIdentity, Some(mark))
                if stored.record.holder_identity == self.machines[self.runs[run].machine].plan.identity =>
            {
                mark.run = id.clone();
            }
            // Under another run ID, the shorter duration replaces the longer one that was observed before.
            (Mutation::LatestWrittenDuration, Some(mark)) if stored_duration < self.configured_duration(&mark.run) => {
                mark.run = RunId::new("an unknown run");
            }
            (Mutation::IgnoreReplacedVersions, _) => stored.record.replaced_version = None,
            (Mutation::IgnoreNotBefore, _) => stored.record.not_before = None,
            (Mutation::IgnoreMarks, Some(mark)) if mark.run != *id => stored.record.run = None,
            _ => {}
        }
        stored
    }

    /// Takes the record that the election's own write replaced, marks it as released, and sends it to the election in a
    /// watch event.
    pub fn inject_release(&mut self, run: usize, reply: &Reply, now: Now) {
        let (Reply::Written(stored) | Reply::Read(Some(stored))) = reply else { return };
        let Run { id, elector, .. } = &mut self.runs[run];
        let is_own = |stored: &Stored| stored.record.mark().is_some_and(|mark| mark.run == *id);
        let Some(mut replaced) = elector.observed.clone().filter(|replaced| is_own(stored) && !is_own(replaced)) else {
            return;
        };
        replaced.record.holder_identity.clear();
        if let Some(mark) = &mut replaced.record.run {
            mark.state = MarkState::Released;
        }
        self.step_election(run, now, ElectionInputs::watch_event(WatchEvent::Changed(replaced)));
    }

    /// Returns the lease duration that a run is configured with, in seconds.
    fn configured_duration(&self, run: &RunId) -> u32 {
        let run = run.to_string().parse().ok().and_then(|run: usize| self.runs.get(run));
        run.map_or(0, |run| self.machines[run.machine].plan.timing.lease_duration().as_secs() as u32)
    }

    /// Records which mark a run has observed at a revision.
    fn record_observation(&mut self, run: usize, stored: Option<&Stored>, at_revision: u64) {
        let elector = &mut self.runs[run].elector;
        (elector.observed_revision, elector.observed) = (stored.map_or(0, revision), stored.cloned());
        let observed_marks = &mut self.runs[run].observed_marks;
        let stored_duration = stored.and_then(|stored| stored.record.lease_duration_seconds).unwrap_or_default().into();
        match (stored.and_then(|stored| stored.record.mark()), observed_marks.last_mut()) {
            (Some(mark), last) => {
                let writer = mark.run.to_string().parse().unwrap_or(run);
                match last {
                    Some(last) if last.run == writer => {
                        *last = ObservedMark {
                            run: writer,
                            longest_duration: last.longest_duration.max(stored_duration),
                            gone_at_revision: None,
                            gone_without_successor: false,
                        };
                    }
                    last => {
                        if let Some(last) = last {
                            last.gone_at_revision = last.gone_at_revision.or(Some(at_revision));
                        }
                        observed_marks.push(ObservedMark {
                            run: writer,
                            longest_duration: stored_duration,
                            gone_at_revision: None,
                            gone_without_successor: false,
                        });
                    }
                }
            }
            (None, Some(last)) => {
                (last.gone_at_revision, last.gone_without_successor) =
                    (last.gone_at_revision.or(Some(at_revision)), true)
            }
            (None, None) => {}
        }
    }
}

fn revision(stored: &Stored) -> u64 {
    stored.version.resource_version.parse().unwrap_or_default()
}
