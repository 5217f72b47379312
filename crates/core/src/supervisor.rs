//! The decisions of the supervisor: when the command is started, stopped and killed.
//!
//! [`Supervisor`] is a state machine without I/O. Its driver calls [`Supervisor::step`] with everything that has
//! arrived, carries out the actions in order, and waits for more or for [`Supervisor::next_timeout`]. After
//! [`SupervisorAction::Start`] it calls `step` again at once, with the result.
//!
//! # The rules
//!
//! - At the tenure's `stop`, the stop signal is sent to the command. At its `kill`, which is `lost_grace` later,
//!   SIGKILL is sent to the whole process tree.
//! - Once the stop signal was sent, a later renewal does not save the command: it keeps the lock, but does not postpone
//!   the kill.
//! - Once a kill is scheduled, it can only be brought forward.
//! - The stop and the kill are brought forward to allow for late wake-ups of the supervisor or the elector, and for the
//!   time that killed processes take to end. If that leaves too little time for a renewal, no command is started, and a
//!   running command is stopped while the lock is still held.
//! - If a command has run for `max_run`, the stop signal is sent to it, and SIGKILL `kill_after` later, or `lost_grace`
//!   later if there is no `kill_after`.
//! - When the main process has ended, SIGTERM is sent to the processes that it left running, and SIGKILL after
//!   `lost_grace`. With [`Supervisor::with_wait_for_all`], these processes are treated as part of the command until the
//!   last one has ended.
//! - With some kinds of lock, a frozen elector blocks all other candidates. If the lock is of such a kind, the
//!   supervisor kills an elector that sends no orders after a loss, but only long after its lease has expired.
//! - After a termination signal, or when no time is left, no command is started.

mod deadline_advance;
mod ending;
mod protocol;

use alloc::vec::Vec;
use core::mem;
use core::time::Duration;

use self::deadline_advance::DeadlineAdvance;
pub use self::protocol::{StartResult, StopOptions, SupervisorAction, SupervisorInputs};
use crate::instant::Instant;
use crate::messages::{End, Gone, KillReason, Order, Report, SupervisorNotice};
use crate::signal::is_termination_signal;
use crate::tenure::Tenure;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum MainProcess {
    NotStarted,
    Running,
    Ended(End),
}

/// The state machine that supervises one command; see the [module](self).
#[derive(Clone, Debug, Hash)]
pub struct Supervisor {
    stop_options: StopOptions,
    /// The tenure that the elector granted last.
    granted: Option<Tenure>,
    /// The tenure that was enforced in the previous step. A change is reported to the elector while the lock is held.
    previous_tenure: Option<Tenure>,
    main: MainProcess,
    /// Whether this step must start the command.
    must_start: bool,
    /// Whether leadership is lost. A later renewal does not change this.
    lost: bool,
    /// Whether the main process ended before leadership was lost. If so, its exit status counts despite a later loss,
    /// unless `waits_for_all` is true.
    ended_as_leader: bool,
    /// Whether a termination signal arrived before the command was started.
    terminated_before_start: bool,
    /// The end of `max_run`, if the time that the command may run is limited.
    runs_until: Option<Instant>,
    /// Whether the end of the command was requested because it had run for `max_run`.
    timed_out: bool,
    /// When the command will be killed, and why.
    kill: Option<(Instant, KillReason)>,
    /// Whether the kill has begun.
    killing: bool,
    /// Whether this step must terminate the processes that the main process left running.
    must_terminate_leftovers: bool,
    /// Whether the command ends with its last process instead of its main process.
    waits_for_all: bool,
    /// Whether a relayed signal or the end of `max_run` has requested the end of the command. A stop after a loss does
    /// not count.
    end_requested: bool,
    /// The end of the command, if it has been reported.
    reported_gone: Option<Gone>,
    advance: DeadlineAdvance,
    /// Once the command is gone after a loss, an elector whose last order is this old is killed.
    frozen_elector_timeout: Option<Duration>,
    /// When an order from the elector was last processed.
    elector_heard_at: Option<Instant>,
    /// The last instant published by [`SupervisorAction::SetHeldUntil`].
    published_held_until: Option<Instant>,
    /// The actions of the current step.
    actions: Vec<SupervisorAction>,
}

