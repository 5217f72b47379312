//! The inner process: the production policy over a simulated tree of processes.

use std::collections::VecDeque;
use std::time::Duration;

use leaderrun_core::instant::Instant;
use leaderrun_core::messages::{End, Gone, Order, Report};
use leaderrun_core::supervisor::{Action, Policy, StopOptions};
use leaderrun_core::tenure::Tenure;

use crate::clock::{MILLISECOND, Time};
use crate::command::Parent;
use crate::mutation::Mutation;
use crate::plan::{HostPlan, KILLING};
use crate::tell;
use crate::world::{Event, Run, Thread, World};

const TERM: i32 = 15;
/// Between two looks at a tree that does not die, as in production.
const KILL_PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(100));

#[derive(Debug)]
pub struct Supervisor {
    pub alive: bool,
    pub frozen_until: Time,
    pub policy: Policy,
    pub orders: VecDeque<Order>,
    /// What the latest renewal bought of which it was told.
    pub bought: Option<Tenure>,
    /// An order was last lost.
    pub deaf_at: Time,
    stop_options: StopOptions,
    pub elector_gone: bool,
    /// Between the check of the time left and the fork.
    forking: bool,
    /// What the forked child knows of the time left.
    starting: Option<Tenure>,
    /// The main process was started and is not reported gone.
    has_main: bool,
    too_late: bool,
    kill: Option<Kill>,
    sweeping: bool,
    stop_began: bool,
}

#[derive(Debug)]
struct Kill {
    again_at: Instant,
    pause: Duration,
    killed: usize,
}

impl Supervisor {
    pub fn new(plan: &HostPlan) -> Self {
        let stop_options =
            StopOptions { stop_signal: TERM, lost_grace: plan.timing.lost_grace(), kill_after: plan.kill_after };
        Self {
            alive: true,
            frozen_until: 0,
            policy: Policy::new(stop_options.clone()),
            orders: VecDeque::new(),
            bought: None,
            deaf_at: 0,
            stop_options,
            elector_gone: false,
            forking: false,
            starting: None,
            has_main: false,
            too_late: false,
            kill: None,
            sweeping: false,
            stop_began: false,
        }
    }
}

impl World {
    /// One round of the loop.
    pub fn run_supervisor(&mut self, run: usize) {
        if !self.runs[run].supervisor.alive || self.runs[run].supervisor.forking {
            return;
        }
        let now = self.clock(run).boot(self.now);
        if self.mutation == Mutation::StopBeforeRenewals {
            self.runs[run].supervisor.policy.handle_timeout(now);
        }
        self.handle_orders(run, now);
        self.runs[run].supervisor.policy.handle_timeout(now);
        if !self.runs[run].elector.alive && !self.runs[run].supervisor.elector_gone {
            self.runs[run].supervisor.elector_gone = true;
            tell!(self, "{}'s supervisor sees that the elector is dead", self.name(run));
            self.runs[run].supervisor.policy.handle_elector_gone(now);
        }
        self.note_stop(run, now);
        self.handle_children(run, now);
        self.act(run, now);
    }

