//! The decisions of the supervisor: when the command is started, stopped and killed.
//!
//! [`Supervisor`] is a state machine without I/O. Its driver calls [`Supervisor::step`] with everything that has
//! arrived, carries out the actions in order, and waits for more or for [`Supervisor::next_timeout`]. After
//! [`SupervisorAction::Start`] it calls `step` again at once, with the result.
//!
//! # The rules
//!
//! - The stop signal is sent when the tenure ends, and SIGKILL to the whole tree `lost_grace` later.
//! - Once a stop for loss has begun, its kill instant is fixed: later renewals keep the *lock*, not the command.
//! - A kill instant can only become earlier.
//! - A command that has run for `max_run` gets the stop signal, too, and SIGKILL `kill_after` or `lost_grace` later.
//! - When the main process has ended, the processes that it left running get SIGTERM, and SIGKILL after `lost_grace`.
//!   With [`Supervisor::with_wait_for_all`] they are the command from then on, until the last one has ended.
//! - An elector that sends no orders after a loss is killed long after its lease, if a frozen one would block others.
//! - After a termination signal, or when no time is left, no command is started.

use alloc::vec::Vec;
use core::mem;
use core::time::Duration;

use crate::instant::Instant;
use crate::lateness::Lateness;
use crate::messages::{End, Gone, KillReason, Order, Report};
use crate::signal::is_termination_signal;
use crate::tenure::Tenure;

/// The options for how a command is stopped.
#[derive(Clone, Debug, Hash)]
pub struct StopOptions {
    /// The signal to the command when the leadership is lost.
    pub stop_signal: i32,
    /// The time from the end of the main process to the kill of the processes that it left running.
    pub lost_grace: Duration,
    /// The time from a relayed SIGTERM, SIGINT or stop signal to the kill; `None` means without a limit.
    pub kill_after: Option<Duration>,
    /// The time from the start of the command to the stop signal, however long the lock is held; without a limit if
    /// `None`.
    pub max_run: Option<Duration>,
}

/// Everything that has arrived since the last step.
#[derive(Clone, Debug, Default, PartialEq, Hash)]
pub struct SupervisorInputs {
    /// The result of [`SupervisorAction::Start`].
    pub start: Option<StartResult>,
    /// The elector's orders, in order.
    pub orders: Vec<Order>,
    pub elector_died: bool,
    /// The main process has ended.
    pub main_ended: Option<End>,
    /// This process has no children left, not even zombies.
    pub tree_empty: bool,
}

/// The result of starting a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StartResult {
    /// The command was forked.
    Forked,
    /// No time was left, so the command was not forked.
    TooLate,
}

/// An action for the driver of the supervisor to carry out.
#[derive(Clone, Debug, PartialEq, Hash)]
pub enum SupervisorAction {
    /// Publish until when the command may rely on the lock; `None` means that it may not.
    SetHeldUntil(Option<Instant>),
    /// Start the command, unless this tenure is over by the time of the fork.
    Start(Tenure),
    /// Relay this signal to the command's process group.
    Signal(i32),
    /// Send the stop signal to the command's process group: the leadership is lost.
    Stop,
    /// Report which processes the main process left running; `awaited` says whether the command goes on with them.
    ReportLeftovers { awaited: bool },
    /// Relay this signal to all processes that the main process left running.
    SignalLeftovers(i32),
    /// The command has run for `max_run`: send the stop signal to its process group.
    TimeOut,
    /// Send SIGTERM to all processes that the main process left running, and to those that are orphaned later.
    TerminateLeftovers,
    /// Send SIGKILL to every descendant, repeatedly until none is left.
    Kill(KillReason),
    /// Send this report to the elector.
    Report(Report),
    /// Kill the elector, which is frozen and blocks other candidates.
    KillElector,
}

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
    tenure: Option<Tenure>,
    main: MainProcess,
    start_due: bool,
    /// A stop for loss has begun.
    lost: bool,
    /// The main process ended before the leadership was lost, so its exit status counts.
    ended_as_leader: bool,
    terminated: bool,
    /// When the command has run for as long as it may.
    runs_until: Option<Instant>,
    /// It has, and was sent the stop signal for it.
    timed_out: bool,
    kill: Option<(Instant, KillReason)>,
    killing: bool,
    leftovers_due: bool,
    /// The command is gone when its last process is, rather than its main process.
    waits_for_all: bool,
    /// A request to end was relayed.
    asked_to_end: bool,
    reported: Option<Gone>,
    /// How late this supervisor runs.
    lateness: Lateness,
    /// How long after its last order an elector is killed, after a loss.
    frozen_elector_timeout: Option<Duration>,
    /// When the elector last sent an order.
    elector_heard_at: Option<Instant>,
    /// The last instant published by [`SupervisorAction::SetHeldUntil`].
    published_held_until: Option<Instant>,
    /// The actions of the step under way.
    actions: Vec<SupervisorAction>,
}

