//! What the outer process passes on, when it takes the supervisor's place, and when it ends.
//!
//! A state machine that is given the time, what the supervisor reports, what the election says, the signals
//! that leaderrun is sent and what became of the processes, and returns what to do. It has no clock and
//! touches no process: the guard, the simulation and the model drive the same code.
//!
//! The rules:
//!
//! - The supervisor has to have the command dead when the tenure is over that it enforces by its own word.
//!   One that did not, or that died, is killed, and then everything below it.
//! - A lease known to be lost leaves it no time.
//! - The lease is given back when nothing of the command is left, and not before.
//! - leaderrun ends when its election has, or does not in time.
//! - Where traffic is led to the command, it is led away before the command is asked to end. That is not
//!   waited for for long, and not at all when it is asked again or before the command has started.
//!
//! What has come together is handed in in this order: reports, events, the supervisor's death, the time,
//! signals, children.

mod protocol;

use alloc::collections::VecDeque;
use core::mem;
use core::time::Duration;

pub use self::protocol::{Action, Event, Failure, News, Notice};
use crate::election::Outcome;
use crate::exit::{self, Exit};
use crate::instant::Instant;
use crate::messages::{End, Gone, Order, Report};
use crate::signal::{is_relayed, is_termination_signal};
use crate::tenure::Tenure;
use crate::timing::Timing;
use crate::updates::Loss;

/// How long the end is put off for a lease that may just have been won; the election takes a second.
const RELEASE_TIMEOUT: Duration = Duration::from_millis(1100);

/// How long the end is put off for an election that has nothing to give back.
const STOP_TIMEOUT: Duration = Duration::from_millis(50);

/// How long a command is not asked to end for the traffic to be led away.
const WITHDRAWAL_PATIENCE: Duration = Duration::from_secs(1);

/// Signals that ask for an end, while traffic is led away.
#[derive(Clone, Debug, Hash)]
struct Held {
    signal: i32,
    until: Instant,
}

#[derive(Clone, Debug, Hash)]
enum Phase {
    /// No command was ever started.
    Waiting { claiming: bool },
    /// The supervisor was told to start the command and has not said that it is gone.
    Leading {
        /// What the supervisor enforces, by its own word.
        enforced: Tenure,
        lost: bool,
    },
    /// The supervisor failed: the guard kills the tree itself.
    Killing,
    /// No command is alive; the lease is being given back.
    Ending { exit: Exit, until: Instant },
}

/// The decisions of the elector's main thread; see the [module](self).
#[derive(Clone, Debug, Hash)]
pub struct Policy {
    phase: Phase,
    longest_release: Duration,
    /// Traffic is led to the command while it runs.
    routes: bool,
    started: bool,
    /// It is led away, since the command is to end.
    withdraws: bool,
    held: Option<Held>,
    /// The first signal that asked for an end since the lease was won.
    termination_signal: Option<i32>,
    actions: VecDeque<Action>,
}

impl Policy {
    /// Of a candidate that has just begun; `routes` says whether traffic is led to its command.
    pub fn new(timing: &Timing, routes: bool) -> Self {
        let phase = Phase::Waiting { claiming: false };
        // What a release may take, and a little for a thread that has not noticed yet.
        let longest_release = timing.renew_deadline() / 2 + Duration::from_millis(500);
        Self {
            phase,
            longest_release,
            routes,
            started: false,
            withdraws: false,
            held: None,
            termination_signal: None,
            actions: VecDeque::new(),
        }
    }

