//! Drives a run's elector as leaderrun's main loop does, and simulates crashes of leaderrun's two processes and the end
//! of a freeze.

use leaderrun_core::election::{ElectionInputs, Request};
use leaderrun_core::elector::{ElectionReport, ElectorAction, ElectorInputs, ElectorNotice, SupervisorFailure};
use leaderrun_core::messages::{End, Gone, Order, Report};

use crate::disturbance::Role;
use crate::run::{ProcessState, Run, TERM};
use crate::setting::{DEATH_TIME, Rule};
use crate::world::{ViolationKind, World};

impl World<'_> {
    /// Delivers the election's report to the elector.
    pub fn report_to_elector(&mut self, run: usize, report: ElectionReport) {
        self.step_elector(run, ElectorInputs { election: vec![report], ..ElectorInputs::default() });
    }

    /// Runs one iteration of the elector's main loop.
    pub fn run_elector(&mut self, run: usize) {
        if self.state.runs[run].elector_process != ProcessState::Running {
            return;
        }
        let releases_early = self.is_disabled(Rule::ReleaseAfterKill);
        let Run { reports, supervisor_process, supervisor_seen_dead, tree, .. } = &mut self.state.runs[run];
        let supervisor_died = *supervisor_process == ProcessState::Dead && !*supervisor_seen_dead;
        *supervisor_seen_dead |= supervisor_died;
        let mut reports: Vec<Report> = reports.drain(..).collect();
        // If `Rule::ReleaseAfterKill` is disabled, the death of the supervisor counts as the end of the command.
        if supervisor_died && releases_early {
            reports.push(Report::Gone(Gone { end: End::Exited(0), lost: false }));
        }
        let tree_empty = *supervisor_process == ProcessState::Dead && !tree.is_any_alive();
        self.step_elector(run, ElectorInputs { reports, supervisor_died, tree_empty, ..ElectorInputs::default() });
    }

    fn step_elector(&mut self, run: usize, inputs: ElectorInputs) {
        let now = self.boot_time(run);
        for action in self.state.runs[run].elector.step(now, inputs) {
            match action {
                ElectorAction::Order(order) => self.send_order(run, order),
                ElectorAction::ReportCommandGone { succeeded } => {
                    self.step_election(run, ElectionInputs::command_gone(succeeded), None);
                }
                ElectorAction::StopElection => self.step_election(run, ElectionInputs::stop(), None),
                ElectorAction::KillAll(SupervisorFailure::Late) if self.is_disabled(Rule::ElectorKill) => {}
                ElectorAction::KillAll(_) => self.kill_supervisor_and_command(run),
                ElectorAction::Notify(ElectorNotice::Terminating) => self.state.runs[run].withdrawal_pending = true,
                ElectorAction::Notify(_) => {}
                ElectorAction::Exit(_) => return self.exit(run),
            }
        }
    }

    /// Completes the pending withdrawal of traffic from this run's command, and reports that to the elector.
    pub fn end_withdrawal(&mut self, run: usize) {
        self.state.runs[run].withdrawal_pending = false;
        self.step_elector(run, ElectorInputs { withdrawn: true, ..ElectorInputs::default() });
    }

    fn send_order(&mut self, run: usize, order: Order) {
        if self.state.runs[run].supervisor_process != ProcessState::Dead {
            self.state.runs[run].orders.push_back(order);
            self.run_supervisor(run);
        }
    }

    fn kill_supervisor_and_command(&mut self, run: usize) {
        self.trace(|world| format!("{}'s elector kills the supervisor and the command", world.state.runs[run].name()));
        self.state.runs[run].supervisor_process = ProcessState::Dead;
        self.kill_command(run);
        self.run_elector(run);
    }

    /// Sends SIGKILL to all processes of the run's command.
    pub fn kill_command(&mut self, run: usize) {
        let at = self.true_time_after(run, DEATH_TIME);
        let tree = &mut self.state.runs[run].tree;
        if tree.is_any_alive() {
            tree.dies_at = Some(tree.dies_at.map_or(at, |current| current.min(at)));
        }
    }

    pub fn send_sigterm(&mut self, run: usize) {
        self.step_elector(run, ElectorInputs { signals: vec![TERM], ..ElectorInputs::default() });
    }

    /// Ends both processes of leaderrun. The command must be dead, because no process would be left to kill it. An exit
    /// before that is the same kind of violation as an early release.
    fn exit(&mut self, run: usize) {
        if self.state.runs[run].tree.is_any_alive() {
            self.record_violation(ViolationKind::ReleasedWhileAlive);
        }
        self.state.runs[run].supervisor_process = ProcessState::Dead;
        self.crash(run, Role::Elector);
    }

    pub fn thaw(&mut self, run: usize, role: Role) {
        *self.state.runs[run].process_mut(role) = ProcessState::Running;
        match role {
            Role::Supervisor => self.run_supervisor(run),
            Role::Elector => {
                self.run_elector(run);
                // Unless the reply is late, it arrived while the process was frozen. A late reply is still in flight.
                if !self.state.runs[run].reply_is_late {
                    self.deliver_reply(run);
                }
                self.run_election(run);
            }
        }
    }

    pub fn crash(&mut self, run: usize, role: Role) {
        *self.state.runs[run].process_mut(role) = ProcessState::Dead;
        match role {
            Role::Supervisor => self.run_elector(run),
            Role::Elector => {
                let state = &mut self.state.runs[run];
                state.election_finished = true;
                (state.reply, state.watch) = (None, None);
                state.replies_to_abandoned_writes.clear();
                state.abandoned_requests.extend(state.request.take().filter(|request| *request != Request::Get));
                self.run_supervisor(run);
            }
        }
    }
}
