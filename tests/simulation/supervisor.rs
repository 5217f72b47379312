//! The supervisor process: the production state machine, with a simulated process tree.

use std::collections::VecDeque;
use std::time::Duration;

use leaderrun_core::instant::Instant;
use leaderrun_core::messages::{End, Gone, Order, Report};
use leaderrun_core::supervisor::{StartResult, StopOptions, Supervisor, SupervisorAction, SupervisorInputs};
use leaderrun_core::tenure::Tenure;

use crate::command::Parent;
use crate::events::{Event, Thread};
use crate::mutation::Mutation;
use crate::plan::{KILL_TIME, MachinePlan};
use crate::trace;
use crate::world::{Run, World};
use testkit::simulated_time::{MILLISECOND, Time};

/// The signal number of SIGTERM.
const TERM: i32 = 15;

/// The shortest and the longest pause between two rounds of a kill, as in production.
const KILL_PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(100));

#[derive(Debug)]
pub struct SupervisorProcess {
    pub alive: bool,
    /// `true` if the elector has sent SIGKILL to this supervisor.
    pub is_killed: bool,
    pub frozen_until: Time,
    pub supervisor: Supervisor,
    pub orders: VecDeque<Order>,
    /// The tenure in the last delivered order that contained one.
    pub received_tenure: Option<Tenure>,
    /// The time at which an order was last lost.
    pub order_lost_at: Time,
    stop_options: StopOptions,
    /// `true` once the supervisor has noticed that the elector is dead.
    pub elector_gone: bool,
    /// `true` from the decision to start the command until the fork.
    is_forking: bool,
    /// The result of a start, until it is passed to the state machine.
    start_result: Option<StartResult>,
    /// The tenure that the forked child checks before it executes the command.
    start_tenure: Option<Tenure>,
    /// `true` from the start of the command until its end is reported.
    has_command: bool,
    /// `true` if the forked child found that its tenure was over.
    child_was_late: bool,
    /// The kill of the command, if it has begun.
    kill: Option<Kill>,
    /// `true` while the processes that the main process left running are sent SIGTERM.
    terminates_leftovers: bool,
    /// `true` once the tenure is over.
    is_tenure_over: bool,
}

#[derive(Debug)]
struct Kill {
    next_round_at: Instant,
    /// The pause before the next round.
    pause: Duration,
    /// The number of processes that died since the last round.
    deaths: usize,
}

impl SupervisorProcess {
    pub fn new(plan: &MachinePlan, now: Instant, mutation: Mutation) -> Self {
        let stop_options = StopOptions {
            stop_signal: TERM,
            lost_grace: plan.timing.lost_grace(),
            kill_after: plan.kill_after,
            max_run: plan.max_run,
        };
        let mut supervisor = Supervisor::new(stop_options.clone()).with_max_advance(plan.timing.max_advance());
        if mutation != Mutation::IgnoreDelays {
            supervisor.note_delay(now, plan.delay);
            supervisor.set_kill_time(plan.kill_time);
        }
        Self {
            alive: true,
            is_killed: false,
            frozen_until: 0,
            supervisor,
            orders: VecDeque::new(),
            received_tenure: None,
            order_lost_at: 0,
            stop_options,
            elector_gone: false,
            is_forking: false,
            start_result: None,
            start_tenure: None,
            has_command: false,
            child_was_late: false,
            kill: None,
            terminates_leftovers: false,
            is_tenure_over: false,
        }
    }
}

/// The longest time between the forked child's check of its tenure and its exec that the invariant tolerates.
const EXEC_TIME: Duration = Duration::from_millis(10);

impl SupervisorProcess {
    /// Returns whether a command that is executed at this instant starts too late, even if the exec took
    /// [`EXEC_TIME`].
    pub fn starts_late(&self, now: Instant) -> bool {
        self.start_tenure.is_some_and(|tenure| now >= tenure.stop + EXEC_TIME)
    }
}

