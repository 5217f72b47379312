//! The elector's main thread: the production state machine, driven as in the production loop.

use std::mem;
use std::ops::Range;
use std::time::Duration;

use leaderrun_core::election::CommandGone;
use leaderrun_core::elector::{ElectionReport, ElectorAction, ElectorInputs, ExitReason, SupervisorFailure};
use leaderrun_core::instant::Instant;
use leaderrun_core::messages::{End, Gone, Order, Report};
use leaderrun_core::tenure::Tenure;

use crate::command::Parent;
use crate::events::{self, Thread};
use crate::mutation::Mutation;
use crate::routing::{update_of_notice, update_of_report};
use crate::trace;
use crate::world::{Run, World};
use testkit::simulated_time::{MILLISECOND, SECOND, Time};

/// The range of the pause between the end of leaderrun and its next start.
pub const RESTART_PAUSE: Range<Time> = SECOND / 20..3 * SECOND;

/// The maximum number of processes of a command. Its process tree cannot have more generations than that. Each round of
/// a kill kills one generation, and takes the machine's kill time divided by this number.
const MAX_PROCESSES: u32 = 9;

/// The pause between two rounds of a kill by the elector.
const KILL_PAUSE: Duration = Duration::from_millis(5);

impl World {
    /// Runs one iteration of the elector's main loop.
    pub fn run_elector(&mut self, run: usize) {
        if !self.runs[run].elector.alive {
            return;
        }
        let now = self.clock(run).boot_time(self.now);
        let inputs = self.elector_inputs(run, now);
        let actions = self.runs[run].elector.elector.step(now, inputs);
        for action in actions {
            match action {
                ElectorAction::Order(order) => self.send_order(run, order),
                ElectorAction::ReportCommandGone { succeeded } => self.handle_command_gone(run, succeeded),
                ElectorAction::StopElection => self.stop_election(run),
                ElectorAction::KillAll(SupervisorFailure::Late) if self.mutation == Mutation::NoElectorKill => {}
                ElectorAction::KillAll(failure) => self.kill_all(run, failure, now),
                ElectorAction::Notify(notice) => {
                    if let Some(update) = update_of_notice(&notice) {
                        self.update_routing(run, update);
                    }
                }
                ElectorAction::Exit(reason) => return self.elector_exits(run, reason),
            }
        }
        if self.runs[run].elector.next_kill_at.is_some_and(|at| now >= at) {
            self.run_elector_kill_round(run, now);
        }
        let elector = &self.runs[run].elector;
        let (deadline, next_kill) = (elector.elector.next_timeout(), elector.next_kill_at);
        self.wake_for_deadline(run, Thread::Main, deadline, next_kill);
    }

    /// Collects everything that has arrived, and sends the resulting updates to the routing thread.
    fn elector_inputs(&mut self, run: usize, now: Instant) -> ElectorInputs {
        let Run { elector, supervisor, tree, .. } = &mut self.runs[run];
        let supervisor_died = !supervisor.alive && !elector.supervisor_gone;
        elector.supervisor_gone |= supervisor_died;
        let mut reports: Vec<Report> = elector.supervisor_reports.drain(..).collect();
        let mut election: Vec<ElectionReport> = elector.election_reports.drain(..).collect();
        let signals: Vec<i32> = elector.signals.drain(..).collect();
        let withdrawn = std::mem::take(&mut elector.withdrawn);
        let tree_empty = !supervisor.alive && !tree.is_any_alive();
        if tree_empty {
            elector.next_kill_at = None;
        }
        for report in &reports {
            if let Some(update) = update_of_report(report) {
                self.update_routing(run, update);
            }
            if let Report::Gone(Gone { end, lost }) = report {
                trace!(self, "{} receives the report that the command is gone: {end:?}, lost {lost}", self.name(run));
            }
        }
        if supervisor_died && self.mutation == Mutation::ReleaseAfterSupervisorDeath {
            reports.push(Report::Gone(Gone { end: End::Exited(0), lost: false }));
        }
        for report in &election {
            self.observe_election_report(run, report, now);
        }
        if self.mutation == Mutation::GraceAfterTakeover {
            election.retain(|report| *report != ElectionReport::Taken);
        }
        ElectorInputs { reports, election, supervisor_died, withdrawn, signals, terminal_resized: false, tree_empty }
    }