impl Supervisor {
    /// Creates the state machine for a command that has not been started.
    pub fn new(stop_options: StopOptions) -> Self {
        Self {
            stop_options,
            granted: None,
            previous_tenure: None,
            main: MainProcess::NotStarted,
            must_start: false,
            lost: false,
            ended_as_leader: false,
            terminated_before_start: false,
            runs_until: None,
            timed_out: false,
            kill: None,
            killing: false,
            must_terminate_leftovers: false,
            waits_for_all: false,
            end_requested: false,
            reported_gone: None,
            advance: DeadlineAdvance::new(),
            frozen_elector_timeout: None,
            elector_heard_at: None,
            published_held_until: None,
            actions: Vec::new(),
        }
    }

    /// Records that the supervisor was woken `delay` too late. Returns the delay that is expected from now on, if it
    /// has changed.
    pub fn note_delay(&mut self, now: Instant, delay: Duration) -> Option<Duration> {
        self.advance.note_delay(now, delay)
    }

    /// Sets how long the command's processes take to end after SIGKILL. The stop and the kill are brought forward by
    /// that much. Returns whether the time has changed.
    pub fn set_kill_time(&mut self, kill_time: Duration) -> bool {
        self.advance.set_kill_time(kill_time)
    }

    /// Sets the longest time by which the stop and the kill may be brought forward. If they have to be brought forward
    /// by more, no command is started, and a running command is stopped.
    #[must_use]
    pub fn with_max_advance(mut self, max_advance: Duration) -> Self {
        self.advance.max = max_advance;
        self
    }

    /// Makes the supervisor kill an elector whose last order is this old, once the command is gone after a loss. This
    /// is for locks that stay blocked for all candidates while an elector is frozen during a write.
    #[must_use]
    pub fn with_frozen_elector_timeout(self, timeout: Option<Duration>) -> Self {
        Self { frozen_elector_timeout: timeout, ..self }
    }

    /// Sets whether the processes that the main process leaves running are treated as part of the command, for a daemon
    /// that goes into the background.
    #[must_use]
    pub fn with_wait_for_all(self, waits_for_all: bool) -> Self {
        Self { waits_for_all, ..self }
    }

    /// Processes everything that has arrived, and returns the actions to carry out, in order.
    ///
    /// Simultaneous inputs are processed in this order: the result of the start, the orders that change the tenure or
    /// its deadlines, the other orders, timeouts, the elector's death, the end of the main process, the end of the last
    /// process. Overdue deadlines are also processed before a signal is relayed.
    ///
    /// A supervisor that was frozen may find both renewals and overdue deadlines. The renewals come first. This is
    /// safe, because a renewal's tenure begins when its request was sent, however late the supervisor reads the order.
    pub fn step(&mut self, now: Instant, inputs: SupervisorInputs) -> Vec<SupervisorAction> {
        let SupervisorInputs { start, orders, elector_died, main_ended, tree_empty } = inputs;
        match start {
            Some(StartResult::Attempted) => {
                self.main = MainProcess::Running;
                self.runs_until = self.stop_options.max_run.map(|longest| now + longest);
            }
            Some(StartResult::TooLate) => {
                self.handle_timeout(now);
                self.report_not_started();
            }
            None => {}
        }
        if !orders.is_empty() {
            self.elector_heard_at = Some(now);
        }
        self.handle_orders(now, &orders);
        self.handle_timeout(now);
        if self.elector_deadline().is_some_and(|at| now >= at) {
            self.frozen_elector_timeout = None;
            self.actions.push(SupervisorAction::KillElector);
        }
        if elector_died {
            self.frozen_elector_timeout = None;
            // There will be no more renewals, so the command is stopped at once. The kill instant is that of the last
            // tenure.
            self.begin_stop_for_loss(self.tenure().map_or(now, |tenure| tenure.kill));
            self.handle_timeout(now);
        }
        if let Some(end) = main_ended {
            self.handle_main_ended(now, end, tree_empty);
        }
        if tree_empty && let MainProcess::Ended(end) = &self.main {
            let was_lost = if self.waits_for_all { self.lost } else { !self.ended_as_leader };
            let gone = Gone { end: end.clone(), lost: was_lost };
            self.report_gone(gone);
        }
        if mem::take(&mut self.must_terminate_leftovers) && self.reported_gone.is_none() && !self.killing {
            self.actions.push(SupervisorAction::TerminateLeftovers);
        }
        if mem::take(&mut self.must_start) {
            match self.tenure().filter(|tenure| self.may_start(now, tenure)) {
                Some(tenure) => self.actions.push(SupervisorAction::Start(tenure)),
                None => self.report_not_started(),
            }
        }
        let held_until = self.held_until();
        if mem::replace(&mut self.published_held_until, held_until) != held_until {
            // This action comes first: the command must not rely on the lock when it gets the stop signal.
            self.actions.insert(0, SupervisorAction::SetHeldUntil(held_until));
        }
        mem::take(&mut self.actions)
    }

