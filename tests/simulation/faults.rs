//! The faults that the simulation injects, and the code that injects them.

use jiff::SignedDuration;
use leaderrun_core::election::WatchEvent;
use leaderrun_core::record::Record;

use crate::elector::RESTART_PAUSE;
use crate::events::{Event, Thread};
use crate::plan::machine_name;
use crate::trace;
use crate::world::{Machine, RESUME_ALLOWANCE, World};
use testkit::simulated_time::{MILLISECOND, SECOND, Time};

/// A fault that is injected at a random time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Partition,
    PartitionRequests,
    PartitionReplies,
    ServerRestart,
    WatchesEnd,
    WatchesStall,
    HistoryCompacted,
    Suspend,
    WallClockJumps,
    /// An admission policy of the API server shortens the lease duration in every record that a candidate writes.
    AdmissionShortens,
    /// A fault of one run's processes.
    Process(ProcessFault),
    /// An edit of the lease by another client.
    Edit(OutsideEdit),
}

/// A fault of one run's processes, or a signal to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessFault {
    FreezeElector,
    FreezeSupervisor,
    FreezeElectionThread,
    CrashElector,
    CrashSupervisor,
    /// Both processes of a run are killed at the same instant.
    CrashBoth,
    TerminationSignal,
}

/// An edit of the lease by another client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutsideEdit {
    ChangeOtherField,
    Delete,
    Recreate,
    EditHolder,
    RemoveHolderAndMark,
    RemoveHolder,
    /// Sets the lease duration in the record to one second.
    Shorten,
    /// Sets the lease duration in the record to the longest one that any candidate is configured with.
    Lengthen,
    /// Removes leaderrun's annotations, and keeps the fields that all implementations share.
    RemoveAnnotations,
    /// Restores an earlier record. Its mark is kept unless it is only valid in another object.
    RestoreOldRecord,
    /// Replaces the record with that of another lock. Its mark is not valid here.
    CopyAnotherLock,
    /// Asks the holder to step down.
    StepDown,
}

impl Fault {
    /// All faults. leaderrun guarantees that two commands for the same lock are never alive at the same time, except
    /// under some of these faults. An overlap that such a fault causes is [excused](crate::invariants::Excuse).
    pub const ALL: [Self; 29] = [
        Self::Partition,
        Self::PartitionRequests,
        Self::PartitionReplies,
        Self::ServerRestart,
        Self::WatchesEnd,
        Self::WatchesStall,
        Self::HistoryCompacted,
        Self::Process(ProcessFault::FreezeElector),
        Self::Process(ProcessFault::FreezeSupervisor),
        Self::Process(ProcessFault::FreezeElectionThread),
        Self::Process(ProcessFault::CrashElector),
        Self::Process(ProcessFault::CrashSupervisor),
        Self::Process(ProcessFault::CrashBoth),
        Self::Suspend,
        Self::WallClockJumps,
        Self::AdmissionShortens,
        Self::Process(ProcessFault::TerminationSignal),
        Self::Edit(OutsideEdit::ChangeOtherField),
        Self::Edit(OutsideEdit::Delete),
        Self::Edit(OutsideEdit::Recreate),
        Self::Edit(OutsideEdit::EditHolder),
        Self::Edit(OutsideEdit::RemoveHolderAndMark),
        Self::Edit(OutsideEdit::RemoveHolder),
        Self::Edit(OutsideEdit::Shorten),
        Self::Edit(OutsideEdit::Lengthen),
        Self::Edit(OutsideEdit::RemoveAnnotations),
        Self::Edit(OutsideEdit::RestoreOldRecord),
        Self::Edit(OutsideEdit::CopyAnotherLock),
        Self::Edit(OutsideEdit::StepDown),
    ];
}

impl World {
    pub fn schedule_fault(&mut self) {
        let at = self.now + 1 + self.rng.u64(..2 * self.plan.mean_fault_interval);
        if at < self.plan.healthy_from {
            self.schedule(at, Event::InjectFault);
        }
    }

    /// Injects one random fault.
    pub fn inject_fault(&mut self) {
        let fault = self.plan.faults[self.rng.usize(..self.plan.faults.len())];
        self.statistics.faults += 1;
        let until = self.draw_fault_end();
        match fault {
            Fault::Partition | Fault::PartitionRequests | Fault::PartitionReplies => self.partition(fault, until),
            Fault::ServerRestart => {
                trace!(self, "the API server restarts");
                self.server_down_until = until.min(self.now + 5 * SECOND);
                let event = self.rng.bool().then_some(WatchEvent::Broken);
                self.end_watches(event);
            }
            Fault::WatchesEnd => {
                let event = if self.rng.bool() { WatchEvent::Ended } else { WatchEvent::Broken };
                trace!(self, "all watches are cut: {event:?}");
                self.end_watches(Some(event));
            }
            Fault::WatchesStall => {
                trace!(self, "all watches die silently");
                self.end_watches(None);
            }
            Fault::HistoryCompacted => self.store.compact_all(),
            Fault::WallClockJumps => {
                let machine = self.rng.usize(..self.machines.len());
                self.machines[machine].plan.clock.wall_offset =
                    SignedDuration::from_secs(self.rng.i64(-1_000_000..1_000_000));
            }
            Fault::Suspend => self.suspend(until),
            Fault::AdmissionShortens => {
                trace!(self, "an admission policy shortens lease durations until {}", seconds(until));
                self.admission_shortens_until = self.admission_shortens_until.max(until);
            }
            Fault::Process(fault) => self.inject_process_fault(fault, until),
            Fault::Edit(edit) => self.inject_outside_edit(edit),
        }
        self.schedule_fault();
    }

