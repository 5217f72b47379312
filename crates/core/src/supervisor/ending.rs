//! The end of a command: the stop after a loss, the processes that the command leaves running, and the report that the
//! command is gone.

use super::{MainProcess, Supervisor, SupervisorAction};
use crate::instant::Instant;
use crate::messages::{End, Gone, KillReason, Report};

impl Supervisor {
    pub(super) fn handle_main_ended(&mut self, now: Instant, end: End, tree_empty: bool) {
        // Only processes that a main process leaves running when it exits on its own are reported.
        let reports_leftovers = matches!(end, End::Exited(_)) && !self.lost && !self.end_requested && !tree_empty;
        let was_executed = matches!(end, End::Exited(_) | End::Signaled(_));
        self.main = MainProcess::Ended(if self.timed_out && was_executed { End::TimedOut } else { end });
        self.ended_as_leader = !self.lost;
        if self.killing {
            return;
        }
        let awaited = self.waits_for_all && !self.lost && !self.end_requested;
        if reports_leftovers {
            self.actions.push(SupervisorAction::ReportLeftovers { awaited });
        }
        if !awaited {
            self.must_terminate_leftovers = true;
            self.kill_by(now + self.stop_options.lost_grace, KillReason::LeftRunning);
        }
    }

    /// Returns whether the main process has ended but the command continues until the processes that it left running
    /// have ended too.
    pub(super) fn awaits_leftovers(&self) -> bool {
        let has_leftovers = matches!(self.main, MainProcess::Ended(_)) && self.reported_gone.is_none();
        self.waits_for_all && has_leftovers && !self.killing
    }

    /// Begins the stop after a loss: sends the stop signal now. The command is killed at `kill_at` at the latest. If
    /// leadership was lost before, this can only bring the kill forward.
    pub(super) fn begin_stop_for_loss(&mut self, kill_at: Instant) {
        if self.lost {
            self.kill_for_loss_by(kill_at);
        } else {
            self.lose(kill_at);
            if self.main == MainProcess::Running {
                self.actions.push(SupervisorAction::Stop);
            }
            self.must_terminate_leftovers |= self.awaits_leftovers();
        }
    }

    /// Records that leadership is lost, without sending a stop signal. The command is killed at `kill_at` at the
    /// latest.
    pub(super) fn lose(&mut self, kill_at: Instant) {
        self.lost = true;
        if self.main == MainProcess::NotStarted {
            self.report_not_started();
        } else {
            self.kill_for_loss_by(kill_at);
        }
    }

    /// Kills the command at `kill_at` at the latest, because leadership is lost.
    pub(super) fn kill_for_loss_by(&mut self, kill_at: Instant) {
        if self.main != MainProcess::NotStarted && self.reported_gone.is_none() {
            self.kill_by(kill_at, KillReason::Lost);
        }
    }

    pub(super) fn kill_by(&mut self, at: Instant, reason: KillReason) {
        if self.kill.is_none_or(|(current, _)| at < current) {
            self.kill = Some((at, reason));
        }
    }

    pub(super) fn report_not_started(&mut self) {
        if self.granted.is_some() && self.main == MainProcess::NotStarted {
            self.report_gone(Gone { end: End::NotStarted, lost: self.lost });
        }
    }

    pub(super) fn report_gone(&mut self, gone: Gone) {
        if self.reported_gone.is_none() {
            self.reported_gone = Some(gone.clone());
            self.kill = None;
            self.actions.push(SupervisorAction::Report(Report::Gone(gone)));
        }
    }
}