impl World {
    /// Runs one iteration of the supervisor's main loop.
    pub fn run_supervisor(&mut self, run: usize) {
        if !self.runs[run].supervisor.alive || self.runs[run].supervisor.is_forking {
            return;
        }
        let now = self.clock(run).boot_time(self.now);
        if self.mutation != Mutation::IgnoreDelays {
            let delay = self.machines[self.runs[run].machine].plan.delay;
            self.runs[run].supervisor.supervisor.note_delay(now, delay);
        }
        if self.mutation == Mutation::StopBeforeRenewals {
            self.step_supervisor(run, now, SupervisorInputs::default());
        }
        let inputs = self.supervisor_inputs(run, now);
        if self.mutation == Mutation::DelayedKill {
            for order in &inputs.orders {
                if let Order::Extend(tenure) = order {
                    self.inject_delayed_kill(run, now, *tenure);
                }
            }
        }
        self.step_supervisor(run, self.mutated_start_time(&inputs).unwrap_or(now), inputs);
        if self.runs[run].supervisor.is_forking {
            return;
        }
        let supervisor = &self.runs[run].supervisor;
        if supervisor.elector_gone && !supervisor.has_command && supervisor.start_result.is_none() {
            return self.supervisor_dies(run);
        }
        let next_kill = supervisor.kill.as_ref().map(|kill| kill.next_round_at);
        if next_kill.is_some_and(|at| now >= at) {
            self.run_kill_round(run, now);
        }
        let supervisor = &self.runs[run].supervisor;
        if supervisor.start_result.is_some() {
            return self.wake_soon(run, Thread::Supervisor);
        }
        let next_kill = supervisor.kill.as_ref().map(|kill| kill.next_round_at);
        let deadline = supervisor.supervisor.next_timeout();
        self.wake_for_deadline(run, Thread::Supervisor, deadline, next_kill);
    }

    /// Returns the time that is passed to the supervisor instead of the current time, if a mutation disables the check
    /// of the remaining time.
    fn mutated_start_time(&self, inputs: &SupervisorInputs) -> Option<Instant> {
        let start = |order: &Order| match order {
            Order::Start { tenure, .. } => Some(tenure.renewal_sent_at),
            _ => None,
        };
        inputs.orders.iter().find_map(start).filter(|_| self.mutation == Mutation::NoCheckBeforeSpawn)
    }

    /// Reaps dead processes, sends SIGTERM to new leftovers, and collects everything that has arrived.
    fn supervisor_inputs(&mut self, run: usize, now: Instant) -> SupervisorInputs {
        let Run { elector, supervisor, .. } = &mut self.runs[run];
        let elector_died = !elector.alive && !supervisor.elector_gone;
        supervisor.elector_gone |= elector_died;
        let (start, orders) = (supervisor.start_result.take(), supervisor.orders.drain(..).collect());
        if elector_died {
            trace!(self, "{}'s supervisor sees that the elector is dead", self.name(run));
        }
        let main_ended = self.reap(run, now);
        let tree_empty = self.runs[run].tree.live_children(Parent::Supervisor).next().is_none();
        if !tree_empty && self.runs[run].supervisor.terminates_leftovers {
            self.terminate_leftovers(run);
        }
        SupervisorInputs { start, orders, elector_died, main_ended, tree_empty }
    }

    fn step_supervisor(&mut self, run: usize, now: Instant, inputs: SupervisorInputs) {
        let actions = self.runs[run].supervisor.supervisor.step(now, inputs);
        self.check_tenure_end(run, now);
        for action in actions {
            self.carry_out_action(run, action, now);
        }
    }

