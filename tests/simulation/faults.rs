//! What goes wrong.

use jiff::SignedDuration;
use leaderrun_core::election::WatchEvent;
use leaderrun_core::record::Record;

use crate::clock::{MILLISECOND, SECOND, Time};
use crate::elector::RESTARTED_AFTER;
use crate::plan::{Fault, host_name};
use crate::tell;
use crate::world::{Event, RESUMING, Thread, World};

impl World {
    pub fn next_fault(&mut self) {
        let at = self.now + 1 + self.rng.u64(..2 * self.plan.between_faults);
        if at < self.plan.healthy_from {
            self.at(at, Event::Fault);
        }
    }

    /// One fault, somewhere, for some time.
    pub fn inflict(&mut self) {
        let fault = self.plan.faults[self.rng.usize(..self.plan.faults.len())];
        self.tally.faults += 1;
        let until = self.until();
        match fault {
            Fault::CutOff | Fault::CutOffOutward | Fault::CutOffInward => self.cut_off(fault, until),
            Fault::ServerRestart => {
                tell!(self, "the API server restarts");
                self.server_down_until = until.min(self.now + 5 * SECOND);
                let event = self.rng.bool().then_some(WatchEvent::Broken);
                self.end_watches(event);
            }
            Fault::WatchesCut => {
                let event = if self.rng.bool() { WatchEvent::Ended } else { WatchEvent::Broken };
                tell!(self, "all watches are cut: {event:?}");
                self.end_watches(Some(event));
            }
            Fault::WatchesDie => {
                tell!(self, "all watches die in silence");
                self.end_watches(None);
            }
            Fault::HistoryCompacted => self.store.compact_all(),
            Fault::WallClockJumps => {
                let host = self.rng.usize(..self.hosts.len());
                self.hosts[host].plan.clock.wall = SignedDuration::from_secs(self.rng.i64(-1_000_000..1_000_000));
            }
            Fault::Suspend => self.suspend(until),
            Fault::FreezeElector
            | Fault::FreezeSupervisor
            | Fault::FreezeNetworkThread
            | Fault::CrashElector
            | Fault::CrashSupervisor
            | Fault::CrashBoth
            | Fault::AskToEnd => self.inflict_on_process(fault, until),
            _ => self.meddle_somehow(fault),
        }
        self.next_fault();
    }

    /// Until when a fault lasts: often for a moment, sometimes for longer than a lease.
    fn until(&mut self) -> Time {
        let longest = [50 * MILLISECOND, 2 * SECOND, 20 * SECOND, self.plan.healthy_from][self.rng.usize(..4)];
        (self.now + self.rng.u64(..longest)).min(self.plan.healthy_from)
    }

    fn cut_off(&mut self, fault: Fault, until: Time) {
        let index = self.rng.usize(..self.hosts.len());
        tell!(self, "machine {} is cut off until {} ({fault:?})", host_name(index), seconds(until));
        let host = &mut self.hosts[index];
        if fault != Fault::CutOffInward {
            host.out_cut_until = host.out_cut_until.max(until);
        }
        if fault != Fault::CutOffOutward {
            host.in_cut_until = host.in_cut_until.max(until);
        }
    }

    fn suspend(&mut self, until: Time) {
        let index = self.rng.usize(..self.hosts.len());
        tell!(self, "machine {} is suspended until {}", host_name(index), seconds(until));
        let host = &mut self.hosts[index];
        host.suspended_until = host.suspended_until.max(until);
    }

    fn inflict_on_process(&mut self, fault: Fault, until: Time) {
        let Some(run) = self.draw_run() else { return };
        let name = self.name(run);
        match fault {
            Fault::FreezeElector if self.supervisor_is_well(run) => {
                tell!(self, "{name}'s elector is stopped until {}", seconds(until));
                let stopped = &mut self.runs[run].elector.frozen_until;
                *stopped = until.max(*stopped);
            }
            Fault::FreezeSupervisor if self.elector_is_well(run) => {
                tell!(self, "{name}'s supervisor is stopped until {}", seconds(until));
                let stopped = &mut self.runs[run].supervisor.frozen_until;
                *stopped = until.max(*stopped);
            }
            Fault::FreezeNetworkThread => {
                tell!(self, "{name}'s network thread hangs until {}", seconds(until));
                let stopped = &mut self.runs[run].elector.network_frozen_until;
                *stopped = until.max(*stopped);
            }
            Fault::CrashElector if self.supervisor_is_well(run) && self.runs[run].elector.alive => {
                tell!(self, "{name}'s elector is killed");
                self.elector_gone(run, RESTARTED_AFTER);
            }
            Fault::CrashSupervisor if self.elector_is_well(run) => {
                tell!(self, "{name}'s supervisor is killed");
                self.supervisor_dies(run);
            }
            Fault::CrashBoth if self.runs[run].elector.alive && self.runs[run].supervisor.alive => {
                tell!(self, "{name}'s processes are both killed");
                self.both_die(run);
            }
            Fault::AskToEnd if self.runs[run].elector.alive => {
                tell!(self, "{name} is asked to end");
                self.runs[run].elector.signals.push_back(15);
                self.rouse(run, Thread::Main);
            }
            _ => {}
        }
    }

