//! The supervisor process: the production state machine, with a command of two processes.

use leaderrun_core::messages::{End, Gone, Order, Report};
use leaderrun_core::supervisor::{StartResult, SupervisorAction, SupervisorInputs};

use crate::run::{ProcessState, Run, Tree};
use crate::setting::Rule;
use crate::world::World;

impl World<'_> {
    /// Runs one iteration of the supervisor's main loop.
    pub fn run_supervisor(&mut self, run: usize) {
        if self.state.runs[run].supervisor_process != ProcessState::Running {
            return;
        }
        let inputs = self.supervisor_inputs(run);
        self.step_supervisor(run, inputs);
        if self.state.runs[run].elector_seen_dead && !self.state.runs[run].has_command {
            self.state.runs[run].supervisor_process = ProcessState::Dead;
        }
        self.run_elector(run);
    }

    /// Takes the orders that have arrived, and notes the deaths that the supervisor notices now.
    fn supervisor_inputs(&mut self, run: usize) -> SupervisorInputs {
        let Run { orders, elector_process, elector_seen_dead, tree, main_reaped, has_command, .. } =
            &mut self.state.runs[run];
        let elector_died = *elector_process == ProcessState::Dead && !*elector_seen_dead;
        *elector_seen_dead |= elector_died;
        let main_has_ended = *has_command && !tree.main_alive && !*main_reaped;
        *main_reaped |= main_has_ended;
        SupervisorInputs {
            start: None,
            orders: orders.drain(..).collect::<Vec<Order>>(),
            elector_died,
            main_ended: main_has_ended.then_some(End::Exited(0)),
            tree_empty: !tree.is_any_alive(),
        }
    }

    fn step_supervisor(&mut self, run: usize, inputs: SupervisorInputs) {
        let now = self.boot_time(run);
        for action in self.state.runs[run].supervisor.step(now, inputs) {
            match action {
                SupervisorAction::Start(_) => {
                    let state = &mut self.state.runs[run];
                    state.tree = Tree { main_alive: true, child_alive: true, dies_at: None };
                    state.has_command = true;
                    self.check_start(run);
                    let start = Some(StartResult::Attempted);
                    self.step_supervisor(run, SupervisorInputs { start, ..SupervisorInputs::default() });
                    self.report(run, Report::Started { pid: 1 });
                }
                SupervisorAction::TerminateLeftovers if self.is_disabled(Rule::ReleaseAfterLastProcess) => {
                    self.report(run, Report::Gone(Gone { end: End::Exited(0), lost: false }));
                }
                // The command ignores all of these signals.
                SupervisorAction::Signal(_)
                | SupervisorAction::Stop
                | SupervisorAction::TimeOut
                | SupervisorAction::TerminateLeftovers => {}
                SupervisorAction::SignalLeftovers(_) | SupervisorAction::ReportLeftovers { .. } => {}
                SupervisorAction::SetHeldUntil(_) | SupervisorAction::KillElector => {}
                SupervisorAction::Kill(reason) => {
                    self.trace(|world| {
                        format!("{}'s supervisor kills the command: {reason:?}", world.state.runs[run].name())
                    });
                    self.kill_command(run);
                }
                SupervisorAction::Report(report) => {
                    if let Report::Gone(_) = &report {
                        self.state.runs[run].has_command = false;
                    }
                    self.report(run, report);
                }
            }
        }
    }

    fn report(&mut self, run: usize, report: Report) {
        if self.state.runs[run].elector_process != ProcessState::Dead {
            self.state.runs[run].reports.push_back(report);
        }
    }
}
