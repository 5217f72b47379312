//! The decisions of the elector's main thread: which orders it sends to the supervisor, when the elector, rather than
//! the supervisor, kills the command, and when leaderrun exits.
//!
//! [`Elector`] is a state machine without I/O. Its driver calls [`Elector::step`] with everything that has arrived,
//! carries out the actions in order, and waits for more or for [`Elector::next_timeout`].
//!
//! # The rules
//!
//! - The supervisor reports which tenure it enforces. Soon after the kill instant of this tenure, it must report that
//!   the command is gone. If it does not, or if it dies, the elector kills the supervisor and then every descendant. A
//!   supervisor that kills the processes gradually gets more time, because it has brought the stop and the kill forward
//!   by the time that the gradual kill takes.
//! - The elector tells the supervisor how late the scheduler wakes the elector. The supervisor allows for that delay,
//!   because the elector kills the command if the supervisor fails.
//! - When another candidate is known to hold the lock, the command gets no grace period.
//! - The lock is released only after every process of the command is dead.
//! - leaderrun exits when its election is over, or when the release has timed out.
//! - If traffic is routed to the command, a signal that asks the command to stop is deferred until the traffic has been
//!   routed away, but not for longer than [`WITHDRAWAL_TIMEOUT`]. A second such signal ends the deferral. A
//!   signal that arrives before the command has started is not deferred.
//! - Duplicates of such a signal within [`REPEAT_WINDOW`] count as one signal, because timeout(1) sends the signal to a
//!   process and then to its group.

mod protocol;
mod signals;

use alloc::vec::Vec;
use core::mem;
use core::time::Duration;

pub use self::protocol::{ElectionReport, ElectorAction, ElectorInputs, ElectorNotice, ExitReason, SupervisorFailure};
use self::signals::DeferredSignal;
pub use self::signals::{REPEAT_WINDOW, WITHDRAWAL_TIMEOUT};
use crate::election::Outcome;
use crate::instant::Instant;
use crate::kill_time::KillPace;
use crate::lateness::Lateness;
use crate::messages::{End, Gone, KillReason, Order, Report, SupervisorNotice};
use crate::tenure::Tenure;
use crate::timing::Timing;
use crate::updates::Loss;

/// How long the exit is delayed for the release of a lock that may just have been acquired: the election's own timeout
/// of a second, plus slack. If a signal arrives while a leader releases the lock, the rest of the release may take at
/// most this long.
const RELEASE_TIMEOUT: Duration = Duration::from_millis(1100);

/// How long the exit is delayed for an election that has nothing to release.
const STOP_TIMEOUT: Duration = Duration::from_millis(50);

/// How much time the election thread gets to notice that the command is gone, in addition to the time for the release.
const RELEASE_SLACK: Duration = Duration::from_millis(500);

#[derive(Clone, Debug, Hash)]
enum ElectorPhase {
    /// No command was ever started.
    Waiting {
        /// Whether a claim may be pending. If so, the lock may have to be released before the exit.
        claiming: bool,
    },
    /// The supervisor was ordered to start the command and has not reported it gone.
    Leading {
        /// The tenure that the supervisor must enforce: at first the granted one, then the one that the supervisor last
        /// reported. Once the lock is found to be taken, this is a tenure that is over.
        enforced: Tenure,
        /// Whether another candidate is known to hold the lock.
        taken: bool,
        /// The reason to state if the supervisor reports that leadership was lost.
        supervisor_loss: Loss,
        /// The deadline for the supervisor's kill, if the supervisor has begun to kill the processes gradually.
        gradual_kill_deadline: Option<Instant>,
    },
    /// The supervisor has failed, so the elector kills the command.
    Killing,
    /// No command is alive. leaderrun exits when the election is over, but no later than `until`.
    Exiting { reason: ExitReason, until: Instant },
}

impl ElectorPhase {
    /// Returns when the elector, rather than the supervisor, kills the command: if the supervisor has not reported the
    /// command gone by then.
    fn elector_kill_at(&self) -> Option<Instant> {
        let Self::Leading { enforced, gradual_kill_deadline, .. } = self else { return None };
        Some(enforced.elector_kill_at()).max(*gradual_kill_deadline)
    }
}

