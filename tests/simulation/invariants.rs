//! The invariants: leaderrun's promise (see `docs/safety.md`) is never violated, and without faults there is progress.

use std::fmt;

use leaderrun_core::instant::Instant;
use leaderrun_core::pair::Member;
use leaderrun_core::record::Record;
use leaderrun_core::tenure::Tenure;

use crate::events::Event;
use crate::trace;
use crate::world::{Machine, ObservedMark, RESUME_ALLOWANCE, Run, World};
use testkit::simulated_time::{SECOND, Time, wall};

/// The kind of a violated invariant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViolationKind {
    /// Two commands were alive at the same time.
    Overlap,
    /// A command started with a fencing token that was not greater than all earlier ones.
    TokenNotGreater,
    /// A command started before the time that `--min-hold` allowed after a successful command.
    NotDue,
    /// The lock was released while a process of the command was alive.
    ReleasedWhileAlive,
    /// A process of a command was alive after the deadline by which all must be dead.
    Outlived,
    /// A command got the stop signal although the supervisor had received a renewal that extended its tenure.
    StoppedEarly,
    /// A command was executed after its tenure was over.
    StartedLate,
    /// No candidate led although there were no faults.
    NoLeader,
    /// A candidate still held the lock although its command had ended before the faults ended.
    HeldWithoutCommand,
    /// A leader lost its lock although there were no faults.
    LostWithoutFaults,
}

/// Returns whether an outside edit has displaced the holder: the record was deleted, its mark was changed, or its
/// duration was shortened. After other edits, candidates still see who holds the lock and for how long.
pub fn is_displaced(before: &Record, after: Option<&Record>) -> bool {
    after.is_none_or(|after| {
        after.mark() != before.mark() || after.lease_duration_seconds < before.lease_duration_seconds
    })
}

/// The reason why leaderrun's promise does not cover an overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excuse {
    /// The command's machine is suspended, or leaderrun's two processes have not had time to run since it resumed.
    Suspended,
    /// The holder was displaced, and the new leader had never observed the mark of another run.
    NeverObservedLock,
    /// The holder was displaced, and the new leader had observed the marks of other runs but never this holder's.
    NeverObservedHolder,
    /// The new leader had only observed the holder's record with a shorter duration than the holder had written.
    ObservedShorterDuration,
    /// The new leader had observed that the holder's record was gone, but not that the holder wrote it again. Another
    /// edit then displaced the holder.
    MissedReacquisition,
    /// After the holder was displaced, a third run wrote the record, and one of the other excuses applied to it. The
    /// first record without the holder's mark that the new leader observed had the mark of another run, or the new
    /// leader has not observed that the holder's mark is gone.
    Superseded,
    /// Both processes of leaderrun were killed, and the command's live processes had left its process group.
    LeftProcessGroup,
}

impl Excuse {
    pub const ALL: [Self; 7] = [
        Self::Suspended,
        Self::NeverObservedLock,
        Self::NeverObservedHolder,
        Self::ObservedShorterDuration,
        Self::MissedReacquisition,
        Self::Superseded,
        Self::LeftProcessGroup,
    ];
}

#[derive(Clone, Debug)]
pub struct Violation {
    pub kind: ViolationKind,
    pub at: Time,
    pub description: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at as f64 / SECOND as f64;
        write!(f, "{:?} at {at:.4} s: {}", self.kind, self.description)
    }
}

impl World {
    /// Records the first violation, which ends the schedule.
    pub fn record_violation(&mut self, kind: ViolationKind, description: String) {
        if self.violation.is_none() {
            trace!(self, "**** {kind:?}: {description} ****");
            self.violation = Some(Violation { kind, at: self.now, description });
        }
    }