    fn carry_out_action(&mut self, run: usize, action: SupervisorAction, now: Instant) {
        match action {
            SupervisorAction::SetHeldUntil(_)
            | SupervisorAction::KillElector
            | SupervisorAction::ReportLeftovers { .. } => {}
            SupervisorAction::SignalLeftovers(_) => self.signal_leftovers(run),
            SupervisorAction::Start(tenure) => {
                // The fork is a separate event, because the process may be frozen before it.
                let supervisor = &mut self.runs[run].supervisor;
                supervisor.is_forking = true;
                supervisor.start_tenure = Some(tenure);
                self.schedule_within(MILLISECOND, Event::ForkCommand { run });
            }
            SupervisorAction::Signal(signal) => self.signal_group(run, signal),
            SupervisorAction::Stop => {
                self.check_stop(run, now);
                self.signal_group(run, TERM);
            }
            SupervisorAction::TimeOut => self.signal_group(run, TERM),
            SupervisorAction::TerminateLeftovers => {
                self.runs[run].supervisor.terminates_leftovers = true;
                if self.mutation == Mutation::ReleaseAfterMainProcess {
                    self.report(run, Report::Gone(Gone { end: End::Exited(0), lost: false }));
                }
                self.terminate_leftovers(run);
            }
            SupervisorAction::Kill(reason) => {
                trace!(self, "{}'s supervisor kills: {reason:?}", self.name(run));
                let supervisor = &mut self.runs[run].supervisor;
                supervisor.terminates_leftovers = false;
                supervisor.kill = Some(Kill { next_round_at: now, pause: KILL_PAUSES.0, deaths: 0 });
                self.run_kill_round(run, now);
            }
            SupervisorAction::Report(report) => {
                if let Report::Gone(_) = &report {
                    let supervisor = &mut self.runs[run].supervisor;
                    (supervisor.has_command, supervisor.kill, supervisor.terminates_leftovers) = (false, None, false);
                }
                self.report(run, report);
            }
        }
    }

    /// Replaces a state machine that is stopping the command with one whose tenure has just been renewed.
    fn inject_delayed_kill(&mut self, run: usize, now: Instant, tenure: Tenure) {
        let supervisor = &mut self.runs[run].supervisor;
        if supervisor.is_tenure_over && supervisor.has_command && supervisor.kill.is_none() {
            supervisor.supervisor = Supervisor::new(supervisor.stop_options.clone());
            let orders = vec![Order::Start { tenure, environment: Vec::new() }];
            supervisor.supervisor.step(now, SupervisorInputs { orders, ..SupervisorInputs::default() });
            let start = Some(StartResult::Attempted);
            supervisor.supervisor.step(now, SupervisorInputs { start, ..SupervisorInputs::default() });
        }
    }

    /// If the tenure that the state machine enforces is over, sets the deadline for the command's death, even if the
    /// state machine has not acted on the end of the tenure.
    fn check_tenure_end(&mut self, run: usize, now: Instant) {
        let supervisor = &mut self.runs[run].supervisor;
        let Some(tenure) = supervisor.supervisor.tenure() else { return };
        if supervisor.is_tenure_over || now < tenure.stop {
            return;
        }
        supervisor.is_tenure_over = true;
        trace!(self, "{}'s tenure is over", self.name(run));
        if self.runs[run].tree.runs_command() {
            self.check_loss(run);
            let advance = self.machines[self.runs[run].machine].plan.advance();
            let advance = if self.mutation == Mutation::IgnoreDelays { Duration::ZERO } else { advance };
            let by = self.clock(run).time_of(tenure.kill + advance + KILL_TIME);
            self.require_death_by(run, by);
        }
    }

    /// Reaps all dead processes of the command, and returns how the main process ended if it is one of them.
    fn reap(&mut self, run: usize, now: Instant) -> Option<End> {
        let Run { supervisor, tree, .. } = &mut self.runs[run];
        let mut main_ended = false;
        for (index, process) in tree.processes.iter_mut().enumerate() {
            if !process.alive && !process.reaped {
                process.reaped = true;
                main_ended |= index == 0;
                if let Some(kill) = &mut supervisor.kill {
                    kill.deaths += 1;
                    kill.next_round_at = now;
                }
            }
        }
        if !main_ended {
            return None;
        }
        let end = if supervisor.child_was_late { End::NotStarted } else { End::Exited(self.rng.i32(0..2)) };
        trace!(self, "{}'s main process has ended", self.name(run));
        Some(end)
    }

    pub fn fork_command(&mut self, run: usize) {
        if !self.runs[run].supervisor.alive {
            return;
        }
        let now = self.clock(run).boot_time(self.now);
        let supervisor = &mut self.runs[run].supervisor;
        supervisor.is_forking = false;
        let in_time = supervisor.start_tenure.is_some_and(|tenure| now < tenure.stop);
        if in_time || self.mutation == Mutation::NoCheckBeforeSpawn {
            let sigterm_delay = self.draw_sigterm_delay();
            let Run { supervisor, tree, .. } = &mut self.runs[run];
            supervisor.has_command = true;
            supervisor.start_result = Some(StartResult::Attempted);
            tree.add(Parent::Supervisor, false, false, sigterm_delay);
            self.schedule_within(2 * MILLISECOND, Event::ChildChecksTenure { run });
        } else {
            supervisor.start_result = Some(StartResult::TooLate);
        }
        self.run_supervisor(run);
    }

