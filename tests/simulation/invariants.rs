//! What must never happen, and what must.

use std::fmt;

use crate::clock::{SECOND, Time};
use crate::tell;
use crate::world::{Event, RESUMING, Run, Seen, World};

/// A promise that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Two commands were alive.
    Overlap,
    /// A command started with a fencing token that was not greater than all before.
    Token,
    /// The lease was given back while a process of the command lived.
    ReleasedAlive,
    /// A command outlived the instant at which the last process has to be dead.
    Outlived,
    /// Nobody led although nothing was wrong.
    NoLeader,
    /// A leader lost its lease although nothing was wrong.
    LostInHealth,
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
        for index in 0..self.living.len() {
            let other = self.living[index];
            if other != run {
                self.check_overlap(run, other);
            }
        }
        let token = self.runs[run].fencing_token;
        if token > self.greatest_token {
            self.greatest_token = token;
        } else if !self.runs[run].tainted && !self.runs[run].displaced && self.resuming(run).is_none() {
            let story = format!("{} starts with token {token} after {}", self.name(run), self.greatest_token);
            self.violate(Broken::Token, story);
        }
    }

    /// Two runs, the later one first.
    pub fn check_overlap(&mut self, run: usize, other: usize) {
        if !self.runs[run].tree.runs() || !self.runs[other].tree.runs() {
            return;
        }
        if let Some(resumed) = self.resuming(run).max(self.resuming(other)) {
            self.tally.excused += 1;
            self.runs[run].tainted = true;
            self.runs[other].tainted = true;
            return self.at(resumed, Event::Recheck { run, other });
        }
        if self.came_new(run, other) || self.came_new(other, run) {
            self.tally.excused += 1;
            self.runs[run].tainted = true;
            self.runs[other].tainted = true;
            return;
        }
        let story = format!("the commands of {} and {} are both alive", self.name(run), self.name(other));
        self.violate(Broken::Overlap, story);
    }

    /// Whether `newcomer` could not know that `holder` held what a third party has emptied or deleted:
    /// it was never shown the record as `holder` wrote it, or wrote it again. Or it was shown only what
    /// a third candidate, that came new, has made of it since.
    pub fn came_new(&self, newcomer: usize, holder: usize) -> bool {
        let Run { displaced, overtaken, restored_at, .. } = self.runs[holder];
        let knew = |seen: &&Seen| seen.run == holder && seen.revision >= restored_at;
        displaced && self.runs[newcomer].seen.iter().rfind(knew).is_none_or(|seen| overtaken && !seen.missed)
    }

    /// Until when a suspended machine's processes are not back in order: frozen and thawed together
    /// with their command, they cannot kill it before they run.
    fn resuming(&self, run: usize) -> Option<Time> {
        let until = self.hosts[self.runs[run].host].suspended_until;
        (until > 0 && self.now < until + RESUMING).then_some(until + RESUMING)
    }

    /// Whether a command may be alive for a reason of its own.
    pub fn is_excused_alone(&self, run: usize) -> bool {
        self.runs[run].displaced || self.runs[run].tainted || self.resuming(run).is_some()
    }

    /// A write of this run has just been carried out.
    pub fn check_release(&mut self, run: usize, released: bool) {
        let gave_back = released || self.store.record().is_some_and(|record| record.holder_identity.is_empty());
        if gave_back && self.runs[run].tree.is_left() {
            let story = format!("{} gave the lease back while its command had a process left", self.name(run));
            self.violate(Broken::ReleasedAlive, story);
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
        if !self.runs[run].tree.runs() || self.runs[run].dead_by.is_none_or(|at| at > self.now) {
            return;
        }
        if let Some(resumed) = self.resuming(run) {
            return self.at(resumed, Event::DeadBy { run });
        }
        let story = format!("the command of {} is still alive", self.name(run));
        self.violate(Broken::Outlived, story);
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
    }
}