    /// Checks the invariants for a command that has just started, and tracks the greatest token.
    pub fn check_start(&mut self, run: usize) {
        let now = self.clock(run).boot_time(self.now);
        if self.catch_up_deadline(run).is_none() && self.runs[run].supervisor.starts_late(now) {
            self.record_violation(
                ViolationKind::StartedLate,
                format!("{} starts its command after the end of its tenure", self.name(run)),
            );
        }
        for index in 0..self.live_runs.len() {
            let other = self.live_runs[index];
            if other != run {
                self.check_overlap(run, other);
            }
        }
        // A displaced run may have acquired the lock before the due time was set.
        if self.now < self.not_due_before && !self.runs[run].displaced {
            let description =
                format!("{} starts its command {} ns before it is due", self.name(run), self.not_due_before - self.now);
            self.record_violation(ViolationKind::NotDue, description);
        }
        let token = self.runs[run].fencing_token;
        if token > self.greatest_token {
            self.greatest_token = token;
        } else if !self.plan.migrating && !self.runs[run].token_may_be_exceeded && self.catch_up_deadline(run).is_none()
        {
            let description = format!(
                "{} starts its command with token {token}, which is not greater than {}",
                self.name(run),
                self.greatest_token
            );
            self.record_violation(ViolationKind::TokenNotGreater, description);
        }
    }

    /// Checks that the commands of two runs are not both alive.
    pub fn check_overlap(&mut self, run: usize, other: usize) {
        if !self.runs[run].tree.runs_command() || !self.runs[other].tree.runs_command() {
            return;
        }
        if self.runs[run].tree.has_escaped() || self.runs[other].tree.has_escaped() {
            self.statistics.excused[Excuse::LeftProcessGroup as usize] += 1;
            return;
        }
        if let Some(caught_up_at) = self.catch_up_deadline(run).max(self.catch_up_deadline(other)) {
            self.statistics.excused[Excuse::Suspended as usize] += 1;
            return self.schedule(caught_up_at, Event::CheckOverlap { run, other });
        }
        // The command that started first may belong to the later holder.
        if let Some(excuse) = self.overlap_excuse(run, other).or_else(|| self.overlap_excuse(other, run)) {
            self.statistics.excused[excuse as usize] += 1;
            return;
        }
        let description = format!("the commands of {} and {} are both alive", self.name(run), self.name(other));
        self.record_violation(ViolationKind::Overlap, description);
    }

    /// Returns the excuse if `new_leader` could not know that the command of `holder` might be alive.
    pub fn overlap_excuse(&self, new_leader: usize, holder: usize) -> Option<Excuse> {
        let Run { machine, displaced, superseded, acquired_at_revision, .. } = self.runs[holder];
        if !displaced {
            return None;
        }
        let lease_duration = self.machines[machine].plan.timing.lease_duration().as_secs();
        let observed_marks = &self.runs[new_leader].observed_marks;
        match observed_marks.iter().rfind(|observed| observed.run == holder) {
            None if observed_marks.iter().all(|observed| observed.run == new_leader) => Some(Excuse::NeverObservedLock),
            None => Some(Excuse::NeverObservedHolder),
            Some(ObservedMark { longest_duration, .. }) if *longest_duration < lease_duration => {
                Some(Excuse::ObservedShorterDuration)
            }
            Some(ObservedMark { gone_at_revision: Some(gone_at), .. }) if *gone_at < acquired_at_revision => {
                Some(Excuse::MissedReacquisition)
            }
            Some(ObservedMark { gone_without_successor: false, .. }) if superseded => Some(Excuse::Superseded),
            Some(_) => None,
        }
    }

    /// Returns the time by which the processes of a machine that was suspended will have handled everything that is
    /// due; `None` if that time has passed, or if the machine was never suspended. Until then, a command that was
    /// suspended together with them may still be alive.
    fn catch_up_deadline(&self, run: usize) -> Option<Time> {
        let Machine { plan, suspended_until, .. } = &self.machines[self.runs[run].machine];
        let until = suspended_until + RESUME_ALLOWANCE + plan.clock.true_time(plan.advance());
        (*suspended_until > 0 && self.now < until).then_some(until)
    }

    /// Returns whether an overlap of this run's command with a client-go leader is excused. Any displaced run is
    /// excused, because the simulation does not track which records client-go has observed.
    pub fn excuses_overlap_with_client_go(&self, run: usize) -> bool {
        self.runs[run].displaced || self.catch_up_deadline(run).is_some() || self.runs[run].tree.has_escaped()
    }