    /// Simulates the forked child's check of its tenure, after which it executes the command or exits.
    pub fn child_checks_tenure(&mut self, run: usize) {
        if !self.runs[run].tree.is_alive(0) {
            return;
        }
        let now = self.clock(run).boot_time(self.now);
        let in_time = self.runs[run].supervisor.start_tenure.is_some_and(|tenure| now < tenure.stop);
        if in_time || self.mutation == Mutation::NoCheckBeforeSpawn {
            return self.schedule_within(MILLISECOND, Event::Exec { run });
        }
        trace!(self, "{}'s child finds that its tenure is over", self.name(run));
        self.runs[run].supervisor.child_was_late = true;
        self.process_dies(run, 0);
    }

    /// Sends a signal to the command's process group. In the simulation, every signal is SIGTERM.
    fn signal_group(&mut self, run: usize, signal: i32) {
        trace!(self, "{}'s command is sent signal {signal}", self.name(run));
        for process in 0..self.runs[run].tree.processes.len() {
            if !self.runs[run].tree.processes[process].has_left_group {
                self.terminate(run, process);
            }
        }
    }

    fn terminate_leftovers(&mut self, run: usize) {
        let children: Vec<usize> = self.runs[run].tree.live_children(Parent::Supervisor).collect();
        for process in children {
            if !self.runs[run].tree.processes[process].sigterm_sent_as_leftover {
                self.runs[run].tree.processes[process].sigterm_sent_as_leftover = true;
                self.terminate(run, process);
            }
        }
    }

    fn signal_leftovers(&mut self, run: usize) {
        let children: Vec<usize> = self.runs[run].tree.live_children(Parent::Supervisor).collect();
        children.into_iter().for_each(|process| self.terminate(run, process));
    }

    fn terminate(&mut self, run: usize, process: usize) {
        let process_state = &self.runs[run].tree.processes[process];
        if let Some(after) = process_state.sigterm_delay.filter(|_| process_state.alive) {
            self.schedule(self.now + after, Event::ProcessDies { run, process });
        }
    }

    fn run_kill_round(&mut self, run: usize, now: Instant) {
        if let Some(kill) = &mut self.runs[run].supervisor.kill {
            let (shortest, longest) = KILL_PAUSES;
            kill.pause = if kill.deaths > 0 { shortest } else { (kill.pause * 2).min(longest) };
            kill.deaths = 0;
            kill.next_round_at = now + kill.pause;
            self.kill_children(run, Parent::Supervisor);
        }
    }

    pub fn report(&mut self, run: usize, report: Report) {
        if !self.runs[run].elector.alive {
            return;
        }
        // leaderrun's promise covers one fault. If this report were lost, the elector would not know that the deadline
        // was brought forward, and a failure of the supervisor would be a second fault.
        let was_brought_forward = self.machines[self.runs[run].machine].plan.advance() > Duration::ZERO;
        let may_be_lost = !(was_brought_forward && matches!(report, Report::Enforcing(_)));
        if may_be_lost && self.draw_loss(self.plan.network.report_lost) {
            return trace!(self, "{}'s report is lost: {report:?}", self.name(run));
        }
        self.runs[run].elector.supervisor_reports.push_back(report);
        self.wake_soon(run, Thread::Main);
    }

    /// Simulates the supervisor's death: the elector adopts its children, or init if the elector is dead, and the main
    /// process gets its parent-death signal.
    pub fn supervisor_dies(&mut self, run: usize) {
        let Run { supervisor, tree, elector, .. } = &mut self.runs[run];
        if !supervisor.alive {
            return;
        }
        supervisor.alive = false;
        let new_parent = if elector.alive { Parent::Elector } else { Parent::Init };
        tree.reparent(Parent::Supervisor, new_parent);
        if tree.is_alive(0) {
            self.schedule_within(MILLISECOND, Event::ProcessDies { run, process: 0 });
        }
        self.wake_soon(run, Thread::Main);
        self.remove_if_dead(run);
    }
}