impl Supervisor {
    /// Creates the state machine for a command that has not been started.
    pub fn new(stop_options: StopOptions) -> Self {
        Self {
            stop_options,
            tenure: None,
            main: MainProcess::NotStarted,
            start_due: false,
            lost: false,
            ended_as_leader: false,
            terminated: false,
            runs_until: None,
            timed_out: false,
            kill: None,
            killing: false,
            leftovers_due: false,
            waits_for_all: false,
            asked_to_end: false,
            reported: None,
            lateness: Lateness::default(),
            frozen_elector_timeout: None,
            elector_heard_at: None,
            published_held_until: None,
            actions: Vec::new(),
        }
    }

    /// Takes in that the supervisor ran so long after it was due. From the next renewal on, stop and kill are brought
    /// forward accordingly. Returns by how much, where that has changed.
    pub fn measure_delay(&mut self, now: Instant, delay: Duration) -> Option<Duration> {
        let before = self.lateness.allowance();
        self.lateness.add(now, delay);
        Some(self.lateness.allowance()).filter(|allowance| *allowance != before)
    }

    /// Makes the supervisor kill an elector that sends no order for this long, after a loss and when the command is
    /// gone. This is for locks that a process which is frozen during a write blocks for all others.
    #[must_use]
    pub fn with_frozen_elector_timeout(self, timeout: Option<Duration>) -> Self {
        Self { frozen_elector_timeout: timeout, ..self }
    }

    /// Makes the processes that the main process leaves running the command, as with a daemon that goes into the
    /// background.
    #[must_use]
    pub fn with_wait_for_all(self, waits_for_all: bool) -> Self {
        Self { waits_for_all, ..self }
    }

