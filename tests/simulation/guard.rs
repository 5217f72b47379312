//! The elector's main thread: passes the tenure on, and kills in place of a supervisor that does not.

use std::time::Duration;

use leaderrun::channel::{Gone, Order, Report};
use leaderrun::election::Outcome;
use leaderrun::election::tenure::Tenure;
use leaderrun::process::clock::Instant;

use crate::clock::{MILLISECOND, SECOND};
use crate::command::Parent;
use crate::elector::Notice;
use crate::mutation::Mutation;
use crate::tell;
use crate::world::{Event, Thread, World};

const GIVE_BACK: Duration = Duration::from_millis(1100);
const GOOD_BYE: Duration = Duration::from_millis(50);
const KILL_PAUSE: Duration = Duration::from_millis(5);

/// What the election tells the guard.
#[derive(Clone, Copy, Debug)]
pub enum News {
    Claiming,
    NotWon,
    Lead(Tenure),
    Extend(Tenure),
    StepDown,
    Lose,
    Finished(Outcome),
}

/// The guard's phases, as in production.
#[derive(Clone, Copy, Debug)]
pub enum Phase {
    Waiting { claiming: bool },
    Leading { enforced: Tenure, lost: bool },
    Killing { again_at: Instant },
    Ending { until: Instant },
}

impl World {
    pub fn run_guard(&mut self, run: usize) {
        if !self.runs[run].elector.alive {
            return;
        }
        let now = self.clock(run).boot(self.now);
        while let Some(report) = self.runs[run].elector.reports.pop_front() {
            self.handle_report(run, report, now);
        }
        while let Some(news) = self.runs[run].elector.news.pop_front() {
            self.handle_news(run, news, now);
        }
        if self.handle_time(run, now) {
            return self.elector_exits(run);
        }
        while let Some(signal) = self.runs[run].elector.signals.pop_front() {
            self.handle_signal(run, signal, now);
        }
        self.handle_orphans(run, now);
        let at = match self.runs[run].elector.phase {
            Phase::Waiting { .. } => return,
            Phase::Leading { enforced, .. } => enforced.last_resort(),
            Phase::Killing { again_at } => again_at,
            Phase::Ending { until } => until,
        };
        if self.mutation == Mutation::NoLastResort && matches!(self.runs[run].elector.phase, Phase::Leading { .. }) {
            return;
        }
        let at = self.clock(run).time_of(at) + self.rng.u64(0..MILLISECOND);
        self.wake(run, Thread::Guard, at);
    }

    fn handle_report(&mut self, run: usize, report: Report, now: Instant) {
        match (report, &mut self.runs[run].elector.phase) {
            (Report::Enforcing(tenure), Phase::Leading { enforced, lost: false }) => *enforced = tenure,
            (Report::Gone(Gone { end, lost }), Phase::Leading { .. }) => {
                tell!(self, "{} hears that the command is gone: {end:?}, lost {lost}", self.name(run));
                self.end(run, now);
            }
            _ => {}
        }
    }

    fn handle_news(&mut self, run: usize, news: News, now: Instant) {
        let elector = &mut self.runs[run].elector;
        match (news, &mut elector.phase) {
            (News::Claiming, Phase::Waiting { claiming }) => *claiming = true,
            (News::NotWon, Phase::Waiting { claiming }) => *claiming = false,
            (News::Lead(tenure), Phase::Waiting { .. }) => {
                elector.phase = Phase::Leading { enforced: tenure, lost: false };
                self.order(run, Order::Start { tenure, environment: Vec::new() });
            }
            (News::Lead(_), _) => self.notify(run, Notice::TreeGone),
            (News::StepDown, Phase::Leading { .. }) => self.order(run, Order::Signal(15)),
            (News::Extend(tenure), _) => self.order(run, Order::Extend(tenure)),
            (News::Lose, _) if self.mutation == Mutation::GraceWhenKnownLost => self.lose_by(run, Duration::ZERO),
            (News::Lose, phase) => {
                if let Phase::Leading { enforced, lost } = phase {
                    (*enforced, *lost) = (Tenure::over(now), true);
                }
                self.lose_by(run, Tenure::over(now).last_resort().since(now));
                self.order(run, Order::Lose);
            }
            (News::Finished(outcome), phase) => {
                match (phase, outcome) {
                    (phase @ Phase::Waiting { .. }, Outcome::NotAcquired) => *phase = Phase::Ending { until: now },
                    (Phase::Ending { until }, _) => *until = now,
                    _ => {}
                }
                tell!(self, "{} is finished: {}", self.name(run), Self::outcome(outcome));
            }
            _ => {}
        }
    }