/// The decisions of the elector's main thread; see the [module](self).
#[derive(Clone, Debug, Hash)]
pub struct Elector {
    phase: ElectorPhase,
    max_release_time: Duration,
    /// The stop signal. It asks the command to stop, like a termination signal.
    stop_signal: i32,
    /// Whether traffic is routed to the command while it runs.
    routes_traffic: bool,
    /// Whether the command has started.
    started: bool,
    /// Whether the withdrawal of traffic has begun.
    is_withdrawing: bool,
    deferred: Option<DeferredSignal>,
    /// The last signal that asked the command to stop and was not a duplicate, and when it arrived.
    last_end_request: Option<(i32, Instant)>,
    /// The first signal after the lock was acquired that asked the command to stop or, once the command was gone or was
    /// being killed by the elector, asked leaderrun to exit. A request to step down counts as SIGTERM.
    first_end_request: Option<i32>,
    /// Whether the notice of the loss was sent.
    loss_notice_sent: bool,
    /// How late the scheduler wakes this elector.
    lateness: Lateness,
    /// The tenure that was granted to the supervisor last.
    granted: Option<Tenure>,
    /// The pace at which the supervisor would kill the command; `None` if it would kill all processes at once.
    kill_pace: Option<KillPace>,
    /// The actions of the current step.
    actions: Vec<ElectorAction>,
}

impl Elector {
    /// Creates the state machine of a candidate that waits; `routes_traffic` states whether traffic is routed to its
    /// command.
    pub fn new(timing: &Timing, routes_traffic: bool) -> Self {
        Self {
            phase: ElectorPhase::Waiting { claiming: false },
            max_release_time: timing.renew_deadline() / 2 + RELEASE_SLACK,
            stop_signal: libc::SIGTERM,
            routes_traffic,
            started: false,
            is_withdrawing: false,
            deferred: None,
            last_end_request: None,
            first_end_request: None,
            loss_notice_sent: false,
            lateness: Lateness::default(),
            granted: None,
            kill_pace: None,
            actions: Vec::new(),
        }
    }

    /// Sets the stop signal, which is treated like SIGTERM.
    #[must_use]
    pub fn with_stop_signal(self, stop_signal: i32) -> Self {
        Self { stop_signal, ..self }
    }

    /// Records that the elector was woken `delay` too late. If the delay to allow for has changed, returns the new
    /// value. The actions of the next [`step`](Self::step) then send it to the supervisor.
    pub fn note_delay(&mut self, now: Instant, delay: Duration) -> Option<Duration> {
        let delay = self.lateness.add(now, delay)?;
        self.order(Order::ElectorLate { delay });
        Some(delay)
    }

    /// Returns whether the supervisor was ordered to start the command, has not failed, and has not reported the
    /// command gone.
    pub fn is_leading(&self) -> bool {
        matches!(self.phase, ElectorPhase::Leading { .. })
    }

    /// Processes everything that has arrived, and returns the actions to carry out, in order.
    ///
    /// Simultaneous inputs are processed in this order: the supervisor's reports, the election's reports, the
    /// supervisor's death, timeouts, the withdrawal of traffic, signals, a resized terminal, the end of the last
    /// process.
    pub fn step(&mut self, now: Instant, inputs: ElectorInputs) -> Vec<ElectorAction> {
        let ElectorInputs { reports, election, supervisor_died, withdrawn, signals, terminal_resized, tree_empty } =
            inputs;
        for report in reports {
            self.handle_supervisor_report(now, report);
        }
        for report in election {
            self.handle_election_report(now, report);
        }
        if supervisor_died {
            self.handle_supervisor_death(now);
        }
        self.handle_timeout(now);
        if withdrawn {
            self.relay_deferred();
        }
        for signal in signals {
            self.handle_signal(now, signal);
        }
        if terminal_resized && let ElectorPhase::Leading { .. } = self.phase {
            self.order(Order::Signal(libc::SIGWINCH));
        }
        if tree_empty && matches!(self.phase, ElectorPhase::Killing) {
            self.begin_release(now, ExitReason::Lost { may_rejoin: true }, false);
        }
        self.exit_if_due(now);
        mem::take(&mut self.actions)
    }

    /// Returns when to call [`step`](Self::step) next if nothing arrives before then.
    pub fn next_timeout(&self) -> Option<Instant> {
        let deferred_until = self.deferred.as_ref().map(|deferred| deferred.until);
        match &self.phase {
            ElectorPhase::Leading { .. } => deferred_until.into_iter().chain(self.phase.elector_kill_at()).min(),
            ElectorPhase::Exiting { until, .. } => Some(*until),
            ElectorPhase::Waiting { .. } | ElectorPhase::Killing => None,
        }
    }

    /// Returns the tenure last granted to the supervisor, with the stop and kill instants as granted, before the
    /// supervisor brings them forward.
    pub fn granted(&self) -> Option<Tenure> {
        self.granted
    }

    /// Returns the pace for a kill of the command that begins now, and the instant at which it must kill all remaining
    /// processes at once; `None` if it must kill all of them at once from the start. The supervisor reports the pace
    /// that it would use, and the elector uses the same pace if it has to kill the command.
    pub fn kill_pace(&self, now: Instant) -> Option<(KillPace, Instant)> {
        self.kill_pace.map(|pace| (pace, pace.end(now, self.granted)))
    }

