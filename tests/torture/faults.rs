//! Injects the faults of a torture run, and ends them.

use std::fs::{self, File};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testkit::proxy::Hold;
use testkit::{Match, Proxy};

use crate::candidate::{FaultyProcesses, LEASE_DURATION};
use crate::plan::{Edit, Fault, LeaderrunProcess, NetworkFault, Step};
use crate::record::{Observation, RecordStore, acquire_write_lock};
use crate::torture_run::{CandidateSeries, TortureRun};
use crate::{processes, rules};

/// The action that ends a fault.
pub enum FaultEnd {
    Heal { series: usize },
    Continue { identity: String, process: LeaderrunProcess },
    ResumeReading { identity: String },
    Release(Hold),
    UnlockFile(File),
    RemoveGarbage { record: usize },
}

impl TortureRun {
    /// Injects a fault, if the rules allow it and it has a target.
    pub fn inject(&mut self, step: Step) {
        let observed = self.stores[step.record].read();
        let holder = observed.as_ref().map(|observed| observed.holder.clone()).unwrap_or_default();
        let is_leader =
            |series: &CandidateSeries| series.candidate.as_ref().is_some_and(|candidate| candidate.identity == holder);
        let leader = self.series.iter().position(is_leader).filter(|_| step.target.prefers_leader);
        let index = leader.unwrap_or(step.target.index);
        if self.try_inject(index, step.record, step.fault, observed.as_ref()).is_some() {
            self.statistics.count(&step.fault.name());
            let target_identity = self.series[index].candidate.as_ref().map(|candidate| &candidate.identity);
            self.trace(format!("{:?} for {target_identity:?}, while {holder:?} is the holder", step.fault));
        } else {
            self.statistics.skipped += 1;
        }
    }

    pub fn end_due_faults(&mut self) {
        let now = Instant::now();
        while let Some(due) = self.fault_ends.iter().position(|(at, _)| *at <= now) {
            let (_, end) = self.fault_ends.swap_remove(due);
            self.end_fault(end);
        }
    }

    pub fn end_all_faults(&mut self) {
        for (_, end) in std::mem::take(&mut self.fault_ends) {
            self.end_fault(end);
        }
        self.series.iter().filter_map(|series| series.proxy.as_ref()).for_each(Proxy::heal);
    }

    /// Injects a fault. Returns `None` if the rules do not allow the fault or it has no target.
    fn try_inject(&mut self, index: usize, record: usize, fault: Fault, observed: Option<&Observation>) -> Option<()> {
        let now = Instant::now();
        match fault {
            Fault::RestartServer => self.cluster.as_ref()?.restart(),
            Fault::Network(fault, duration) => self.inject_network_fault(index, fault, now + duration)?,
            Fault::HoldLockFile(duration) => {
                let RecordStore::File(path) = &self.stores[record] else { return None };
                self.fault_ends.push((now + duration, FaultEnd::UnlockFile(acquire_write_lock(path)?)));
            }
            Fault::Edit(edit) => return self.edit(edit, record, observed?),
            Fault::Kill(process) => self.send_to_one(index, process, Signal::SIGKILL)?,
            Fault::Freeze(process, duration) => {
                self.send_to_one(index, process, Signal::SIGSTOP)?;
                let identity = self.series[index].candidate.as_ref()?.identity.clone();
                self.fault_ends.push((now + duration, FaultEnd::Continue { identity, process }));
            }
            Fault::KillBoth => self.send_to_both(index, Signal::SIGKILL)?,
            Fault::FreezeAndKillBoth(duration) => {
                self.send_to_both(index, Signal::SIGSTOP)?;
                // The whole test sleeps, so that nothing delays the kill.
                thread::sleep(duration);
                self.send_to_both(index, Signal::SIGKILL)?;
            }
            Fault::Signal(signal) => {
                let sent = self.series[index].candidate.as_mut()?.send_to_elector(signal);
                return sent.then_some(());
            }
            Fault::SignalCommand(signal) => {
                let holder = &self.series[index].candidate.as_ref()?.identity;
                let processes = processes::of_torture_run(self.witnesses.directory());
                let command_process = processes.iter().find(|process| process.holder.as_ref() == Some(holder))?;
                kill(Pid::from_raw(command_process.pid), signal).ok()?;
            }
            Fault::PauseReading(duration) => {
                let candidate = self.series[index].candidate.as_ref()?;
                candidate.running.set_reading_paused(true);
                let identity = candidate.identity.clone();
                self.fault_ends.push((now + duration, FaultEnd::ResumeReading { identity }));
            }
        }
        Some(())
    }