    /// Returns a random time for the end of a fault. The fault can last from milliseconds to longer than a lease.
    fn draw_fault_end(&mut self) -> Time {
        let longest = [50 * MILLISECOND, 2 * SECOND, 20 * SECOND, self.plan.healthy_from][self.rng.usize(..4)];
        (self.now + self.rng.u64(..longest)).min(self.plan.healthy_from)
    }

    fn partition(&mut self, fault: Fault, until: Time) {
        let index = self.rng.usize(..self.machines.len());
        trace!(self, "machine {} is cut off until {} ({fault:?})", machine_name(index), seconds(until));
        let machine = &mut self.machines[index];
        if fault != Fault::PartitionReplies {
            machine.outbound_cut_until = machine.outbound_cut_until.max(until);
        }
        if fault != Fault::PartitionRequests {
            machine.inbound_cut_until = machine.inbound_cut_until.max(until);
        }
    }

    fn suspend(&mut self, until: Time) {
        let index = self.rng.usize(..self.machines.len());
        trace!(self, "machine {} is suspended until {}", machine_name(index), seconds(until));
        let machine = &mut self.machines[index];
        machine.suspended_until = machine.suspended_until.max(until);
    }

    fn inject_process_fault(&mut self, fault: ProcessFault, until: Time) {
        let Some(run) = self.draw_run() else { return };
        let name = self.name(run);
        match fault {
            ProcessFault::FreezeElector if self.supervisor_is_healthy(run) => {
                trace!(self, "{name}'s elector is frozen until {}", seconds(until));
                let frozen_until = &mut self.runs[run].elector.frozen_until;
                *frozen_until = until.max(*frozen_until);
            }
            ProcessFault::FreezeSupervisor if self.elector_is_healthy(run) => {
                trace!(self, "{name}'s supervisor is frozen until {}", seconds(until));
                let frozen_until = &mut self.runs[run].supervisor.frozen_until;
                *frozen_until = until.max(*frozen_until);
            }
            ProcessFault::FreezeElectionThread => {
                trace!(self, "{name}'s election thread is frozen until {}", seconds(until));
                let frozen_until = &mut self.runs[run].elector.election_frozen_until;
                *frozen_until = until.max(*frozen_until);
            }
            ProcessFault::CrashElector if self.supervisor_is_healthy(run) && self.runs[run].elector.alive => {
                trace!(self, "{name}'s elector is killed");
                self.elector_dies(run, RESTART_PAUSE);
            }
            // The elector has sent SIGKILL to the supervisor, so both die.
            ProcessFault::CrashElector if self.runs[run].supervisor.is_killed && self.runs[run].elector.alive => {
                trace!(self, "{name}'s elector is killed while it kills the supervisor");
                self.both_die(run);
            }
            ProcessFault::CrashSupervisor if self.elector_is_healthy(run) => {
                trace!(self, "{name}'s supervisor is killed");
                self.supervisor_dies(run);
            }
            ProcessFault::CrashBoth if self.runs[run].elector.alive && self.runs[run].supervisor.alive => {
                trace!(self, "{name}'s processes are both killed");
                self.both_die(run);
            }
            ProcessFault::TerminationSignal if self.runs[run].elector.alive => {
                trace!(self, "{name} gets SIGTERM");
                self.runs[run].elector.signals.push_back(15);
                self.wake_soon(run, Thread::Main);
            }
            // The process is already dead, or the other process has not recovered from a fault.
            ProcessFault::FreezeElector
            | ProcessFault::FreezeSupervisor
            | ProcessFault::CrashElector
            | ProcessFault::CrashSupervisor
            | ProcessFault::CrashBoth
            | ProcessFault::TerminationSignal => {}
        }
    }

    /// Returns a random run that is alive. If a live run has acquired the lock, it is chosen with a probability of at
    /// least one half.
    fn draw_run(&mut self) -> Option<usize> {
        let leader = self.live_runs.iter().copied().find(|run| self.runs[*run].led_since.is_some());
        if let Some(leader) = leader.filter(|_| self.rng.bool()) {
            return Some(leader);
        }
        if self.live_runs.is_empty() { None } else { Some(self.live_runs[self.rng.usize(..self.live_runs.len())]) }
    }