    /// Returns whether, since the lock was acquired, a signal or a request to step down has asked the command to stop
    /// or, once the command was gone or was being killed by the elector, a signal has asked leaderrun to exit.
    pub fn end_was_requested(&self) -> bool {
        self.first_end_request.is_some()
    }

    fn handle_supervisor_report(&mut self, now: Instant, report: Report) {
        self.notify_report(&report);
        if let Report::Notice(SupervisorNotice::KillTime { pace, .. }) = report {
            self.kill_pace = pace;
        }
        let ElectorPhase::Leading { enforced, taken, supervisor_loss, gradual_kill_deadline } = &mut self.phase else {
            return;
        };
        match report {
            Report::Enforcing(tenure) if !*taken => {
                *enforced = tenure;
                self.notify(ElectorNotice::Leading(tenure));
            }
            Report::Gone(Gone { end, lost: was_lost }) => {
                if was_lost {
                    let loss = *supervisor_loss;
                    self.notify_loss(loss);
                }
                let succeeded = end == End::Exited(0) && !was_lost;
                let reason = match end {
                    _ if was_lost => ExitReason::Lost { may_rejoin: true },
                    End::NotStarted => {
                        self.first_end_request.map_or(ExitReason::Lost { may_rejoin: true }, ExitReason::Signaled)
                    }
                    ref end => ExitReason::Command(end.clone()),
                };
                self.notify(ElectorNotice::CommandEnded(end));
                self.begin_release(now, reason, succeeded);
            }
            Report::Started { .. } => self.started = true,
            Report::Notice(SupervisorNotice::TooSlow { .. }) => *supervisor_loss = Loss::TooSlow,
            Report::Notice(SupervisorNotice::Killing { .. }) => {
                *gradual_kill_deadline = self.kill_pace.map(|pace| pace.end(now, self.granted));
            }
            Report::Enforcing(_) | Report::Notice(_) => {}
        }
    }

    fn handle_election_report(&mut self, now: Instant, report: ElectionReport) {
        match report {
            ElectionReport::Claiming => self.handle_claiming(now),
            ElectionReport::ClaimFailed => {
                if let ElectorPhase::Waiting { claiming } = &mut self.phase {
                    *claiming = false;
                }
            }
            ElectionReport::Acquired { tenure, environment } => match self.phase {
                ElectorPhase::Waiting { .. } => {
                    self.granted = Some(tenure);
                    self.order(Order::Start { tenure, environment });
                    self.lead(tenure);
                }
                // The lock was acquired after the shutdown had begun.
                _ => self.actions.push(ElectorAction::ReportCommandGone { succeeded: false }),
            },
            ElectionReport::Renewed(tenure) => {
                self.granted = Some(tenure);
                self.order(Order::Extend(tenure));
            }
            ElectionReport::StepDownRequested => self.handle_signal_while_leading(now, libc::SIGTERM),
            ElectionReport::Taken => {
                if let ElectorPhase::Leading { enforced, taken, .. } = &mut self.phase {
                    (*enforced, *taken) = (Tenure::over(now), true);
                    self.notify(ElectorNotice::Leading(Tenure::over(now)));
                    self.notify_loss(Loss::Taken);
                }
                self.order(Order::Lose);
            }
            ElectionReport::Finished(outcome) => self.handle_finished(now, outcome),
            ElectionReport::Failed { is_transient } => self.handle_election_failed(now, is_transient),
        }
    }

    fn handle_finished(&mut self, now: Instant, outcome: Outcome) {
        match (&mut self.phase, outcome) {
            (ElectorPhase::Waiting { .. }, Outcome::NotAcquired) => {
                self.phase = ElectorPhase::Exiting { reason: ExitReason::NotAcquired, until: now };
                self.notify(ElectorNotice::NotAcquired);
            }
            (ElectorPhase::Waiting { .. }, Outcome::Unreachable) => {
                self.phase = ElectorPhase::Exiting { reason: ExitReason::Unreachable, until: now };
                self.notify(ElectorNotice::Unreachable);
            }
            (ElectorPhase::Exiting { until, .. }, outcome) => {
                *until = now;
                match outcome {
                    Outcome::Released => self.notify(ElectorNotice::Released),
                    Outcome::NotReleased => self.notify(ElectorNotice::NotReleased),
                    Outcome::Lost | Outcome::Stopped | Outcome::NotAcquired | Outcome::Unreachable => {}
                }
            }
            _ => {}
        }
    }