    fn send_to_one(&mut self, index: usize, process: LeaderrunProcess, signal: Signal) -> Option<()> {
        let candidate = self.series[index].candidate.as_mut();
        let candidate = candidate.filter(|candidate| rules::may_fail(candidate, process))?;
        candidate.faulty = Some(FaultyProcesses::One(process));
        candidate.send(process, signal).then_some(())
    }

    fn send_to_both(&mut self, index: usize, signal: Signal) -> Option<()> {
        let candidate = self.series[index].candidate.as_mut().filter(|candidate| candidate.may_kill_both)?;
        candidate.faulty = Some(FaultyProcesses::Both);
        candidate.send_to_both(signal).then_some(())
    }

    fn inject_network_fault(&mut self, index: usize, fault: NetworkFault, until: Instant) -> Option<()> {
        let proxy = self.series[index].proxy.as_ref()?;
        match fault {
            NetworkFault::Partition => proxy.partition(),
            NetworkFault::PartitionRequests => proxy.partition_requests(),
            NetworkFault::PartitionResponses => proxy.partition_responses(),
            NetworkFault::SilenceConnections => proxy.silence_connections(),
            NetworkFault::BreakConnections => proxy.break_connections(),
            NetworkFault::RefuseConnections => proxy.refuse_connections(),
            NetworkFault::LoseResponses(count) => proxy.drop_responses(Match::put().next(count)),
            NetworkFault::Respond(status) => proxy.respond(Match::any(), status, (status == 429).then_some(1)),
            NetworkFault::DelayRequests(by) => proxy.delay_requests(Duration::from_millis(by)),
            NetworkFault::DelayResponses(by) => proxy.delay_responses(Duration::from_millis(by)),
            NetworkFault::HoldRequests => {
                self.fault_ends.push((until, FaultEnd::Release(proxy.hold_requests(Match::put().next(2)))));
            }
            NetworkFault::HoldResponses => {
                self.fault_ends.push((until, FaultEnd::Release(proxy.hold_responses(Match::put().next(2)))));
            }
        }
        self.fault_ends.push((until, FaultEnd::Heal { series: index }));
        Some(())
    }

    fn edit(&mut self, edit: Edit, record: usize, observed: &Observation) -> Option<()> {
        let hides_holder = rules::hides_holder(edit);
        let candidates = self.series.iter_mut().filter_map(|series| series.candidate.as_mut());
        if hides_holder && (observed.holder.is_empty() || !rules::all_have_observed(candidates, &observed.holder)) {
            return None;
        }
        let mut identities = self.series.iter().filter_map(|series| Some(&series.candidate.as_ref()?.identity));
        let standby = identities.find(|identity| **identity != observed.holder)?;
        if !self.stores[record].edit(edit, observed, standby) {
            return None;
        }
        let now = Instant::now();
        if hides_holder {
            self.no_start_before = rules::no_start_before(now, LEASE_DURATION);
        }
        if edit == Edit::Garbage {
            self.fault_ends.push((now + LEASE_DURATION / 2, FaultEnd::RemoveGarbage { record }));
        }
        Some(())
    }

    fn end_fault(&mut self, end: FaultEnd) {
        match end {
            FaultEnd::Heal { series } => self.series[series].proxy.iter().for_each(Proxy::heal),
            FaultEnd::Continue { identity, process } => {
                if let Some(candidate) = self.candidate(&identity) {
                    candidate.send(process, Signal::SIGCONT);
                }
            }
            FaultEnd::ResumeReading { identity } => {
                if let Some(candidate) = self.candidate(&identity) {
                    candidate.running.set_reading_paused(false);
                }
            }
            FaultEnd::Release(hold) => hold.release(),
            FaultEnd::UnlockFile(file) => drop(file),
            FaultEnd::RemoveGarbage { record } => {
                let RecordStore::File(path) = &self.stores[record] else { return };
                // This deletes the record. As after all edits that hide the holder, no candidate may start for a while.
                let _ = fs::remove_file(path);
                self.no_start_before = rules::no_start_before(Instant::now(), LEASE_DURATION);
            }
        }
    }
}
