//! What must never happen, and what must.

use std::fmt;

use leaderrun_core::instant::Instant;
use leaderrun_core::pair::Member;
use leaderrun_core::record::Record;

use crate::clock::{SECOND, Time, wall};
use crate::tell;
use crate::world::{Event, RESUMING, Run, Seen, World};

/// A promise that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Two commands were alive.
    Overlap,
    /// A command started with a fencing token that was not greater than all before.
    Token,
    /// A command started before it was due again by the `--min-hold` of one that had ended well.
    NotDue,
    /// The lease was given back while a process of the command lived.
    ReleasedAlive,
    /// A command outlived the instant at which the last process has to be dead.
    Outlived,
    /// A command was told to stop although a renewal had come that bought it more time.
    StoppedInTime,
    /// A command was executed after its tenure was over.
    StartedLate,
    /// Nobody led although nothing was wrong.
    NoLeader,
    /// A lease was kept although its command was long gone, and nothing was wrong.
    HeldForNothing,
    /// A leader lost its lease although nothing was wrong.
    LostInHealth,
}

/// Whether a record no longer says what the run that held it wrote, after a third party has written.
/// Emptying it, or naming another holder, while the run's mark stays and counts changes nothing of that.
pub fn is_displaced(before: &Record, after: Option<&Record>) -> bool {
    after.is_none_or(|after| {
        after.mark() != before.mark() || after.lease_duration_seconds < before.lease_duration_seconds
    })
}

/// Why the promise does not cover an overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excuse {
    /// A command was frozen together with both processes and has been thawed; they have not run yet.
    Thawed,
    /// The holder's record was deleted, emptied, overwritten or shortened, and the newcomer has never
    /// been shown any record.
    NewToTheLease,
    /// The same, and it has been shown other records, but never this holder's.
    NewToTheHolder,
    /// It was shown the holder's record only when that said less than the holder had written.
    ToldLess,
    /// It was shown that the holder's record had gone, but not that there was one again before that went, too.
    HeldAgainUnseen,
    /// It was shown nothing between the holder's record and that of somebody with one of these excuses.
    Overtaken,
    /// Both of the holder's processes were killed, and what is alive had left the command's process group.
    LeftTheGroup,
}

impl Excuse {
    pub const ALL: [Self; 7] = [
        Self::Thawed,
        Self::NewToTheLease,
        Self::NewToTheHolder,
        Self::ToldLess,
        Self::HeldAgainUnseen,
        Self::Overtaken,
        Self::LeftTheGroup,
    ];
}

#[derive(Clone, Debug)]
pub struct Violation {
    pub broken: Broken,
    pub at: Time,
    pub story: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at as f64 / SECOND as f64;
        write!(f, "{:?} at {at:.4} s: {}", self.broken, self.story)
    }
}

impl World {
    pub fn violate(&mut self, broken: Broken, story: String) {
        if self.violation.is_none() {
            tell!(self, "**** {broken:?}: {story} ****");
            self.violation = Some(Violation { broken, at: self.now, story });
        }
    }

    /// A command has just come to life.
    pub fn check_start(&mut self, run: usize) {
        let now = self.clock(run).boot(self.now);
        if self.resuming(run).is_none() && self.runs[run].supervisor.starts_late(now) {
            self.violate(Broken::StartedLate, format!("{} starts its command when its time is over", self.name(run)));
        }
        for index in 0..self.living.len() {
            let other = self.living[index];
            if other != run {
                self.check_overlap(run, other);
            }
        }
        // Whoever was displaced won before that.
        if self.now < self.not_due_before && !self.runs[run].displaced {
            let story = format!("{} starts {} ns before it is due", self.name(run), self.not_due_before - self.now);
            self.violate(Broken::NotDue, story);
        }
        let token = self.runs[run].fencing_token;
        if token > self.greatest_token {
            self.greatest_token = token;
        } else if !self.plan.moving && !self.runs[run].outranked && self.resuming(run).is_none() {
            let story = format!("{} starts with token {token} after {}", self.name(run), self.greatest_token);
            self.violate(Broken::Token, story);
        }
    }

    /// Two runs, the later one first.
    pub fn check_overlap(&mut self, run: usize, other: usize) {
        if !self.runs[run].tree.runs() || !self.runs[other].tree.runs() {
            return;
        }
        if self.runs[run].tree.has_escaped() || self.runs[other].tree.has_escaped() {
            self.tally.excused[Excuse::LeftTheGroup as usize] += 1;
            return;
        }
        if let Some(resumed) = self.resuming(run).max(self.resuming(other)) {
            self.tally.excused[Excuse::Thawed as usize] += 1;
            return self.at(resumed, Event::Recheck { run, other });
        }
        if let Some(excuse) = self.came_new(run, other).or_else(|| self.came_new(other, run)) {
            self.tally.excused[excuse as usize] += 1;
            return;
        }
        let story = format!("the commands of {} and {} are both alive", self.name(run), self.name(other));
        self.violate(Broken::Overlap, story);
    }