    /// Returns whether the supervisor is healthy. A fault that freezes or kills only the elector is injected only in
    /// that case, because the supervisor must then be able to end the command in time.
    fn supervisor_is_healthy(&self, run: usize) -> bool {
        let supervisor = &self.runs[run].supervisor;
        // A supervisor that has missed an order may enforce an outdated tenure.
        let disturbed_until = supervisor.frozen_until.max(supervisor.order_lost_at);
        supervisor.alive && !supervisor.is_killed && self.has_recovered(run, disturbed_until)
    }

    fn elector_is_healthy(&self, run: usize) -> bool {
        let elector = &self.runs[run].elector;
        elector.alive && self.has_recovered(run, elector.frozen_until)
    }

    /// Returns whether a process that was disturbed until `disturbed_until`, or suspended with its machine, is running
    /// again and has had time to handle everything that was due.
    fn has_recovered(&self, run: usize, disturbed_until: Time) -> bool {
        let Machine { plan, suspended_until, .. } = &self.machines[self.runs[run].machine];
        let until = disturbed_until.max(*suspended_until);
        until == 0 || self.now > until + RESUME_ALLOWANCE + plan.clock.true_time(plan.advance())
    }

    fn inject_outside_edit(&mut self, edit: OutsideEdit) {
        match edit {
            OutsideEdit::ChangeOtherField => {
                self.store.touch();
                self.publish();
            }
            // A request to step down changes neither the holder nor the time before which the lock must not be
            // acquired. It is therefore not made through `outside_edit`, after which the simulation no longer checks
            // that nobody acquires the lock before that time.
            OutsideEdit::StepDown => {
                if let Some(mut record) = self.store.record().cloned() {
                    record.step_down = record.mark().map(|mark| mark.run.clone());
                    self.store.write(record);
                    self.publish();
                }
            }
            OutsideEdit::Delete => self.outside_edit("deletes the lease", |_| None),
            OutsideEdit::Recreate => {
                self.outside_edit("deletes the lease", |_| None);
                let copy = self.archive.back().cloned().map(|(copy, _)| copy).filter(|_| self.rng.bool());
                let record = Record { run: None, holder_identity: String::new(), ..copy.unwrap_or_default() };
                self.schedule_within(SECOND, Event::RecreateLease(Box::new(record)));
            }
            OutsideEdit::EditHolder => {
                self.edit("names another holder", |record| record.holder_identity = "other client".into())
            }
            OutsideEdit::RemoveHolderAndMark => self.edit("removes the holder and the mark", |record| {
                record.holder_identity.clear();
                record.run = None;
            }),
            OutsideEdit::RemoveHolder => self.edit("removes the holder", |record| record.holder_identity.clear()),
            OutsideEdit::Shorten => self.edit("shortens the lease", |record| record.lease_duration_seconds = Some(1)),
            // A real admission policy would also shorten this write, but the simulated one shortens only candidates'
            // writes. Therefore, once a policy has been active, this edit is no longer made.
            OutsideEdit::Lengthen if self.admission_shortens_until > 0 => {}
            OutsideEdit::Lengthen => {
                let longest =
                    self.plan.machines.iter().map(|machine| machine.timing.lease_duration().as_secs() as u32).max();
                self.edit("lengthens the lease", |record| record.lease_duration_seconds = longest);
            }
            OutsideEdit::RemoveAnnotations => self.edit("removes the annotations", |record| {
                *record = Record {
                    holder_identity: std::mem::take(&mut record.holder_identity),
                    lease_duration_seconds: record.lease_duration_seconds,
                    acquire_time: record.acquire_time,
                    renew_time: record.renew_time,
                    lease_transitions: record.lease_transitions,
                    ..Record::default()
                }
            }),
            OutsideEdit::RestoreOldRecord if !self.archive.is_empty() => {
                let (mut old, uid) = self.archive[self.rng.usize(..self.archive.len())].clone();
                // A mark that contains a uid is valid only in the object with that uid. The mark of the write that
                // creates the object contains none, so it is valid in every object. An archived record does not show
                // whether it came from that write or from a later renewal by the first holder, so all of the first
                // holder's marks are kept.
                let may_lack_uid = old.lease_transitions == 0;
                if !may_lack_uid && self.store.object().is_some_and(|current| current.version.uid != uid) {
                    old.run = None;
                }
                self.outside_edit("restores an old record", |_| Some(old));
            }
            // A mark is valid only for the lock that it was written for, so the copy has no valid mark.
            OutsideEdit::CopyAnotherLock => {
                let copy = Record {
                    holder_identity: "holder of another lock".into(),
                    lease_duration_seconds: Some(1),
                    lease_transitions: self.rng.u32(..10),
                    renew_time: Some(testkit::simulated_time::wall(self.now)),
                    ..Record::default()
                };
                self.edit("copies another lock's record here", |record| *record = copy);
            }
            // There is no earlier record yet.
            OutsideEdit::RestoreOldRecord => {}
        }
    }

    fn edit(&mut self, how: &str, change: impl FnOnce(&mut Record)) {
        if self.store.object().is_some() {
            self.outside_edit(how, |current| {
                let mut record = current?;
                change(&mut record);
                Some(record)
            });
        }
    }
}

fn seconds(at: Time) -> f64 {
    at as f64 / SECOND as f64
}