    /// Traces the end of the election. If another candidate has taken the lock, sets a deadline for the death of the
    /// command.
    fn observe_election_report(&mut self, run: usize, report: &ElectionReport, now: Instant) {
        match report {
            ElectionReport::Taken if self.mutation == Mutation::GraceAfterTakeover => {
                self.require_death_within(run, Duration::ZERO)
            }
            ElectionReport::Taken => self.require_death_within(run, Tenure::over(now).elector_kill_at().since(now)),
            ElectionReport::Finished(outcome) => {
                trace!(self, "{}'s election has finished: {}", self.name(run), Self::describe_outcome(*outcome));
            }
            _ => {}
        }
    }

    fn handle_command_gone(&mut self, run: usize, succeeded: bool) {
        self.runs[run].command_succeeded |= succeeded;
        self.runs[run].elector.command_gone = Some(CommandGone { succeeded });
        self.wake_soon(run, Thread::Election);
    }

    fn stop_election(&mut self, run: usize) {
        self.runs[run].elector.stop_requested = true;
        self.wake_soon(run, Thread::Election);
    }

    fn kill_all(&mut self, run: usize, failure: SupervisorFailure, now: Instant) {
        trace!(self, "{}'s elector kills everything: the supervisor failed, {failure:?}", self.name(run));
        if self.runs[run].supervisor.alive {
            self.runs[run].supervisor.is_killed = true;
            self.schedule_within(2 * MILLISECOND, events::Event::SupervisorDies { run });
        }
        self.run_elector_kill_round(run, now);
    }

    fn run_elector_kill_round(&mut self, run: usize, now: Instant) {
        self.kill_children(run, Parent::Elector);
        self.runs[run].elector.next_kill_at = Some(now + KILL_PAUSE);
    }

    fn elector_exits(&mut self, run: usize, reason: ExitReason) {
        trace!(self, "{} exits: {reason:?}", self.name(run));
        if self.runs[run].supervisor.alive {
            self.supervisor_dies(run);
        }
        let rejoins =
            reason == (ExitReason::Lost { may_rejoin: true }) && self.machines[self.runs[run].machine].plan.rejoins;
        self.elector_dies(run, if rejoins { MILLISECOND..20 * MILLISECOND } else { RESTART_PAUSE });
    }

    /// Simulates the elector's death, and schedules the next start of leaderrun.
    pub fn elector_dies(&mut self, run: usize, restart_after: Range<Time>) {
        let elector = &mut self.runs[run].elector;
        elector.alive = false;
        elector.request_in_flight = None;
        self.close_watch(run);
        self.runs[run].tree.reparent(Parent::Elector, Parent::Init);
        self.wake_soon(run, Thread::Supervisor);
        let machine = self.runs[run].machine;
        let pause = self.rng.u64(restart_after);
        self.schedule(self.now + pause, events::Event::StartRun { machine });
        self.remove_if_dead(run);
    }

    /// Sends SIGKILL to every child of `killer`.
    pub fn kill_children(&mut self, run: usize, killer: Parent) {
        let children: Vec<usize> = self.runs[run].tree.live_children(killer).collect();
        let kill_time = self.machines[self.runs[run].machine].plan.kill_time / MAX_PROCESSES;
        let dies_after = self.clock(run).true_time(kill_time) + self.rng.u64(1..=2 * MILLISECOND);
        for process in children {
            let is_target = process == 0 || self.mutation != Mutation::KillMainOnly;
            if is_target && !mem::replace(&mut self.runs[run].tree.processes[process].sigkill_sent, true) {
                self.schedule(self.now + dies_after, events::Event::ProcessDies { run, process });
            }
        }
    }

    fn send_order(&mut self, run: usize, order: Order) {
        if !self.runs[run].supervisor.alive {
            return;
        }
        if self.draw_loss(self.plan.network.order_lost) {
            self.runs[run].supervisor.order_lost_at = self.now;
            return trace!(self, "{}'s order is lost: {order:?}", self.name(run));
        }
        let supervisor = &mut self.runs[run].supervisor;
        if let Order::Start { tenure, .. } | Order::Extend(tenure) = &order {
            supervisor.received_tenure = Some(*tenure);
        }
        supervisor.orders.push_back(order);
        self.wake_soon(run, Thread::Supervisor);
    }

    /// Sets a deadline for the death of the command: `timeout` plus [`KILL_TIME`](crate::plan::KILL_TIME) by this
    /// machine's clock, but at most a second of true time, however slow the clock is. This machine's own delay and kill
    /// time are added.
    fn require_death_within(&mut self, run: usize, timeout: Duration) {
        let at = self.now + self.clock(run).true_time(timeout + crate::plan::KILL_TIME).min(SECOND);
        let advance = self.machines[self.runs[run].machine].plan.advance();
        self.require_death_by(run, at + self.clock(run).true_time(advance));
    }
}