    fn act(&mut self, run: usize, now: Instant) {
        while let Some(action) = self.runs[run].supervisor.policy.poll_action() {
            match action {
                Action::Start => {
                    self.start(run, now);
                    if self.runs[run].supervisor.forking {
                        return;
                    }
                }
                Action::Signal(signal) => self.signal_group(run, signal),
                Action::Stop => {
                    self.check_stop(run, now);
                    self.signal_group(run, TERM);
                }
                Action::Sweep => {
                    self.runs[run].supervisor.sweeping = true;
                    if self.mutation == Mutation::ReleaseWhenMainEnded {
                        self.report(run, Report::Gone(Gone { end: End::Exited(0), lost: false }));
                    }
                    self.sweep(run);
                }
                Action::Kill(reason) => {
                    tell!(self, "{}'s supervisor kills: {reason:?}", self.name(run));
                    let supervisor = &mut self.runs[run].supervisor;
                    supervisor.sweeping = false;
                    supervisor.kill = Some(Kill { again_at: now, pause: KILL_PAUSES.0, killed: 0 });
                    self.kill_again(run, now);
                }
                Action::Report(gone) => {
                    let supervisor = &mut self.runs[run].supervisor;
                    (supervisor.has_main, supervisor.kill, supervisor.sweeping) = (false, None, false);
                    self.report(run, Report::Gone(gone));
                }
            }
        }
        let supervisor = &self.runs[run].supervisor;
        if supervisor.elector_gone && !supervisor.has_main {
            return self.supervisor_dies(run);
        }
        let kill_again = supervisor.kill.as_ref().map(|kill| kill.again_at);
        if kill_again.is_some_and(|at| now >= at) {
            self.kill_again(run, now);
        }
        let supervisor = &self.runs[run].supervisor;
        let kill_again = supervisor.kill.as_ref().map(|kill| kill.again_at);
        if let Some(at) = supervisor.policy.next_timeout().into_iter().chain(kill_again).min() {
            let at = self.clock(run).time_of(at) + self.rng.u64(0..MILLISECOND);
            self.wake(run, Thread::Supervisor, at);
        }
    }

    fn handle_orders(&mut self, run: usize, now: Instant) {
        let supervisor = &mut self.runs[run].supervisor;
        let orders: Vec<Order> = supervisor.orders.drain(..).collect();
        let enforced = supervisor.policy.handle_orders(now, &orders);
        if self.mutation == Mutation::KillPutOff {
            for order in &orders {
                if let Order::Extend(tenure) = order {
                    self.put_off_kill(run, *tenure);
                }
            }
        }
        if let Some(tenure) = enforced {
            self.report(run, Report::Enforcing(tenure));
        }
    }

    fn put_off_kill(&mut self, run: usize, tenure: Tenure) {
        let supervisor = &mut self.runs[run].supervisor;
        if supervisor.stop_began && supervisor.has_main && supervisor.kill.is_none() {
            supervisor.policy = Policy::new(supervisor.stop_options.clone());
            supervisor.policy.handle_start(tenure);
            supervisor.policy.poll_action();
            supervisor.policy.handle_started();
        }
    }

    /// Notes from outside that the time is over, and by when the command must be dead for it.
    fn note_stop(&mut self, run: usize, now: Instant) {
        let supervisor = &mut self.runs[run].supervisor;
        let Some(tenure) = supervisor.policy.tenure() else { return };
        if supervisor.stop_began || now < tenure.stop {
            return;
        }
        supervisor.stop_began = true;
        tell!(self, "{}'s time to run is over", self.name(run));
        if self.runs[run].tree.runs() {
            self.check_loss(run);
            let by = self.clock(run).time_of(tenure.kill + KILLING);
            self.dead_by(run, by);
        }
    }

    fn handle_children(&mut self, run: usize, now: Instant) {
        let Run { supervisor, tree, .. } = &mut self.runs[run];
        let mut main_ended = false;
        for (index, process) in tree.processes.iter_mut().enumerate() {
            if !process.alive && !process.reaped {
                process.reaped = true;
                main_ended |= index == 0;
                if let Some(kill) = &mut supervisor.kill {
                    kill.killed += 1;
                    kill.again_at = now;
                }
            }
        }
        if main_ended {
            let end = if supervisor.too_late { End::NotStarted } else { End::Exited(self.rng.i32(0..2)) };
            supervisor.policy.handle_main_ended(now, end);
            tell!(self, "{}'s main process has ended", self.name(run));
        }
        if self.runs[run].tree.living_children(Parent::Supervisor).next().is_none() {
            self.runs[run].supervisor.policy.handle_tree_empty();
        } else if self.runs[run].supervisor.sweeping {
            self.sweep(run);
        }
    }