    /// Returns when to call [`step`](Self::step) next if nothing arrives before then.
    pub fn next_timeout(&self) -> Option<Instant> {
        let stop = self.held_until();
        let kill = self.kill.filter(|_| !self.killing).map(|(at, _)| at);
        let max_run_end = self.runs_until.filter(|_| self.may_time_out());
        stop.into_iter().chain(kill).chain(self.elector_deadline()).chain(max_run_end).min()
    }

    /// Returns the deadline for the elector's next order, once the command is gone after a loss.
    fn elector_deadline(&self) -> Option<Instant> {
        let timeout = self.frozen_elector_timeout.filter(|_| self.lost && self.reported_gone.is_some())?;
        Some(self.elector_heard_at? + timeout)
    }

    /// Returns the last granted tenure, whose stop and kill are not brought forward.
    pub fn granted(&self) -> Option<Tenure> {
        self.granted
    }

    /// Returns the tenure that is enforced: the last granted tenure, with its stop and its kill brought forward.
    pub fn tenure(&self) -> Option<Tenure> {
        self.granted.map(|granted| granted.earlier_by(self.advance.total()))
    }

    /// Returns whether the main process was started and is not known to have ended.
    pub fn is_main_running(&self) -> bool {
        self.main == MainProcess::Running
    }

    /// Returns the time until which the command may rely on the lock. Returns `None` if no tenure was granted, if
    /// leadership is lost, or if the command is gone.
    fn held_until(&self) -> Option<Instant> {
        self.tenure().filter(|_| !self.lost && self.reported_gone.is_none()).map(|tenure| tenure.stop)
    }

    fn may_time_out(&self) -> bool {
        let runs = self.main == MainProcess::Running || self.awaits_leftovers();
        runs && !self.lost && !self.timed_out && !self.killing
    }

    fn may_start(&self, now: Instant, tenure: &Tenure) -> bool {
        let has_enough_time = now < tenure.stop && self.advance.is_within_max();
        has_enough_time && self.main == MainProcess::NotStarted && !self.lost && !self.terminated_before_start
    }

    fn handle_orders(&mut self, now: Instant, orders: &[Order]) {
        let gone_before = self.reported_gone.clone();
        for order in orders {
            match order {
                Order::ElectorLate { delay } => self.advance.set_elector_delay(*delay),
                Order::Start { tenure, .. } if self.granted.is_none() => {
                    self.granted = Some(*tenure);
                    self.must_start = true;
                }
                Order::Extend(tenure) if !self.lost => {
                    let is_older = |granted: Tenure| granted.renewal_sent_at < tenure.renewal_sent_at;
                    if self.granted.is_some_and(is_older) {
                        self.granted = Some(*tenure);
                    }
                }
                _ => {}
            }
        }
        for order in orders {
            match order {
                Order::Lose => {
                    self.lose(now);
                    self.handle_timeout(now);
                }
                Order::Signal(signal) => self.handle_signal(now, *signal),
                Order::Start { .. } | Order::Extend(_) | Order::ElectorLate { .. } => {}
            }
        }
        let renewed = orders.iter().any(|order| matches!(order, Order::Start { .. } | Order::Extend(_)));
        let has_moved = self.held_until().is_some() && self.tenure() != self.previous_tenure;
        let report = match (gone_before, self.tenure()) {
            // An elector that still renews may have missed the report that the command is gone.
            (Some(gone), _) => Some(Report::Gone(gone)).filter(|_| renewed),
            (None, Some(tenure)) => Some(Report::Enforcing(tenure)).filter(|_| renewed || has_moved),
            (None, None) => None,
        };
        self.previous_tenure = self.tenure();
        self.actions.extend(report.map(SupervisorAction::Report));
    }