    /// Processes everything that has arrived, and returns the actions to carry out, in order.
    ///
    /// Simultaneous inputs are processed in this order: the result of the start, renewals, the other orders, timeouts,
    /// the elector's death, the end of the main process, the end of the last process. Renewals come before an overdue
    /// deadline: a supervisor that was frozen finds both, and the tenure of a queued renewal began at its T0.
    pub fn step(&mut self, now: Instant, inputs: SupervisorInputs) -> Vec<SupervisorAction> {
        let SupervisorInputs { start, orders, elector_died, main_ended, tree_empty } = inputs;
        match start {
            Some(StartResult::Forked) => {
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
        if self.elector_due().is_some_and(|due| now >= due) {
            self.frozen_elector_timeout = None;
            self.actions.push(SupervisorAction::KillElector);
        }
        if elector_died {
            self.frozen_elector_timeout = None;
            // There are no more renewals, so stop at once. The kill instant is that of the last tenure.
            self.begin_stop_for_loss(self.tenure.map_or(now, |tenure| tenure.kill));
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
        if mem::take(&mut self.leftovers_due) && self.reported.is_none() && !self.killing {
            self.actions.push(SupervisorAction::TerminateLeftovers);
        }
        if mem::take(&mut self.start_due) {
            match self.tenure.filter(|tenure| self.may_start(now, tenure)) {
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

    /// Returns when [`step`](Self::step) is to be called if nothing arrives until then.
    pub fn next_timeout(&self) -> Option<Instant> {
        let stop = self.held_until();
        let kill = self.kill.filter(|_| !self.killing).map(|(at, _)| at);
        let timed_out = self.runs_until.filter(|_| self.may_time_out());
        stop.into_iter().chain(kill).chain(self.elector_due()).chain(timed_out).min()
    }

    /// Returns the deadline for the elector's next order, once the command is gone after a loss.
    fn elector_due(&self) -> Option<Instant> {
        let timeout = self.frozen_elector_timeout.filter(|_| self.lost && self.reported.is_some())?;
        Some(self.elector_heard_at? + timeout)
    }

    /// Returns the tenure that is enforced: the last one that was accepted.
    pub fn tenure(&self) -> Option<Tenure> {
        self.tenure
    }

    /// Returns whether the main process was started and is not known to have ended.
    pub fn main_runs(&self) -> bool {
        self.main == MainProcess::Running
    }

    /// Returns until when the command may rely on the lock, by the present tenure; `None` once the lock is lost.
    fn held_until(&self) -> Option<Instant> {
        self.tenure.filter(|_| !self.lost && self.reported.is_none()).map(|tenure| tenure.stop)
    }

    fn may_time_out(&self) -> bool {
        let runs = self.main == MainProcess::Running || self.awaits_leftovers();
        runs && !self.lost && !self.timed_out && !self.killing
    }

    fn may_start(&self, now: Instant, tenure: &Tenure) -> bool {
        now < tenure.stop && self.main == MainProcess::NotStarted && !self.lost && !self.terminated
    }

    fn handle_orders(&mut self, now: Instant, orders: &[Order]) {
        let reported = self.reported.clone();
        for order in orders {
            match order {
                Order::Start { tenure, .. } if self.tenure.is_none() => {
                    self.tenure = Some(tenure.earlier_by(self.lateness.allowance()));
                    self.start_due = true;
                }
                Order::Extend(tenure) if !self.lost => {
                    let is_later = |present: Tenure| present.renewal_sent_at < tenure.renewal_sent_at;
                    if self.tenure.is_some_and(is_later) {
                        self.tenure = Some(tenure.earlier_by(self.lateness.allowance()));
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
                Order::Start { .. } | Order::Extend(_) => {}
            }
        }
        let renewed = orders.iter().any(|order| matches!(order, Order::Start { .. } | Order::Extend(_)));
        let answer = match (reported, self.tenure) {
            // An elector that still renews has not received the report.
            (Some(gone), _) => Some(Report::Gone(gone)),
            (None, Some(tenure)) => Some(Report::Enforcing(tenure)),
            (None, None) => None,
        };
        self.actions.extend(answer.filter(|_| renewed).map(SupervisorAction::Report));
    }

    fn handle_timeout(&mut self, now: Instant) {
        if let Some(tenure) = self.tenure.filter(|tenure| now >= tenure.stop) {
            self.begin_stop_for_loss(tenure.kill);
        }
        if self.may_time_out() && self.runs_until.is_some_and(|at| now >= at) {
            self.timed_out = true;
            self.asked_to_end = true;
            if self.main == MainProcess::Running {
                self.actions.push(SupervisorAction::TimeOut);
            } else {
                self.main = MainProcess::Ended(End::TimedOut);
                self.leftovers_due = true;
            }
            let grace = self.stop_options.kill_after.unwrap_or(self.stop_options.lost_grace);
            self.kill_by(now + grace, KillReason::TimedOut);
        }
        if let Some((at, reason)) = self.kill
            && now >= at
            && !self.killing
        {
            self.killing = true;
            // The kill comes first: nothing may delay it.
            self.actions.insert(0, SupervisorAction::Kill(reason));
        }
    }

    /// Relays a signal, after an overdue stop.
    fn handle_signal(&mut self, now: Instant, signal: i32) {
        self.handle_timeout(now);
        match self.main {
            MainProcess::Running => {
                self.actions.push(SupervisorAction::Signal(signal));
                if self.asks_to_end(signal) {
                    self.handle_request_to_end(now);
                }
            }
            MainProcess::Ended(_) if self.awaits_leftovers() => {
                if self.asks_to_end(signal) {
                    self.leftovers_due = true;
                    self.handle_request_to_end(now);
                } else {
                    self.actions.push(SupervisorAction::SignalLeftovers(signal));
                }
            }
            MainProcess::NotStarted if is_termination_signal(signal) || self.asks_to_end(signal) => {
                self.terminated = true;
                self.report_not_started();
            }
            MainProcess::NotStarted | MainProcess::Ended(_) => {}
        }
    }

    /// By a SIGHUP many commands only read their settings again, and by a SIGQUIT some show what they do.
    fn asks_to_end(&self, signal: i32) -> bool {
        matches!(signal, libc::SIGTERM | libc::SIGINT) || signal == self.stop_options.stop_signal
    }

    fn handle_request_to_end(&mut self, now: Instant) {
        self.asked_to_end = true;
        if let Some(after) = self.stop_options.kill_after {
            self.kill_by(now + after, KillReason::Terminated);
        }
    }

    fn handle_main_ended(&mut self, now: Instant, end: End, tree_empty: bool) {
        // What dies together with the main process is no daemon.
        let is_unexpected = matches!(end, End::Exited(_)) && !self.lost && !self.asked_to_end && !tree_empty;
        let was_executed = matches!(end, End::Exited(_) | End::Signaled(_));
        self.main = MainProcess::Ended(if self.timed_out && was_executed { End::TimedOut } else { end });
        self.ended_as_leader = !self.lost;
        if self.killing {
            return;
        }
        let awaited = self.waits_for_all && !self.lost && !self.asked_to_end;
        if is_unexpected {
            self.actions.push(SupervisorAction::ReportLeftovers { awaited });
        }
        if !awaited {
            self.leftovers_due = true;
            self.kill_by(now + self.stop_options.lost_grace, KillReason::LeftRunning);
        }
    }

    /// Returns whether what the main process left running is the command now.
    fn awaits_leftovers(&self) -> bool {
        let has_leftovers = matches!(self.main, MainProcess::Ended(_)) && self.reported.is_none();
        self.waits_for_all && has_leftovers && !self.killing
    }

    fn begin_stop_for_loss(&mut self, kill: Instant) {
        if !self.lost {
            self.lose(kill);
            if self.main == MainProcess::Running {
                self.actions.push(SupervisorAction::Stop);
            }
            self.leftovers_due |= self.awaits_leftovers();
        }
    }

    fn lose(&mut self, kill: Instant) {
        self.lost = true;
        if self.main == MainProcess::NotStarted {
            self.report_not_started();
        } else if self.reported.is_none() {
            self.kill_by(kill, KillReason::Lost);
        }
    }

    fn kill_by(&mut self, at: Instant, reason: KillReason) {
        if self.kill.is_none_or(|(present, _)| at < present) {
            self.kill = Some((at, reason));
        }
    }

    fn report_not_started(&mut self) {
        if self.tenure.is_some() && self.main == MainProcess::NotStarted {
            self.report_gone(Gone { end: End::NotStarted, lost: self.lost });
        }
    }

    fn report_gone(&mut self, gone: Gone) {
        if self.reported.is_none() {
            self.reported = Some(gone.clone());
            self.kill = None;
            self.actions.push(SupervisorAction::Report(Report::Gone(gone)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOSE: Order = Order::Lose;

    fn start() -> Instant {
        Instant::after_boot(Duration::from_secs(100))
    }

    fn tenure(renewal_sent_at: Instant) -> Tenure {
        let stop = renewal_sent_at + Duration::from_secs(4);
        Tenure { renewal_sent_at, stop, kill: stop + Duration::from_secs(1) }
    }

    fn orders(orders: &[Order]) -> SupervisorInputs {
        SupervisorInputs { orders: orders.to_vec(), ..SupervisorInputs::default() }
    }

    fn ended(end: End, tree_empty: bool) -> SupervisorInputs {
        SupervisorInputs { main_ended: Some(end), tree_empty, ..SupervisorInputs::default() }
    }

    fn gone(end: End) -> SupervisorAction {
        SupervisorAction::Report(Report::Gone(Gone { end, lost: false }))
    }

    /// Steps a supervisor, and returns its actions without `SetHeldUntil`.
    fn step(supervisor: &mut Supervisor, now: Instant, inputs: SupervisorInputs) -> Vec<SupervisorAction> {
        let actions = supervisor.step(now, inputs).into_iter();
        actions.filter(|action| !matches!(action, SupervisorAction::SetHeldUntil(_))).collect()
    }

    fn new() -> Supervisor {
        Supervisor::new(StopOptions {
            stop_signal: libc::SIGTERM,
            lost_grace: Duration::from_secs(1),
            kill_after: None,
            max_run: None,
        })
    }

    #[test]
    fn a_supervisor_that_runs_late_stops_and_kills_so_much_earlier() {
        let late = Duration::from_millis(300);
        let mut supervisor = running(start());
        assert_eq!(supervisor.measure_delay(start(), late), None);
        assert_eq!(supervisor.measure_delay(start(), late), Some(late));
        let renewed = start() + Duration::from_secs(1);
        let actions = step(&mut supervisor, renewed, orders(&[Order::Extend(tenure(renewed))]));
        let enforced = tenure(renewed).earlier_by(late);
        assert_eq!(actions, [SupervisorAction::Report(Report::Enforcing(enforced))], "the elector knows");
        let stops = step(&mut supervisor, enforced.stop, SupervisorInputs::default());
        assert_eq!(stops, [SupervisorAction::Stop]);
        assert_eq!(supervisor.next_timeout(), Some(enforced.kill));
    }

    #[test]
    fn an_elector_without_orders_is_killed_once_after_a_loss() {
        let timeout = Duration::from_secs(12);
        let mut supervisor = new().with_frozen_elector_timeout(Some(timeout));
        let begin = start();
        let order = Order::Start { tenure: tenure(begin), environment: Vec::new() };
        step(&mut supervisor, begin, orders(&[order]));
        let forked = SupervisorInputs { start: Some(StartResult::Forked), ..SupervisorInputs::default() };
        step(&mut supervisor, begin, forked);
        let kill = begin + Duration::from_secs(5);
        step(&mut supervisor, kill, SupervisorInputs::default());
        assert_eq!(supervisor.next_timeout(), None, "not before the command is gone");
        step(&mut supervisor, kill, ended(End::Signaled(9), true));
        assert_eq!(supervisor.next_timeout(), Some(begin + timeout));
        let late = step(&mut supervisor, begin + timeout, SupervisorInputs::default());
        assert_eq!(late, [SupervisorAction::KillElector]);
        assert_eq!(supervisor.next_timeout(), None);
    }

    #[test]
    fn an_elector_that_sends_orders_is_not_killed() {
        let timeout = Duration::from_secs(12);
        let mut supervisor = running(start()).with_frozen_elector_timeout(Some(timeout));
        let kill = start() + Duration::from_secs(5);
        step(&mut supervisor, kill, SupervisorInputs::default());
        step(&mut supervisor, kill, ended(End::Signaled(9), true));
        step(&mut supervisor, kill, orders(&[Order::Extend(tenure(kill))]));
        assert_eq!(supervisor.next_timeout(), Some(kill + timeout));
    }

    /// Returns the supervisor of a command that was started at this instant, when the lock was acquired.
    fn running(now: Instant) -> Supervisor {
        let mut supervisor = new();
        assert_eq!(supervisor.held_until(), None);
        let start = Order::Start { tenure: tenure(now), environment: Vec::new() };
        let actions = step(&mut supervisor, now, orders(&[start]));
        let enforcing = SupervisorAction::Report(Report::Enforcing(tenure(now)));
        assert_eq!(actions, [enforcing, SupervisorAction::Start(tenure(now))]);
        let forked = SupervisorInputs { start: Some(StartResult::Forked), ..SupervisorInputs::default() };
        assert_eq!(step(&mut supervisor, now, forked), []);
        supervisor
    }

    #[test]
    fn an_overdue_stop_comes_before_a_queued_signal() {
        let now = start();
        let mut supervisor = running(now);
        let actions = step(&mut supervisor, tenure(now).stop, orders(&[Order::Signal(libc::SIGUSR1)]));
        assert_eq!(actions, [SupervisorAction::Stop, SupervisorAction::Signal(libc::SIGUSR1)]);
    }

    #[test]
    fn a_loss_kills_nothing_if_no_process_is_left() {
        let now = start();
        let mut supervisor = running(now);
        assert_eq!(step(&mut supervisor, now, ended(End::Exited(0), true)), [gone(End::Exited(0))]);
        assert_eq!(step(&mut supervisor, now, orders(&[LOSE])), []);
        assert_eq!(supervisor.next_timeout(), None);
        let mut not_started = new();
        assert_eq!((step(&mut not_started, now, orders(&[LOSE])), not_started.next_timeout()), (vec![], None));
    }

    #[test]
    fn a_queued_renewal_comes_before_an_overdue_stop() {
        let now = start();
        let mut supervisor = running(now);
        let renewed = tenure(now + Duration::from_secs(2));
        let queued = [Order::Signal(libc::SIGUSR1), Order::Extend(renewed)];
        let actions = step(&mut supervisor, tenure(now).stop, orders(&queued));
        let enforcing = SupervisorAction::Report(Report::Enforcing(renewed));
        assert_eq!(actions, [SupervisorAction::Signal(libc::SIGUSR1), enforcing]);
    }

    #[test]
    fn an_elector_that_renews_after_the_end_of_the_command_gets_the_report_again() {
        let now = start();
        let mut supervisor = running(now);
        assert_eq!(step(&mut supervisor, now, ended(End::Exited(7), true)), [gone(End::Exited(7))]);
        assert_eq!(step(&mut supervisor, now, orders(&[Order::Signal(libc::SIGTERM)])), []);
        let renewed = Order::Extend(tenure(now + Duration::from_secs(1)));
        assert_eq!(step(&mut supervisor, now, orders(&[renewed])), [gone(End::Exited(7))]);
    }

    #[test]
    fn a_command_must_not_rely_on_the_lock_once_it_gets_the_stop_signal() {
        let now = start();
        let late = now + Duration::from_secs(5);
        let elector_died = SupervisorInputs { elector_died: true, ..SupervisorInputs::default() };
        for (at, loss) in [(late, SupervisorInputs::default()), (now, orders(&[LOSE])), (now, elector_died)] {
            let mut supervisor = running(now);
            let renewed = tenure(now + Duration::from_secs(1));
            let actions = supervisor.step(now, orders(&[Order::Extend(renewed)]));
            assert_eq!(actions[0], SupervisorAction::SetHeldUntil(Some(late)));
            let actions = supervisor.step(at, loss);
            assert_eq!(actions[0], SupervisorAction::SetHeldUntil(None), "before anything else");
            supervisor.step(at, orders(&[Order::Extend(tenure(now + Duration::from_secs(6)))]));
            assert_eq!(supervisor.held_until(), None, "a renewal keeps the lock, not the command");
        }
    }

    #[test]
    fn the_time_to_the_kill_begins_with_any_request_to_end() {
        let now = start();
        let after = Duration::from_millis(300);
        for (signal, stop_signal) in
            [(libc::SIGTERM, libc::SIGTERM), (libc::SIGINT, libc::SIGTERM), (libc::SIGUSR1, libc::SIGUSR1)]
        {
            let mut supervisor = running(now);
            supervisor.stop_options.stop_signal = stop_signal;
            supervisor.stop_options.kill_after = Some(after);
            assert_eq!(
                step(&mut supervisor, now, orders(&[Order::Signal(signal)])),
                [SupervisorAction::Signal(signal)]
            );
            let actions = step(&mut supervisor, now + after, SupervisorInputs::default());
            assert_eq!(actions, [SupervisorAction::Kill(KillReason::Terminated)]);
        }
    }

    #[test]
    fn the_command_may_be_what_the_main_process_left_running() {
        let now = start();
        let daemon = || {
            let mut supervisor = running(now).with_wait_for_all(true);
            let actions = step(&mut supervisor, now, ended(End::Exited(0), false));
            assert_eq!(actions, [SupervisorAction::ReportLeftovers { awaited: true }]);
            assert_eq!(supervisor.next_timeout(), Some(tenure(now).stop), "only the tenure limits it");
            let reload = orders(&[Order::Signal(libc::SIGHUP)]);
            assert_eq!(step(&mut supervisor, now, reload), [SupervisorAction::SignalLeftovers(libc::SIGHUP)]);
            supervisor
        };
        let empty = SupervisorInputs { tree_empty: true, ..SupervisorInputs::default() };
        assert_eq!(step(&mut daemon(), now, empty.clone()), [gone(End::Exited(0))]);

        let mut asked = daemon();
        asked.stop_options.kill_after = Some(Duration::from_millis(300));
        let term = orders(&[Order::Signal(libc::SIGTERM)]);
        assert_eq!(step(&mut asked, now, term.clone()), [SupervisorAction::TerminateLeftovers]);
        assert_eq!(step(&mut asked, now, term), [SupervisorAction::TerminateLeftovers], "its sender repeats it");
        let actions = step(&mut asked, now + Duration::from_millis(300), SupervisorInputs::default());
        assert_eq!(actions, [SupervisorAction::Kill(KillReason::Terminated)]);

        let mut lost = daemon();
        let actions = step(&mut lost, tenure(now).stop, SupervisorInputs::default());
        assert_eq!(actions, [SupervisorAction::TerminateLeftovers]);
        let actions = step(&mut lost, tenure(now).kill, SupervisorInputs::default());
        assert_eq!(actions, [SupervisorAction::Kill(KillReason::Lost)]);
        let was_lost = Gone { end: End::Exited(0), lost: true };
        assert_eq!(step(&mut lost, now, empty), [SupervisorAction::Report(Report::Gone(was_lost))]);
    }

    #[test]
    fn only_what_nobody_asked_to_end_is_reported_as_left_running() {
        let now = start();
        let term = orders(&[Order::Signal(libc::SIGTERM)]);
        let report = SupervisorAction::ReportLeftovers { awaited: false };
        for (asked, end, expected) in
            [(false, End::Exited(0), true), (true, End::Exited(0), false), (false, End::Signaled(9), false)]
        {
            let mut supervisor = running(now);
            if asked {
                step(&mut supervisor, now, term.clone());
            }
            assert_eq!(step(&mut supervisor, now, ended(end, false)).contains(&report), expected);
        }
    }

    #[test]
    fn processes_that_the_main_process_left_running_are_terminated() {
        let now = start();
        let mut supervisor = running(now);
        let actions = step(&mut supervisor, now, ended(End::Exited(0), false));
        let report = SupervisorAction::ReportLeftovers { awaited: false };
        assert_eq!(actions, [report, SupervisorAction::TerminateLeftovers]);
        let kill = step(&mut supervisor, now + Duration::from_secs(1), SupervisorInputs::default());
        assert_eq!(kill, [SupervisorAction::Kill(KillReason::LeftRunning)]);
    }

    #[test]
    fn no_command_is_started_after_a_termination_signal_or_without_time() {
        let now = start();
        let start = Order::Start { tenure: tenure(now), environment: Vec::new() };
        let terminated = orders(&[start.clone(), Order::Signal(libc::SIGTERM)]);
        for (at, inputs) in [(now, terminated), (tenure(now).stop, orders(&[start]))] {
            let mut supervisor = new();
            let actions = supervisor.step(at, inputs);
            assert!(!actions.iter().any(|action| matches!(action, SupervisorAction::Start(_))), "{actions:?}");
            let is_gone = |action: &SupervisorAction| {
                matches!(action, SupervisorAction::Report(Report::Gone(Gone { end: End::NotStarted, .. })))
            };
            assert!(actions.iter().any(is_gone), "{actions:?}");
        }
    }

    /// A command that runs since this instant, and may do so for two seconds.
    fn limited(now: Instant) -> Supervisor {
        let mut supervisor = running(now);
        supervisor.stop_options.max_run = Some(Duration::from_secs(2));
        supervisor.runs_until = Some(now + Duration::from_secs(2));
        supervisor
    }

    #[test]
    fn a_command_that_runs_for_too_long_is_stopped_and_killed() {
        let now = start();
        let mut supervisor = limited(now);
        let second = Duration::from_secs(1);
        assert_eq!(supervisor.next_timeout(), Some(now + second * 2));
        assert_eq!(step(&mut supervisor, now + second * 2, SupervisorInputs::default()), [SupervisorAction::TimeOut]);
        let kill = step(&mut supervisor, now + second * 3, SupervisorInputs::default());
        assert_eq!(kill, [SupervisorAction::Kill(KillReason::TimedOut)]);
        let ended = step(&mut supervisor, now + second * 3, ended(End::Signaled(libc::SIGKILL), true));
        assert_eq!(ended, [gone(End::TimedOut)]);
    }

    #[test]
    fn a_command_that_heeds_the_stop_signal_has_timed_out_all_the_same() {
        let now = start();
        let mut supervisor = limited(now);
        step(&mut supervisor, now + Duration::from_secs(2), SupervisorInputs::default());
        let ended = step(&mut supervisor, now + Duration::from_secs(2), ended(End::Exited(0), true));
        assert_eq!(ended, [gone(End::TimedOut)]);
        assert_eq!(supervisor.next_timeout(), None);
    }

    #[test]
    fn the_time_that_a_command_may_run_counts_for_what_it_goes_on_with() {
        let now = start();
        let mut supervisor = limited(now).with_wait_for_all(true);
        step(&mut supervisor, now, ended(End::Exited(0), false));
        let later = now + Duration::from_secs(2);
        assert_eq!(supervisor.next_timeout(), Some(later));
        assert_eq!(step(&mut supervisor, later, SupervisorInputs::default()), [SupervisorAction::TerminateLeftovers]);
        let empty = SupervisorInputs { tree_empty: true, ..SupervisorInputs::default() };
        assert_eq!(step(&mut supervisor, later, empty), [gone(End::TimedOut)]);
    }

    #[test]
    fn a_loss_counts_more_than_the_time_that_a_command_may_run() {
        let now = start();
        let mut supervisor = limited(now);
        step(&mut supervisor, now, orders(&[LOSE]));
        let later = now + Duration::from_secs(2);
        assert!(!step(&mut supervisor, later, SupervisorInputs::default()).contains(&SupervisorAction::TimeOut));
        let mut supervisor = limited(now);
        step(&mut supervisor, later, SupervisorInputs::default());
        step(&mut supervisor, later, orders(&[LOSE]));
        let [SupervisorAction::Report(Report::Gone(gone))] =
            &step(&mut supervisor, later, ended(End::Exited(0), true))[..]
        else {
            panic!("it is gone")
        };
        assert!(gone.lost);
    }
}
