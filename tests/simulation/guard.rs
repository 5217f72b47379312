//! The elector's main thread: the production policy, driven like the guard drives it.

use std::ops::Range;
use std::time::Duration;

use leaderrun_core::elector::{Action, Event, Failure, Notice};
use leaderrun_core::exit::Exit;
use leaderrun_core::instant::Instant;
use leaderrun_core::messages::{End, Gone, Order, Report};
use leaderrun_core::tenure::Tenure;

use crate::clock::{MILLISECOND, SECOND, Time};
use crate::command::Parent;
use crate::mutation::Mutation;
use crate::tell;
use crate::world::{self, Run, Thread, World};

/// How long machines take to start leaderrun again when it has come to an end.
pub const RESTARTED_AFTER: Range<Time> = SECOND / 20..3 * SECOND;

const KILL_PAUSE: Duration = Duration::from_millis(5);

impl World {
    /// One round of the loop.
    pub fn run_guard(&mut self, run: usize) {
        if !self.runs[run].elector.alive {
            return;
        }
        let now = self.clock(run).boot(self.now);
        while let Some(report) = self.runs[run].elector.reports.pop_front() {
            if let Report::Gone(Gone { end, lost }) = &report {
                tell!(self, "{} hears that the command is gone: {end:?}, lost {lost}", self.name(run));
            }
            self.runs[run].elector.policy.handle_report(now, report);
        }
        while let Some(event) = self.runs[run].elector.events.pop_front() {
            self.handle_event(run, event, now);
        }
        if !self.runs[run].supervisor.alive && !self.runs[run].elector.supervisor_gone {
            self.runs[run].elector.supervisor_gone = true;
            self.handle_supervisor_dead(run, now);
        }
        let Run { elector, tree, .. } = &mut self.runs[run];
        if self.mutation != Mutation::NoLastResort || !tree.is_left() {
            elector.policy.handle_timeout(now);
        }
        while let Some(signal) = elector.signals.pop_front() {
            elector.policy.handle_signal(now, signal);
        }
        self.handle_orphans(run, now);
        while let Some(action) = self.runs[run].elector.policy.poll_action() {
            match action {
                Action::Order(order) => self.order(run, order),
                Action::Notify(notice) => self.notify(run, notice),
                Action::LastResort(failure) => self.kill_all(run, failure, now),
                Action::Tell(_) => {}
                Action::End(exit) => return self.elector_exits(run, exit),
            }
        }
        if self.runs[run].elector.kill_again_at.is_some_and(|at| now >= at) {
            self.kill(run, now);
        }
        let elector = &self.runs[run].elector;
        if let Some(at) = elector.policy.next_timeout().into_iter().chain(elector.kill_again_at).min() {
            let at = self.clock(run).time_of(at).max(self.now) + self.rng.u64(0..MILLISECOND);
            self.wake(run, Thread::Guard, at);
        }
    }

    fn handle_event(&mut self, run: usize, event: Event, now: Instant) {
        match event {
            Event::Lose if self.mutation == Mutation::GraceWhenKnownLost => return self.lose_by(run, Duration::ZERO),
            Event::Lose => self.lose_by(run, Tenure::over(now).last_resort().since(now)),
            Event::Finished(outcome) => tell!(self, "{} is finished: {}", self.name(run), Self::outcome(outcome)),
            _ => {}
        }
        self.runs[run].elector.policy.handle_event(now, event);
    }

    fn handle_supervisor_dead(&mut self, run: usize, now: Instant) {
        let policy = &mut self.runs[run].elector.policy;
        if self.mutation == Mutation::ReleaseWhenSupervisorDied {
            policy.handle_report(now, Report::Gone(Gone { end: End::Exited(0), lost: false }));
        }
        policy.handle_supervisor_dead(now);
    }

    fn kill_all(&mut self, run: usize, failure: Failure, now: Instant) {
        tell!(self, "{}'s guard takes over: its supervisor failed, {failure:?}", self.name(run));
        if self.runs[run].supervisor.alive {
            self.soon(2 * MILLISECOND, world::Event::SupervisorDies { run });
        }
        self.kill(run, now);
    }

    fn kill(&mut self, run: usize, now: Instant) {
        self.kill_children(run, Parent::Elector);
        self.runs[run].elector.kill_again_at = Some(now + KILL_PAUSE);
    }

    fn handle_orphans(&mut self, run: usize, now: Instant) {
        if !self.runs[run].supervisor.alive && !self.runs[run].tree.is_left() {
            self.runs[run].elector.kill_again_at = None;
            self.runs[run].elector.policy.handle_tree_empty(now);
        }
    }

    fn elector_exits(&mut self, run: usize, exit: Exit) {
        tell!(self, "{} exits with status {}", self.name(run), exit.status);
        if self.runs[run].supervisor.alive {
            self.supervisor_dies(run);
        }
        let rejoins = exit.may_rejoin && self.hosts[self.runs[run].host].plan.rejoins;
        self.elector_gone(run, if rejoins { MILLISECOND..20 * MILLISECOND } else { RESTARTED_AFTER });
    }

    /// The elector's process is no more, for whatever reason; leaderrun is started again after a while.
    pub fn elector_gone(&mut self, run: usize, again_after: Range<Time>) {
        let elector = &mut self.runs[run].elector;
        elector.alive = false;
        elector.awaited = None;
        self.close_watch(run);
        self.runs[run].tree.bequeath(Parent::Elector, Parent::Init);
        self.rouse(run, Thread::Supervisor);
        let host = self.runs[run].host;
        let pause = self.rng.u64(again_after);
        self.at(self.now + pause, world::Event::Begin { host });
        self.bury(run);
    }

    /// SIGKILL to every child.
    pub fn kill_children(&mut self, run: usize, killer: Parent) {
        let children: Vec<usize> = self.runs[run].tree.living_children(killer).collect();
        for process in children {
            if process == 0 || self.mutation != Mutation::KillMainOnly {
                self.soon(2 * MILLISECOND, world::Event::Die { run, process });
            }
        }
    }

    pub fn notify(&mut self, run: usize, notice: Notice) {
        self.runs[run].ended_well |= notice == Notice::TreeGone { well: true };
        self.runs[run].elector.notices.push_back(notice);
        self.rouse(run, Thread::Election);
    }

    fn order(&mut self, run: usize, order: Order) {
        if !self.runs[run].supervisor.alive {
            return;
        }
        if self.is_lost(self.plan.network.order_lost) {
            self.runs[run].supervisor.deaf_at = self.now;
            return tell!(self, "{}'s order is lost: {order:?}", self.name(run));
        }
        let supervisor = &mut self.runs[run].supervisor;
        if let Order::Start { tenure, .. } | Order::Extend(tenure) = &order {
            supervisor.bought = Some(*tenure);
        }
        supervisor.orders.push_back(order);
        self.rouse(run, Thread::Supervisor);
    }

    fn lose_by(&mut self, run: usize, patience: Duration) {
        let at = self.now + self.clock(run).true_time(patience + crate::plan::KILLING);
        self.dead_by(run, at.min(self.now + SECOND));
    }
}