    fn handle_timeout(&mut self, now: Instant) {
        let exceeds_max_advance = !self.advance.is_within_max() && self.reported_gone.is_none();
        if let Some(tenure) = self.tenure().filter(|tenure| now >= tenure.stop || exceeds_max_advance) {
            if exceeds_max_advance && !self.lost {
                let (advance, max_advance) = (self.advance.total(), self.advance.max);
                self.notify(SupervisorNotice::TooSlow { advance, max_advance });
            }
            // A later kill would come too late, because of late wake-ups or of the command's many processes. There may
            // soon be even more of them, so the grace period is limited.
            let grace_end = now + self.stop_options.lost_grace;
            self.begin_stop_for_loss(if exceeds_max_advance { tenure.kill.min(grace_end) } else { tenure.kill });
        }
        if self.may_time_out() && self.runs_until.is_some_and(|at| now >= at) {
            self.timed_out = true;
            self.end_requested = true;
            if self.main == MainProcess::Running {
                self.actions.push(SupervisorAction::TimeOut);
            } else {
                self.main = MainProcess::Ended(End::TimedOut);
                self.must_terminate_leftovers = true;
            }
            let grace = self.stop_options.kill_after.unwrap_or(self.stop_options.lost_grace);
            self.kill_by(now + grace, KillReason::TimedOut);
        }
        if let Some((at, reason)) = self.kill
            && now >= at
            && !self.killing
        {
            self.killing = true;
            // The kill comes before the stop signal and all reports, so they do not delay it.
            self.actions.insert(0, SupervisorAction::Kill(reason));
        }
    }

    /// Relays a signal, after any overdue stop.
    fn handle_signal(&mut self, now: Instant, signal: i32) {
        self.handle_timeout(now);
        match self.main {
            MainProcess::Running => {
                self.actions.push(SupervisorAction::Signal(signal));
                if self.requests_end(signal) {
                    self.handle_termination_signal(now);
                }
            }
            MainProcess::Ended(_) if self.awaits_leftovers() => {
                if self.requests_end(signal) {
                    self.must_terminate_leftovers = true;
                    self.handle_termination_signal(now);
                } else {
                    self.actions.push(SupervisorAction::SignalLeftovers(signal));
                }
            }
            MainProcess::NotStarted if is_termination_signal(signal) || self.requests_end(signal) => {
                self.terminated_before_start = true;
                self.report_not_started();
            }
            MainProcess::NotStarted | MainProcess::Ended(_) => {}
        }
    }

    /// Returns whether a signal asks the command to stop. Unless they are the stop signal, SIGHUP and SIGQUIT do
    /// not, because many commands only reload their configuration on SIGHUP, and some print a stack trace on SIGQUIT.
    fn requests_end(&self, signal: i32) -> bool {
        matches!(signal, libc::SIGTERM | libc::SIGINT) || signal == self.stop_options.stop_signal
    }

    fn handle_termination_signal(&mut self, now: Instant) {
        self.end_requested = true;
        if let Some(after) = self.stop_options.kill_after {
            self.kill_by(now + after, KillReason::Terminated);
        }
    }

    fn notify(&mut self, notice: SupervisorNotice) {
        self.actions.push(SupervisorAction::Report(Report::Notice(notice)));
    }
}

#[cfg(test)]
mod tests;