    /// Handles the failure of the election. A running command continues until its tenure is over. Then the supervisor
    /// stops and kills it.
    fn handle_election_failed(&mut self, now: Instant, is_transient: bool) {
        match &mut self.phase {
            ElectorPhase::Waiting { .. } => {
                self.phase = ElectorPhase::Exiting { reason: ExitReason::Failed { is_transient }, until: now };
            }
            ElectorPhase::Exiting { until, .. } => *until = now,
            ElectorPhase::Leading { .. } | ElectorPhase::Killing => {}
        }
    }

    fn handle_supervisor_death(&mut self, now: Instant) {
        match self.phase {
            ElectorPhase::Leading { .. } => self.kill_all(SupervisorFailure::Died),
            ElectorPhase::Waiting { .. } => {
                self.notify(ElectorNotice::SupervisorDiedWhileWaiting);
                self.actions.push(ElectorAction::StopElection);
                let reason = ExitReason::Failed { is_transient: true };
                self.phase = ElectorPhase::Exiting { reason, until: now + RELEASE_TIMEOUT };
            }
            ElectorPhase::Killing | ElectorPhase::Exiting { .. } => {}
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.deferred.as_ref().is_some_and(|deferred| now >= deferred.until) {
            self.relay_deferred();
        }
        if self.phase.elector_kill_at().is_some_and(|at| now >= at) {
            self.kill_all(SupervisorFailure::Late);
        }
    }

    fn handle_claiming(&mut self, now: Instant) {
        match &mut self.phase {
            ElectorPhase::Waiting { claiming } => *claiming = true,
            // The claim was sent before the order to stop reached the election.
            ElectorPhase::Exiting { until, .. } => *until = (*until).max(now + RELEASE_TIMEOUT),
            ElectorPhase::Leading { .. } | ElectorPhase::Killing => {}
        }
    }

    fn lead(&mut self, enforced: Tenure) {
        self.phase = ElectorPhase::Leading {
            enforced,
            taken: false,
            supervisor_loss: Loss::NotRenewed,
            gradual_kill_deadline: None,
        };
        self.notify(ElectorNotice::Leading(enforced));
    }

    fn kill_all(&mut self, failure: SupervisorFailure) {
        // The kill comes first, so nothing delays it.
        self.actions.insert(0, ElectorAction::KillAll(failure));
        self.notify_loss(match failure {
            SupervisorFailure::Died => Loss::SupervisorDied,
            SupervisorFailure::Late => Loss::SupervisorLate,
        });
        self.phase = ElectorPhase::Killing;
    }

    /// Begins the release of the lock, because no process of the command is left.
    fn begin_release(&mut self, now: Instant, reason: ExitReason, succeeded: bool) {
        self.phase = ElectorPhase::Exiting { reason, until: now + self.max_release_time };
        self.notify(ElectorNotice::CommandGone);
        self.actions.push(ElectorAction::ReportCommandGone { succeeded });
    }

    fn exit_if_due(&mut self, now: Instant) {
        let ElectorPhase::Exiting { reason, until } = &self.phase else { return };
        if now < *until {
            return;
        }
        let reason = match reason {
            // A signal that asks leaderrun to exit may have arrived since the lock was lost.
            ExitReason::Lost { .. } => ExitReason::Lost { may_rejoin: self.first_end_request.is_none() },
            reason => reason.clone(),
        };
        self.actions.push(ElectorAction::Exit(reason));
    }

    fn order(&mut self, order: Order) {
        self.actions.push(ElectorAction::Order(order));
    }

    /// Passes on the notice in a supervisor's report. If the report is a reaction to a loss, the notice of the loss
    /// comes first.
    fn notify_report(&mut self, report: &Report) {
        let loss = match (&self.phase, report) {
            (
                ElectorPhase::Leading { supervisor_loss, .. },
                Report::Notice(
                    SupervisorNotice::Stopping { .. } | SupervisorNotice::Killing { reason: KillReason::Lost, .. },
                ),
            ) => Some(*supervisor_loss),
            _ => None,
        };
        loss.into_iter().for_each(|loss| self.notify_loss(loss));
        match report {
            Report::Started { pid } => self.notify(ElectorNotice::CommandStarted { pid: *pid }),
            Report::Notice(notice) => self.notify(ElectorNotice::Supervisor(notice.clone())),
            Report::Enforcing(_) | Report::Gone(_) => {}
        }
    }

    fn notify_loss(&mut self, loss: Loss) {
        if !mem::replace(&mut self.loss_notice_sent, true) {
            self.notify(ElectorNotice::Lost(loss));
        }
    }

    fn notify(&mut self, notice: ElectorNotice) {
        self.actions.push(ElectorAction::Notify(notice));
    }
}

#[cfg(test)]
mod tests;