    /// Why `newcomer` could not know that `holder` may have a command alive, if it could not.
    pub fn came_new(&self, newcomer: usize, holder: usize) -> Option<Excuse> {
        let Run { host, displaced, overtaken, held_since, .. } = self.runs[holder];
        if !displaced {
            return None;
        }
        let lease_duration = self.hosts[host].plan.timing.lease_duration().as_secs();
        let seen = &self.runs[newcomer].seen;
        match seen.iter().rfind(|seen| seen.run == holder) {
            None if seen.iter().all(|seen| seen.run == newcomer) => Some(Excuse::NewToTheLease),
            None => Some(Excuse::NewToTheHolder),
            Some(Seen { holds_for, .. }) if *holds_for < lease_duration => Some(Excuse::ToldLess),
            Some(Seen { gone: Some(gone), .. }) if *gone < held_since => Some(Excuse::HeldAgainUnseen),
            Some(Seen { missed: false, .. }) if overtaken => Some(Excuse::Overtaken),
            Some(_) => None,
        }
    }

    /// Until when a suspended machine's processes are not back in order: frozen and thawed together
    /// with their command, they cannot kill it before they run.
    fn resuming(&self, run: usize) -> Option<Time> {
        let until = self.hosts[self.runs[run].host].suspended_until;
        (until > 0 && self.now < until + RESUMING).then_some(until + RESUMING)
    }

    /// Whether a command may be alive for a reason of its own.
    pub fn is_excused_alone(&self, run: usize) -> bool {
        self.runs[run].displaced || self.resuming(run).is_some() || self.runs[run].tree.has_escaped()
    }

    /// A write of this run has just been carried out.
    pub fn check_release(&mut self, run: usize, released: bool) {
        if released && self.runs[run].tree.is_left() {
            let story = format!("{} gave the lease back while its command had a process left", self.name(run));
            self.violate(Broken::ReleasedAlive, story);
        }
    }

    /// A run has given the lease back, everywhere: by its `--min-hold`, nobody is due before then.
    pub fn note_due(&mut self, run: usize) {
        let Run { host, ended_well, .. } = self.runs[run];
        let hold = self.hosts[host].plan.min_hold.filter(|_| ended_well && self.plan.right_walls);
        let (store, other) = match self.plan.hosts[host].lock.last() {
            Member::First => (&self.store, &self.second),
            Member::Second => (&self.second, &self.store),
        };
        let acquired = store.record().and_then(|record| record.acquire_time);
        // What somebody left there who is dead hides what is here from those who look at both.
        let is_hidden = other.record().is_some_and(Record::is_held);
        if let Some((hold, acquired)) = hold.zip(acquired).filter(|_| !is_hidden) {
            let acquired = acquired.duration_since(wall(0)).as_nanos() as Time;
            self.not_due_before = acquired + hold.as_nanos() as Time;
        }
    }

    /// The command has to be dead by then; what is earlier counts.
    pub fn dead_by(&mut self, run: usize, at: Time) {
        if self.runs[run].dead_by.is_none_or(|present| at < present) {
            self.runs[run].dead_by = Some(at);
            self.at(at, Event::DeadBy { run });
        }
    }

    pub fn check_dead_by(&mut self, run: usize) {
        let Run { tree, .. } = &self.runs[run];
        if !tree.runs() || tree.has_escaped() || self.runs[run].dead_by.is_none_or(|at| at > self.now) {
            return;
        }
        if let Some(resumed) = self.resuming(run) {
            return self.at(resumed, Event::DeadBy { run });
        }
        let story = format!("the command of {} is still alive", self.name(run));
        self.violate(Broken::Outlived, story);
    }

    /// A command is told to stop because its time is over.
    pub fn check_stop(&mut self, run: usize, now: Instant) {
        let supervisor = &self.runs[run].supervisor;
        if !supervisor.elector_gone && supervisor.bought.is_some_and(|tenure| now < tenure.stop) {
            let story = format!("{} stops its command, whose lease was renewed", self.name(run));
            self.violate(Broken::StoppedInTime, story);
        }
    }

    /// A command has to be stopped because its time is over.
    pub fn check_loss(&mut self, run: usize) {
        let led_since = self.runs[run].led_since.unwrap_or_default();
        if led_since > self.plan.healthy_from && self.runs[run].elector.alive {
            let story = format!("{} lost its lease although nothing was wrong", self.name(run));
            self.violate(Broken::LostInHealth, story);
        }
    }

    pub fn check_leader(&mut self) {
        if self.led_at <= self.plan.healthy_from {
            self.violate(Broken::NoLeader, "nobody leads".to_owned());
        }
        for index in 0..self.living.len() {
            let run = self.living[index];
            let Run { elector, tree, .. } = &self.runs[run];
            let idle_since = self.runs[run].led_since.max(self.runs[run].gone_since);
            if elector.alive && !tree.is_left() && idle_since.is_some_and(|since| since < self.plan.healthy_from) {
                let story = format!("{} has nothing to run and keeps the lease", self.name(run));
                self.violate(Broken::HeldForNothing, story);
            }
        }
    }
}