    /// What to do next, in order.
    pub fn poll_action(&mut self) -> Option<Action> {
        let mut action = self.actions.pop_front()?;
        if let Action::End(exit) = &mut action {
            exit.may_rejoin &= self.termination_signal.is_none();
        }
        Some(action)
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    pub fn next_timeout(&self) -> Option<Instant> {
        let held_until = self.held.as_ref().map(|held| held.until);
        match &self.phase {
            Phase::Leading { enforced, .. } => held_until.into_iter().chain([enforced.last_resort()]).min(),
            Phase::Ending { until, .. } => Some(*until),
            Phase::Waiting { .. } | Phase::Killing => None,
        }
    }

    /// The supervisor said something.
    pub fn handle_report(&mut self, now: Instant, report: Report) {
        let Phase::Leading { enforced, lost } = &mut self.phase else { return };
        match report {
            Report::Enforcing(tenure) if !*lost => {
                *enforced = tenure;
                self.tell(News::Leading(tenure));
            }
            Report::Gone(gone) => {
                if gone.lost && !*lost {
                    self.tell(News::Lost(Loss::NotRenewed));
                }
                let well = gone.end == End::Exited(0) && !gone.lost;
                let exit = self.exit(&gone);
                self.tell(News::CommandEnded(gone.end));
                self.end(now, exit, well);
            }
            Report::Started { .. } => self.started = true,
            Report::Enforcing(_) | Report::Remark(_) => {}
        }
    }

    /// The election said something.
    pub fn handle_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Claiming => self.handle_claiming(now),
            Event::NotWon => {
                if let Phase::Waiting { claiming } = &mut self.phase {
                    *claiming = false;
                }
            }
            Event::Lead { tenure, environment } => match self.phase {
                Phase::Waiting { .. } => {
                    self.order(Order::Start { tenure, environment });
                    self.lead(tenure, false);
                }
                // Won after all, when the end had begun.
                _ => self.notify(Notice::TreeGone { well: false }),
            },
            Event::Extend(tenure) => self.order(Order::Extend(tenure)),
            Event::StepDown => self.relay(now, libc::SIGTERM),
            Event::Lose => {
                if let Phase::Leading { .. } = self.phase {
                    self.lead(Tenure::over(now), true);
                    self.tell(News::Lost(Loss::Taken));
                }
                self.order(Order::Lose);
            }
            Event::Finished(outcome) => self.handle_finished(now, outcome),
        }
    }

    fn handle_finished(&mut self, now: Instant, outcome: Outcome) {
        match (&mut self.phase, outcome) {
            (Phase::Waiting { .. }, Outcome::NotAcquired) => {
                self.phase = Phase::Ending { exit: Exit::with(exit::NOT_ACQUIRED), until: now };
                self.tell(News::NotAcquired);
            }
            (Phase::Ending { until, .. }, outcome) => {
                *until = now;
                match outcome {
                    Outcome::Released => self.tell(News::Released),
                    Outcome::NotReleased => self.tell(News::NotReleased),
                    Outcome::Lost | Outcome::Stopped | Outcome::NotAcquired => {}
                }
            }
            _ => {}
        }
    }

    /// There is no election any more, for a reason that has nothing to do with it. A command runs to the end
    /// of its tenure: nobody renews, and the supervisor needs nobody to stop and kill it.
    pub fn handle_election_failed(&mut self, now: Instant) {
        match &mut self.phase {
            Phase::Waiting { .. } => self.phase = Phase::Ending { exit: Exit::with(exit::FAILED), until: now },
            Phase::Ending { until, .. } => *until = now,
            Phase::Leading { .. } | Phase::Killing => {}
        }
    }

    /// The supervisor is dead, and what it said before was handed in.
    pub fn handle_supervisor_dead(&mut self, now: Instant) {
        match self.phase {
            Phase::Leading { .. } => self.kill_all(Failure::Died),
            Phase::Waiting { .. } => {
                self.tell(News::SupervisorDied);
                self.notify(Notice::Stop);
                self.phase = Phase::Ending { exit: Exit::with(exit::FAILED), until: now + RELEASE_TIMEOUT };
            }
            Phase::Killing | Phase::Ending { .. } => {}
        }
    }

    /// Time has passed. Calling it early, or for nothing, does no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.held.as_ref().is_some_and(|held| now >= held.until) {
            self.let_go();
        }
        match self.phase {
            Phase::Leading { enforced, .. } if now >= enforced.last_resort() => self.kill_all(Failure::Late),
            Phase::Ending { exit, until } if now >= until => self.actions.push_back(Action::End(exit)),
            _ => {}
        }
    }

    /// leaderrun was sent a signal that it was not started to ignore.
    pub fn handle_signal(&mut self, now: Instant, signal: i32) {
        match &mut self.phase {
            Phase::Leading { .. } if is_relayed(signal) => self.relay(now, signal),
            Phase::Waiting { claiming } if is_termination_signal(signal) => {
                let patience = if *claiming { RELEASE_TIMEOUT } else { STOP_TIMEOUT };
                self.phase = Phase::Ending { exit: Exit::by_signal(signal), until: now + patience };
                self.tell(News::WaitsNoLonger(signal));
                self.notify(Notice::Stop);
            }
            Phase::Ending { until, .. } if is_termination_signal(signal) => {
                *until = (*until).min(now + RELEASE_TIMEOUT);
                self.termination_signal.get_or_insert(signal);
                self.notify(Notice::Stop);
            }
            Phase::Killing if is_termination_signal(signal) => {
                self.termination_signal.get_or_insert(signal);
            }
            _ => {}
        }
    }

    /// The traffic was led away, or cannot be.
    pub fn handle_withdrawn(&mut self) {
        self.let_go();
    }

    /// This process has no child left, dead or alive.
    pub fn handle_tree_empty(&mut self, now: Instant) {
        if let Phase::Killing = self.phase {
            self.end(now, Exit::AFTER_LOSS, false);
        }
    }

    fn handle_claiming(&mut self, now: Instant) {
        match &mut self.phase {
            Phase::Waiting { claiming } => *claiming = true,
            // It crossed with the end.
            Phase::Ending { until, .. } => *until = (*until).max(now + RELEASE_TIMEOUT),
            Phase::Leading { .. } | Phase::Killing => {}
        }
    }

    fn lead(&mut self, enforced: Tenure, lost: bool) {
        self.phase = Phase::Leading { enforced, lost };
        self.tell(News::Leading(enforced));
    }

    fn relay(&mut self, now: Instant, signal: i32) {
        let Phase::Leading { .. } = self.phase else { return };
        // By a SIGHUP many commands only read their settings again, and by a SIGQUIT some show what they do.
        let is_no_request = self.started && matches!(signal, libc::SIGHUP | libc::SIGQUIT);
        let asks = is_termination_signal(signal) && !is_no_request;
        if asks && self.termination_signal.is_none() {
            self.termination_signal = Some(signal);
            self.tell(News::AskedToEnd(signal));
        }
        if asks && self.routes {
            if mem::replace(&mut self.withdraws, true) {
                // Who asks again does not want to wait.
                self.let_go();
            } else {
                self.tell(News::Ending);
                if self.started {
                    self.held = Some(Held { signal, until: now + WITHDRAWAL_PATIENCE });
                    return;
                }
            }
        }
        self.order(Order::Signal(signal));
    }

    fn let_go(&mut self) {
        if let (Some(Held { signal, .. }), Phase::Leading { .. }) = (self.held.take(), &self.phase) {
            self.order(Order::Signal(signal));
        }
    }

    fn kill_all(&mut self, failure: Failure) {
        if let Phase::Leading { lost: false, .. } = self.phase {
            self.tell(News::Lost(match failure {
                Failure::Died => Loss::SupervisorDied,
                Failure::Late => Loss::SupervisorLate,
            }));
        }
        self.phase = Phase::Killing;
        self.actions.push_back(Action::LastResort(failure));
    }

    /// Nothing of the command is left: the lease is given back.
    fn end(&mut self, now: Instant, exit: Exit, well: bool) {
        self.phase = Phase::Ending { exit, until: now + self.longest_release };
        self.tell(News::Gone);
        self.notify(Notice::TreeGone { well });
    }

    fn exit(&self, gone: &Gone) -> Exit {
        match gone.end {
            _ if gone.lost => Exit::AFTER_LOSS,
            End::Exited(status) => Exit::with(status as u8),
            End::Signaled(signal) => Exit::by_signal(signal),
            End::NotExecuted(libc::ENOENT) => Exit::with(exit::NOT_FOUND),
            // For want of processes or memory, which says nothing about the command.
            End::NotExecuted(libc::EAGAIN | libc::ENOMEM) => Exit::with(exit::FAILED),
            End::NotExecuted(_) => Exit::with(exit::NOT_EXECUTABLE),
            End::NotStarted => self.termination_signal.map_or(Exit::AFTER_LOSS, Exit::by_signal),
        }
    }

    fn order(&mut self, order: Order) {
        self.actions.push_back(Action::Order(order));
    }

    fn notify(&mut self, notice: Notice) {
        self.actions.push_back(Action::Notify(notice));
    }

    fn tell(&mut self, news: News) {
        self.actions.push_back(Action::Tell(news));
    }
}

#[cfg(test)]
mod tests;