    /// Checks that a write of this run, which was just carried out, does not release the lock while the command is
    /// alive.
    pub fn check_release(&mut self, run: usize, is_release: bool) {
        if is_release && self.runs[run].tree.is_any_alive() {
            let description = format!("{} released the lock while its command had a process left", self.name(run));
            self.record_violation(ViolationKind::ReleasedWhileAlive, description);
        }
    }

    /// Records the time from which `--min-hold` allows the next command. This is called after the last write of a
    /// release.
    pub fn record_due_time(&mut self, run: usize) {
        let Run { machine, command_succeeded, .. } = self.runs[run];
        let hold = self.machines[machine].plan.min_hold.filter(|_| command_succeeded && self.plan.accurate_wall_clocks);
        let (store, other_store) = match self.plan.machines[machine].lock.last() {
            Member::First => (&self.store, &self.second_store),
            Member::Second => (&self.second_store, &self.store),
        };
        let acquired = store.record().and_then(|record| record.acquire_time);
        // If the other object of the pair names a dead holder, candidates see a held lock and not the due time.
        let is_hidden = other_store.record().is_some_and(Record::is_held);
        if let Some((hold, acquired)) = hold.zip(acquired).filter(|_| !is_hidden) {
            let acquired = acquired.duration_since(wall(0)).as_nanos() as Time;
            self.not_due_before = acquired + hold.as_nanos() as Time;
        }
    }

    /// Sets the deadline for the death of the command. It can only become earlier.
    pub fn require_death_by(&mut self, run: usize, at: Time) {
        if self.runs[run].death_deadline.is_none_or(|current| at < current) {
            self.runs[run].death_deadline = Some(at);
            self.schedule(at, Event::CheckCommandIsDead { run });
        }
    }

    /// Checks that no process of the command is alive after the deadline for its death.
    pub fn check_command_is_dead(&mut self, run: usize) {
        let Run { tree, .. } = &self.runs[run];
        if !tree.runs_command() || tree.has_escaped() || self.runs[run].death_deadline.is_none_or(|at| at > self.now) {
            return;
        }
        if let Some(caught_up_at) = self.catch_up_deadline(run) {
            return self.schedule(caught_up_at, Event::CheckCommandIsDead { run });
        }
        let description = format!("the command of {} is still alive", self.name(run));
        self.record_violation(ViolationKind::Outlived, description);
    }

    /// Checks that a command does not get the stop signal before the stop instant of its tenure, less the advance for
    /// the machine's delays.
    pub fn check_stop(&mut self, run: usize, now: Instant) {
        let supervisor = &self.runs[run].supervisor;
        let advance = self.machines[self.runs[run].machine].plan.advance();
        let is_early = |tenure: Tenure| now < tenure.earlier_by(advance).stop;
        if !supervisor.elector_gone && supervisor.received_tenure.is_some_and(is_early) {
            let description = format!("{} stops its command, whose tenure was extended", self.name(run));
            self.record_violation(ViolationKind::StoppedEarly, description);
        }
    }

    /// Checks a tenure that ended while the command was alive. This is allowed only if the elector is dead, or if the
    /// run claimed the lock before the faults ended.
    pub fn check_loss(&mut self, run: usize) {
        // If the write that acquired the lock was sent during the faults, its late reply may leave too little time to
        // renew.
        if self.runs[run].claimed_at > self.plan.healthy_from && self.runs[run].elector.alive {
            let description = format!("{} lost its lock although there were no faults", self.name(run));
            self.record_violation(ViolationKind::LostWithoutFaults, description);
        }
    }

    /// Checks that a candidate has led since the faults ended, and that no candidate holds the lock although its
    /// command ended before the faults did.
    pub fn check_leader(&mut self) {
        if self.last_leading_at <= self.plan.healthy_from {
            self.record_violation(ViolationKind::NoLeader, "no candidate leads".to_owned());
        }
        for index in 0..self.live_runs.len() {
            let run = self.live_runs[index];
            let Run { elector, tree, .. } = &self.runs[run];
            let idle_since = self.runs[run].led_since.max(self.runs[run].gone_since);
            if elector.alive && !tree.is_any_alive() && idle_since.is_some_and(|since| since < self.plan.healthy_from) {
                let description = format!("{} holds the lock although its command is gone", self.name(run));
                self.record_violation(ViolationKind::HeldWithoutCommand, description);
            }
        }
    }
}