    fn start(&mut self, run: usize, now: Instant) {
        let supervisor = &mut self.runs[run].supervisor;
        if !supervisor.policy.may_start(now) && self.mutation != Mutation::NoCheckBeforeSpawn {
            return supervisor.policy.handle_not_started(now);
        }
        // It may be stopped right here.
        supervisor.forking = true;
        supervisor.starting = supervisor.policy.tenure();
        self.soon(MILLISECOND, Event::Fork { run });
    }

    pub fn fork_command(&mut self, run: usize) {
        if !self.runs[run].supervisor.alive {
            return;
        }
        let ends_on_term = self.draw_end_on_term();
        let Run { supervisor, tree, .. } = &mut self.runs[run];
        supervisor.forking = false;
        supervisor.has_main = true;
        tree.add(Parent::Supervisor, false, false, ends_on_term);
        supervisor.policy.handle_started();
        self.soon(2 * MILLISECOND, Event::CheckInChild { run });
        let now = self.clock(run).boot(self.now);
        self.act(run, now);
        self.rouse(run, Thread::Supervisor);
    }

    /// The forked child looks at the clock itself before it executes the command.
    pub fn check_in_child(&mut self, run: usize) {
        if !self.runs[run].tree.is_alive(0) {
            return;
        }
        let now = self.clock(run).boot(self.now);
        let in_time = self.runs[run].supervisor.starting.is_some_and(|tenure| now < tenure.stop);
        if in_time || self.mutation == Mutation::NoCheckBeforeSpawn {
            return self.soon(MILLISECOND, Event::Exec { run });
        }
        tell!(self, "{}'s child finds that it is too late", self.name(run));
        self.runs[run].supervisor.too_late = true;
        self.process_dies(run, 0);
    }

    fn signal_group(&mut self, run: usize, signal: i32) {
        tell!(self, "{}'s command is sent signal {signal}", self.name(run));
        for process in 0..self.runs[run].tree.processes.len() {
            if !self.runs[run].tree.processes[process].hidden {
                self.terminate(run, process);
            }
        }
    }

    fn sweep(&mut self, run: usize) {
        let children: Vec<usize> = self.runs[run].tree.living_children(Parent::Supervisor).collect();
        for process in children {
            if !self.runs[run].tree.processes[process].swept {
                self.runs[run].tree.processes[process].swept = true;
                self.terminate(run, process);
            }
        }
    }

    fn terminate(&mut self, run: usize, process: usize) {
        let process_state = &self.runs[run].tree.processes[process];
        if let Some(after) = process_state.ends_on_term.filter(|_| process_state.alive) {
            self.at(self.now + after, Event::Die { run, process });
        }
    }

    fn kill_again(&mut self, run: usize, now: Instant) {
        if let Some(kill) = &mut self.runs[run].supervisor.kill {
            let (shortest, longest) = KILL_PAUSES;
            kill.pause = if kill.killed > 0 { shortest } else { (kill.pause * 2).min(longest) };
            kill.killed = 0;
            kill.again_at = now + kill.pause;
            self.kill_children(run, Parent::Supervisor);
        }
    }

    fn report(&mut self, run: usize, report: Report) {
        if !self.runs[run].elector.alive {
            return;
        }
        if self.is_lost(self.plan.network.report_lost) {
            return tell!(self, "{}'s report is lost: {report:?}", self.name(run));
        }
        self.runs[run].elector.reports.push_back(report);
        self.rouse(run, Thread::Guard);
    }

    /// The supervisor's process is no more: its children are the elector's, and the main process dies
    /// with it.
    pub fn supervisor_dies(&mut self, run: usize) {
        let Run { supervisor, tree, elector, .. } = &mut self.runs[run];
        if !supervisor.alive {
            return;
        }
        supervisor.alive = false;
        let heir = if elector.alive { Parent::Elector } else { Parent::Init };
        tree.bequeath(Parent::Supervisor, heir);
        if tree.is_alive(0) {
            self.soon(MILLISECOND, Event::Die { run, process: 0 });
        }
        self.rouse(run, Thread::Guard);
        self.bury(run);
    }
}