    /// Mostly a run that leads: that is where it hurts.
    fn draw_run(&mut self) -> Option<usize> {
        let leading = self.living.iter().copied().find(|run| self.runs[*run].led_since.is_some());
        if let Some(leading) = leading.filter(|_| self.rng.bool()) {
            return Some(leading);
        }
        if self.living.is_empty() { None } else { Some(self.living[self.rng.usize(..self.living.len())]) }
    }

    /// The promise holds through the failure of one of the two processes, so the other one is well.
    fn supervisor_is_well(&self, run: usize) -> bool {
        let supervisor = &self.runs[run].supervisor;
        supervisor.alive && self.is_in_order(run, supervisor.frozen_until.max(supervisor.deaf_at))
    }

    fn elector_is_well(&self, run: usize) -> bool {
        let elector = &self.runs[run].elector;
        elector.alive && self.is_in_order(run, elector.frozen_until)
    }

    /// Not stopped, and it has had the time to notice what had come before, or the other one to do without.
    fn is_in_order(&self, run: usize, frozen_until: Time) -> bool {
        let until = frozen_until.max(self.hosts[self.runs[run].host].suspended_until);
        until == 0 || self.now > until + RESUMING
    }

    fn meddle_somehow(&mut self, fault: Fault) {
        match fault {
            Fault::Touch => {
                self.store.touch();
                self.publish();
            }
            // Nobody is displaced by it.
            Fault::StepDown => {
                if let Some(mut record) = self.store.record().cloned() {
                    record.step_down = record.mark().map(|mark| mark.run.clone());
                    self.store.write(record);
                    self.publish();
                }
            }
            Fault::Delete => self.meddle("deletes the lease", |_| None),
            Fault::Recreate => {
                self.meddle("deletes the lease", |_| None);
                let copy = self.archive.back().cloned().map(|(copy, _)| copy).filter(|_| self.rng.bool());
                let record = Record { run: None, holder_identity: String::new(), ..copy.unwrap_or_default() };
                self.soon(SECOND, Event::Restore(Box::new(record)));
            }
            Fault::EditHolder => self.edit("names another holder", |record| record.holder_identity = "meddler".into()),
            Fault::Empty => self.edit("empties the lease and its annotation", |record| {
                record.holder_identity.clear();
                record.run = None;
            }),
            Fault::EmptyWithMark => self.edit("empties the lease", |record| record.holder_identity.clear()),
            Fault::Shorten => self.edit("shortens the lease", |record| record.lease_duration_seconds = Some(1)),
            Fault::PutBack if !self.archive.is_empty() => {
                let (mut old, uid) = self.archive[self.rng.usize(..self.archive.len())].clone();
                // A mark counts for the object that it was written to.
                let is_bound = old.lease_transitions > 0;
                if is_bound && self.store.object().is_some_and(|present| present.version.uid != uid) {
                    old.run = None;
                }
                self.meddle("puts an old state back", |_| Some(old));
            }
            // A mark counts for the lock that it was written for.
            Fault::CopyOfAnother => {
                let copy = Record {
                    holder_identity: "holder of another lock".into(),
                    lease_duration_seconds: Some(1),
                    lease_transitions: self.rng.u32(..10),
                    renew_time: Some(crate::clock::wall(self.now)),
                    ..Record::default()
                };
                self.edit("copies another lock's record here", |record| *record = copy);
            }
            _ => {}
        }
    }

    fn edit(&mut self, how: &str, change: impl FnOnce(&mut Record)) {
        if self.store.object().is_some() {
            self.meddle(how, |present| {
                let mut record = present?;
                change(&mut record);
                Some(record)
            });
        }
    }
}

fn seconds(at: Time) -> f64 {
    at as f64 / SECOND as f64
}
