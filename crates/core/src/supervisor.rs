//! When the command is started, stopped and killed.
//!
//! A state machine that is given the time, the elector's orders and what became of the command, and
//! returns what to do. It has no clock and touches no process: the supervisor and the simulation drive
//! the same code.
//!
//! The rules:
//!
//! - The stop signal is due when the tenure ends, SIGKILL for the whole tree `LostGrace` later.
//! - Once a stop for loss has begun, its kill instant is frozen: later renewals keep the *lease*, not
//!   the command.
//! - A kill instant only ever moves towards the present.
//! - When the main process has ended, what it left running is terminated, and killed after `LostGrace`.
//! - After an end has been asked for, or when no time is left, nothing is started.

use alloc::collections::VecDeque;
use core::time::Duration;

use crate::instant::Instant;
use crate::messages::{End, Gone, Order, Reason};
use crate::signal::is_termination_signal;
use crate::tenure::Tenure;

/// What the command line says about ending the command.
#[derive(Clone, Debug, Hash)]
pub struct StopOptions {
    /// Sent when the leadership is lost.
    pub stop_signal: i32,
    /// From the end of the main process to the kill of what it left running.
    pub lost_grace: Duration,
    /// From a forwarded TERM or INT to the kill; none without.
    pub kill_after: Option<Duration>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Start the command, if [`Policy::may_start`] still says so at the last moment.
    Start,
    /// Send a signal that leaderrun was sent to the command's process group.
    Signal(i32),
    /// The leadership is lost: send the stop signal to the command's process group.
    Stop,
    /// Send SIGTERM to everything that the main process left running.
    Sweep,
    /// Send SIGKILL to every descendant, again and again, until none is left.
    Kill(Reason),
    /// Nothing is left.
    Report(Gone),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Main {
    NotStarted,
    Running,
    Ended(End),
}

/// The life of one command; see the [module](self).
#[derive(Clone, Debug, Hash)]
pub struct Policy {
    stop_options: StopOptions,
    tenure: Option<Tenure>,
    main: Main,
    /// A stop for loss has begun.
    lost: bool,
    /// The main process ended before the leadership did, so its status counts.
    ended_as_leader: bool,
    end_asked_for: bool,
    kill: Option<(Instant, Reason)>,
    killing: bool,
    reported: Option<Gone>,
    actions: VecDeque<Action>,
}

impl Policy {
    /// A command that has not been started.
    pub fn new(stop_options: StopOptions) -> Self {
        Self {
            stop_options,
            tenure: None,
            main: Main::NotStarted,
            lost: false,
            ended_as_leader: false,
            end_asked_for: false,
            kill: None,
            killing: false,
            reported: None,
            actions: VecDeque::new(),
        }
    }

    /// What to do next, in order.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    pub fn next_timeout(&self) -> Option<Instant> {
        let stop = self.held_until();
        let kill = self.kill.filter(|_| !self.killing).map(|(at, _)| at);
        stop.into_iter().chain(kill).min()
    }

    /// The tenure being enforced: the last one, or the one that was frozen.
    pub fn tenure(&self) -> Option<Tenure> {
        self.tenure
    }

    /// Whether the main process was started and has not been seen to end.
    pub fn main_runs(&self) -> bool {
        self.main == Main::Running
    }

    /// Until when the command may count on holding the lease, as far as is known now; not at all once it was
    /// told to stop because the lease was lost.
    pub fn held_until(&self) -> Option<Instant> {
        self.tenure.filter(|_| !self.lost && self.reported.is_none()).map(|tenure| tenure.stop)
    }

    /// Whether the command may be started at this instant. To be asked last thing before it is.
    pub fn may_start(&self, now: Instant) -> bool {
        let in_time = self.tenure.is_some_and(|tenure| now < tenure.stop);
        in_time && self.main == Main::NotStarted && !self.lost && !self.end_asked_for && self.reported.is_none()
    }

    /// The elector's orders as they were queued. Renewals come first, before an overdue deadline and
    /// everything else: T0 is absolute, and a supervisor that was stopped for a while has both in its
    /// queue. The tenure that is enforced from here on, where one was ordered.
    ///
    /// An elector that still renews what is gone has not heard of it, and is told again.
    pub fn handle_orders(&mut self, now: Instant, orders: &[Order]) -> Option<Tenure> {
        let reported = self.reported.clone();
        for order in orders {
            match order {
                Order::Start { tenure, .. } => self.handle_start(*tenure),
                Order::Extend(tenure) => self.handle_extend(*tenure),
                Order::Lose | Order::Signal(_) => {}
            }
        }
        for order in orders {
            match order {
                Order::Lose => self.handle_lose(now),
                Order::Signal(signal) => self.handle_signal(now, *signal),
                Order::Start { .. } | Order::Extend(_) => {}
            }
        }
        let renewed = orders.iter().any(|order| matches!(order, Order::Start { .. } | Order::Extend(_)));
        match reported.filter(|_| renewed) {
            Some(gone) => {
                self.actions.push_back(Action::Report(gone));
                None
            }
            None => self.tenure.filter(|_| renewed),
        }
    }