    fn handle_signal(&mut self, run: usize, signal: i32, now: Instant) {
        match self.runs[run].elector.phase {
            Phase::Leading { .. } => self.order(run, Order::Signal(signal)),
            Phase::Waiting { claiming } => {
                self.notify(run, Notice::Stop);
                let patience = if claiming { GIVE_BACK } else { GOOD_BYE };
                self.runs[run].elector.phase = Phase::Ending { until: now + patience };
            }
            Phase::Ending { until } => {
                self.notify(run, Notice::Stop);
                self.runs[run].elector.phase = Phase::Ending { until: until.min(now + GIVE_BACK) };
            }
            Phase::Killing { .. } => {}
        }
    }

    /// Deadlines and the supervisor's death. Whether the end has come.
    fn handle_time(&mut self, run: usize, now: Instant) -> bool {
        let supervisor_dead = !self.runs[run].supervisor.alive;
        match self.runs[run].elector.phase {
            Phase::Leading { .. } if supervisor_dead => {
                if self.mutation == Mutation::ReleaseWhenSupervisorDied {
                    self.end(run, now);
                    return false;
                }
                self.take_over(run, "the supervisor died", now);
            }
            Phase::Waiting { .. } if supervisor_dead => {
                self.notify(run, Notice::Stop);
                self.runs[run].elector.phase = Phase::Ending { until: now + GIVE_BACK };
            }
            Phase::Leading { enforced, .. }
                if now >= enforced.last_resort() && self.mutation != Mutation::NoLastResort =>
            {
                self.take_over(run, "the supervisor is late", now);
            }
            Phase::Killing { again_at } if now >= again_at => self.kill(run, now),
            Phase::Ending { until } => return now >= until,
            _ => {}
        }
        false
    }

    fn take_over(&mut self, run: usize, reason: &str, now: Instant) {
        tell!(self, "{}'s guard takes over: {reason}", self.name(run));
        if self.runs[run].supervisor.alive {
            self.soon(2 * MILLISECOND, Event::SupervisorDies { run });
        }
        self.kill(run, now);
    }

    fn kill(&mut self, run: usize, now: Instant) {
        self.kill_children(run, Parent::Elector);
        self.runs[run].elector.phase = Phase::Killing { again_at: now + KILL_PAUSE };
    }

    fn handle_orphans(&mut self, run: usize, now: Instant) {
        let Phase::Killing { .. } = self.runs[run].elector.phase else { return };
        if !self.runs[run].supervisor.alive && !self.runs[run].tree.is_left() {
            tell!(self, "{}'s guard has nothing left to kill", self.name(run));
            self.end(run, now);
        }
    }

    fn end(&mut self, run: usize, now: Instant) {
        self.notify(run, Notice::TreeGone);
        let timing = &self.hosts[self.runs[run].host].plan.timing;
        let longest_release = timing.renew_deadline() / 2 + Duration::from_millis(500);
        self.runs[run].elector.phase = Phase::Ending { until: now + longest_release };
    }

    fn elector_exits(&mut self, run: usize) {
        tell!(self, "{} exits", self.name(run));
        if self.runs[run].supervisor.alive {
            self.supervisor_dies(run);
        }
        self.elector_gone(run);
    }

    /// The elector's process is no more, for whatever reason.
    pub fn elector_gone(&mut self, run: usize) {
        let elector = &mut self.runs[run].elector;
        elector.alive = false;
        elector.awaited = None;
        self.close_watch(run);
        self.runs[run].tree.bequeath(Parent::Elector, Parent::Init);
        self.rouse(run, Thread::Supervisor);
        let host = self.runs[run].host;
        self.begin_again(host);
        self.bury(run);
    }

    /// SIGKILL to every child.
    pub fn kill_children(&mut self, run: usize, killer: Parent) {
        let children: Vec<usize> = self.runs[run].tree.living_children(killer).collect();
        for process in children {
            if process == 0 || self.mutation != Mutation::KillMainOnly {
                self.soon(2 * MILLISECOND, Event::Die { run, process });
            }
        }
    }

    pub fn notify(&mut self, run: usize, notice: Notice) {
        self.runs[run].elector.notices.push_back(notice);
        self.rouse(run, Thread::Campaign);
    }

    fn order(&mut self, run: usize, order: Order) {
        let supervisor = &mut self.runs[run].supervisor;
        if supervisor.alive {
            supervisor.orders.push_back(order);
            self.rouse(run, Thread::Supervisor);
        }
    }

    fn lose_by(&mut self, run: usize, patience: Duration) {
        let at = self.now + self.clock(run).true_time(patience + crate::plan::KILLING);
        self.dead_by(run, at.min(self.now + SECOND));
    }
}
