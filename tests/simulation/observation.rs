//! What an election is shown of the record: as a mutation changes it, and noted for the invariants.

use leaderrun_core::election::{ElectionInputs, Now, Reply, WatchEvent};
use leaderrun_core::record::{RunId, RunState, Stored};

use crate::mutation::Mutation;
use crate::world::{Run, Seen, World};

impl World {
    pub fn reply_as_shown(&mut self, run: usize, reply: Reply, told: u64) -> Reply {
        match reply {
            Reply::Read(stored) => {
                let revision = stored.as_ref().map_or(0, revision);
                let elector = &mut self.runs[run].elector;
                if elector.heeds_reply {
                    // An election that reads what its watch should have said listens to it no more.
                    elector.heeds_watch &= elector.shown == revision;
                    self.note_seen(run, stored.as_ref(), told);
                }
                Reply::Read(stored.map(|stored| self.shown_to(run, stored)))
            }
            Reply::Written(stored) => {
                if self.runs[run].elector.heeds_reply {
                    self.note_seen(run, Some(&stored), revision(&stored));
                }
                Reply::Written(self.shown_to(run, stored))
            }
            reply => reply,
        }
    }

    pub fn watch_event_as_shown(&self, run: usize, event: WatchEvent) -> WatchEvent {
        match event {
            WatchEvent::Changed(stored) => WatchEvent::Changed(self.shown_to(run, stored)),
            event => event,
        }
    }

    /// Notes what a watch event has told the election.
    pub fn note_watch_event(&mut self, run: usize, event: &WatchEvent) {
        if !self.runs[run].elector.heeds_watch {
            return;
        }
        match event {
            WatchEvent::Changed(stored) => self.note_seen(run, Some(stored), revision(stored)),
            WatchEvent::Deleted => {
                let told = self.store.deleted_after(self.runs[run].elector.shown);
                self.note_seen(run, None, told);
            }
            _ => {}
        }
    }

    /// A record as this run gets to see it.
    fn shown_to(&self, run: usize, mut stored: Stored) -> Stored {
        if let (Mutation::FirstCounts, Some(both)) = (self.mutation, &self.runs[run].elector.both) {
            return Stored { record: both.first_record(), ..stored };
        }
        let timing = &self.hosts[self.runs[run].host].plan.timing;
        let id = &self.runs[run].id;
        let said = stored.record.lease_duration_seconds.unwrap_or_default();
        match (self.mutation, &mut stored.record.run) {
            (Mutation::OwnDuration, _) => {
                stored.record.lease_duration_seconds = Some(timing.lease_duration().as_secs() as u32);
            }
            (Mutation::MineByName, Some(mark))
                if stored.record.holder_identity == self.hosts[self.runs[run].host].plan.identity =>
            {
                mark.run = id.clone();
            }
            (Mutation::LastDuration, Some(mark)) if said < self.stated_by(&mark.run) => {
                mark.run = RunId::new("a run that has said nothing before");
            }
            (Mutation::NotBeforeIgnored, _) => stored.record.not_before = None,
            (Mutation::NoWaitAfterEmptying, Some(mark)) if mark.run != *id => stored.record.run = None,
            _ => {}
        }
        stored
    }

    /// Shows what an own write has replaced as released, whoever held it.
    pub fn pass_for_released(&mut self, run: usize, reply: &Reply, now: Now) {
        let (Reply::Written(shown) | Reply::Read(Some(shown))) = reply else { return };
        let Run { id, elector, .. } = &mut self.runs[run];
        let is_mine = |stored: &Stored| stored.record.mark().is_some_and(|mark| mark.run == *id);
        let Some(mut before) = elector.observed.clone().filter(|before| is_mine(shown) && !is_mine(before)) else {
            return;
        };
        before.record.holder_identity.clear();
        if let Some(mark) = &mut before.record.run {
            mark.state = RunState::Released;
        }
        self.step_election(run, now, ElectionInputs::watch_event(WatchEvent::Changed(before)));
    }

    /// The lease duration that a run writes, in seconds.
    fn stated_by(&self, run: &RunId) -> u32 {
        let run = run.to_string().parse().ok().and_then(|run: usize| self.runs.get(run));
        run.map_or(0, |run| self.hosts[run.host].plan.timing.lease_duration().as_secs() as u32)
    }

    /// Notes whose marks a run knows, from what it is told of a revision.
    fn note_seen(&mut self, run: usize, stored: Option<&Stored>, told: u64) {
        let elector = &mut self.runs[run].elector;
        (elector.shown, elector.observed) = (stored.map_or(0, revision), stored.cloned());
        let seen = &mut self.runs[run].seen;
        let said = stored.and_then(|stored| stored.record.lease_duration_seconds).unwrap_or_default().into();
        match (stored.and_then(|stored| stored.record.mark()), seen.last_mut()) {
            (Some(mark), last) => {
                let writer = mark.run.to_string().parse().unwrap_or(run);
                match last {
                    Some(last) if last.run == writer => {
                        *last = Seen { run: writer, holds_for: last.holds_for.max(said), gone: None, missed: false };
                    }
                    last => {
                        if let Some(last) = last {
                            last.gone = last.gone.or(Some(told));
                        }
                        seen.push(Seen { run: writer, holds_for: said, gone: None, missed: false });
                    }
                }
            }
            (None, Some(last)) => (last.gone, last.missed) = (last.gone.or(Some(told)), true),
            (None, None) => {}
        }
    }
}

fn revision(stored: &Stored) -> u64 {
    stored.version.resource_version.parse().unwrap_or_default()
}