    /// The lease was won.
    pub fn handle_start(&mut self, tenure: Tenure) {
        if self.tenure.is_none() {
            self.tenure = Some(tenure);
            self.actions.push_back(Action::Start);
        }
    }

    /// A renewal succeeded. To be applied before an overdue deadline: T0 is absolute.
    pub fn handle_extend(&mut self, tenure: Tenure) {
        if !self.lost && self.tenure.is_some_and(|present| present.renewed < tenure.renewed) {
            self.tenure = Some(tenure);
        }
    }

    /// Time has passed. Calling it early, or for nothing, does no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(tenure) = self.tenure.filter(|tenure| now >= tenure.stop) {
            self.begin_stop_for_loss(tenure.kill);
        }
        if let Some((at, reason)) = self.kill
            && now >= at
            && !self.killing
        {
            self.killing = true;
            self.actions.push_back(Action::Kill(reason));
        }
    }

    /// Somebody else is known to hold the lease: no grace.
    pub fn handle_lose(&mut self, now: Instant) {
        self.lose(now);
        self.handle_timeout(now);
    }

    /// The elector is dead: nobody renews any more, and the time bought so far is what there is.
    pub fn handle_elector_gone(&mut self, now: Instant) {
        self.begin_stop_for_loss(self.tenure.map_or(now, |tenure| tenure.kill));
        self.handle_timeout(now);
    }

    /// leaderrun was sent a signal. A stop that is overdue comes before it.
    pub fn handle_signal(&mut self, now: Instant, signal: i32) {
        self.handle_timeout(now);
        match self.main {
            Main::Running => {
                self.actions.push_back(Action::Signal(signal));
                if let Some(after) = self.stop_options.kill_after
                    && matches!(signal, libc::SIGTERM | libc::SIGINT)
                {
                    self.kill_by(now + after, Reason::AskedToEnd);
                }
            }
            Main::NotStarted if is_termination_signal(signal) => {
                self.end_asked_for = true;
                self.report_not_started();
            }
            Main::NotStarted | Main::Ended(_) => {}
        }
    }

    /// The command was forked.
    pub fn handle_started(&mut self) {
        self.main = Main::Running;
    }

    /// The command was not started after all: no time was left, or an end was asked for.
    pub fn handle_not_started(&mut self, now: Instant) {
        self.handle_timeout(now);
        self.report_not_started();
    }

    /// The main process has ended. What is left of the tree is not known yet: see
    /// [`handle_tree_empty`](Self::handle_tree_empty).
    pub fn handle_main_ended(&mut self, now: Instant, end: End) {
        self.main = Main::Ended(end);
        self.ended_as_leader = !self.lost;
        if !self.killing {
            self.actions.push_back(Action::Sweep);
            self.kill_by(now + self.stop_options.lost_grace, Reason::LeftRunning);
        }
    }

    /// No descendant is alive.
    pub fn handle_tree_empty(&mut self) {
        if let Main::Ended(end) = &self.main {
            // Looking for what is not there takes its time, and the next leader waits.
            self.actions.retain(|action| *action != Action::Sweep);
            let gone = Gone { end: end.clone(), lost: !self.ended_as_leader };
            self.report(gone);
        }
    }

    fn begin_stop_for_loss(&mut self, kill: Instant) {
        if !self.lost {
            self.lose(kill);
            if self.main == Main::Running {
                self.actions.push_back(Action::Stop);
            }
        }
    }

    fn lose(&mut self, kill: Instant) {
        self.lost = true;
        if self.main == Main::NotStarted {
            self.report_not_started();
        } else if self.reported.is_none() {
            self.kill_by(kill, Reason::Lost);
        }
    }

    fn kill_by(&mut self, at: Instant, reason: Reason) {
        if self.kill.is_none_or(|(present, _)| at < present) {
            self.kill = Some((at, reason));
        }
    }

    fn report_not_started(&mut self) {
        if self.tenure.is_some() && self.main == Main::NotStarted {
            self.report(Gone { end: End::NotStarted, lost: self.lost });
        }
    }

    fn report(&mut self, gone: Gone) {
        if self.reported.is_none() {
            self.reported = Some(gone.clone());
            self.kill = None;
            self.actions.push_back(Action::Report(gone));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenure(renewed: Instant) -> Tenure {
        let stop = renewed + Duration::from_secs(4);
        Tenure { renewed, stop, kill: stop + Duration::from_secs(1) }
    }

    /// A command that runs since a lease was won at this instant.
    fn running(now: Instant) -> Policy {
        let stop_options =
            StopOptions { stop_signal: libc::SIGTERM, lost_grace: Duration::from_secs(1), kill_after: None };
        let mut policy = Policy::new(stop_options);
        assert_eq!(policy.held_until(), None);
        policy.handle_start(tenure(now));
        policy.handle_started();
        policy
    }

    fn actions(policy: &mut Policy) -> Vec<Action> {
        core::iter::from_fn(|| policy.poll_action()).collect()
    }

    #[test]
    fn a_stop_that_is_overdue_comes_before_a_signal_that_waited() {
        let now = Instant::after_boot(Duration::from_secs(100));
        let mut policy = running(now);
        policy.handle_signal(tenure(now).stop, libc::SIGUSR1);
        assert_eq!(actions(&mut policy), [Action::Start, Action::Stop, Action::Signal(libc::SIGUSR1)]);
    }

    #[test]
    fn a_loss_has_nothing_to_kill_where_nothing_is_left() {
        let now = Instant::after_boot(Duration::from_secs(100));
        let mut ended = running(now);
        ended.handle_main_ended(now, End::Exited(0));
        ended.handle_tree_empty();
        let gone = Gone { end: End::Exited(0), lost: false };
        assert_eq!(actions(&mut ended), [Action::Start, Action::Report(gone)]);
        ended.handle_lose(now);
        assert_eq!((actions(&mut ended), ended.next_timeout()), (vec![], None));
        let mut not_started = Policy::new(ended.stop_options);
        not_started.handle_orders(now, &[Order::Lose]);
        assert_eq!((actions(&mut not_started), not_started.next_timeout()), (vec![], None));
    }

    #[test]
    fn a_renewal_that_waited_comes_before_a_stop_that_is_overdue() {
        let now = Instant::after_boot(Duration::from_secs(100));
        let mut policy = running(now);
        let renewed = tenure(now + Duration::from_secs(2));
        let orders = [Order::Signal(libc::SIGUSR1), Order::Extend(renewed)];
        assert_eq!(policy.handle_orders(tenure(now).stop, &orders), Some(renewed));
        assert_eq!(actions(&mut policy), [Action::Start, Action::Signal(libc::SIGUSR1)]);
    }

    #[test]
    fn an_elector_that_renews_what_is_gone_is_told_again() {
        let now = Instant::after_boot(Duration::from_secs(100));
        let mut policy = running(now);
        policy.handle_main_ended(now, End::Exited(7));
        policy.handle_tree_empty();
        let report = Action::Report(Gone { end: End::Exited(7), lost: false });
        assert_eq!(actions(&mut policy), [Action::Start, report.clone()]);
        assert_eq!(policy.handle_orders(now, &[Order::Signal(libc::SIGTERM)]), None);
        assert_eq!(actions(&mut policy), []);
        assert_eq!(policy.handle_orders(now, &[Order::Extend(tenure(now + Duration::from_secs(1)))]), None);
        assert_eq!(actions(&mut policy), [report]);
    }

    #[test]
    fn a_command_counts_on_nothing_once_it_is_told_to_stop() {
        let now = Instant::after_boot(Duration::from_secs(100));
        let leading = || {
            let mut policy = running(now);
            policy.handle_extend(tenure(now + Duration::from_secs(1)));
            assert_eq!(policy.held_until(), Some(now + Duration::from_secs(5)));
            policy
        };
        for lose in [
            |policy: &mut Policy, now: Instant| policy.handle_timeout(now + Duration::from_secs(5)),
            |policy: &mut Policy, now: Instant| policy.handle_lose(now),
            |policy: &mut Policy, now: Instant| policy.handle_elector_gone(now),
        ] {
            let mut policy = leading();
            lose(&mut policy, now);
            assert_eq!(policy.held_until(), None);
            policy.handle_extend(tenure(now + Duration::from_secs(6)));
            assert_eq!(policy.held_until(), None, "a renewal keeps the lease, not the command");
        }
    }
}
