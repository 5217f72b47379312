//! The inputs and actions of the supervisor.

use alloc::vec::Vec;
use core::time::Duration;

use crate::instant::Instant;
use crate::messages::{End, KillReason, Order, Report};
use crate::tenure::Tenure;

/// The options for how a command is stopped.
#[derive(Clone, Debug, Hash)]
pub struct StopOptions {
    /// The signal that is sent to the command when leadership is lost, and at the end of `max_run`.
    pub stop_signal: i32,
    /// The time from the stop signal to the kill after a loss of leadership. Processes that the main process leaves
    /// running are killed after the same time.
    pub lost_grace: Duration,
    /// The time from a relayed SIGTERM, SIGINT or stop signal to the kill. If it is `None`, the command is not killed
    /// after such a signal.
    pub kill_after: Option<Duration>,
    /// How long the command may run. After this time it is stopped even if the lock is still held, and killed
    /// `kill_after` later, or `lost_grace` later if that is `None`. If this is `None`, the time is not limited.
    pub max_run: Option<Duration>,
}

/// Everything that has arrived since the last step.
#[derive(Clone, Debug, Default, PartialEq, Hash)]
pub struct SupervisorInputs {
    /// The result of [`SupervisorAction::Start`].
    pub start: Option<StartResult>,
    /// The elector's orders, oldest first.
    pub orders: Vec<Order>,
    pub elector_died: bool,
    /// How the main process ended, if it has.
    pub main_ended: Option<End>,
    /// Whether no process of the command is left, apart from dead ones that cannot be reaped.
    pub tree_empty: bool,
}

/// The result of starting a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StartResult {
    /// The fork was attempted. If the kernel refused it, [`SupervisorInputs::main_ended`] says so in the same step.
    Attempted,
    /// No time was left, so the command was not forked.
    TooLate,
}

/// An action for the driver of the supervisor to carry out.
#[derive(Clone, Debug, PartialEq, Hash)]
pub enum SupervisorAction {
    /// Publish the time until which the command may rely on the lock; `None` means that it may not rely on it.
    SetHeldUntil(Option<Instant>),
    /// Start the command, unless this tenure is over when it is about to be forked.
    Start(Tenure),
    /// Relay this signal to the command's process group.
    Signal(i32),
    /// Send the stop signal to the command's process group. The tenure's `stop` has come, the elector has died, or
    /// killing the command could take too long (see [`with_max_advance`](super::Supervisor::with_max_advance)).
    Stop,
    /// Report which processes the main process left running; `awaited` states whether they are treated as part of the
    /// command, so that leaderrun waits for them (`--wait-for all`).
    ReportLeftovers { awaited: bool },
    /// Relay this signal to the processes that were orphaned when the main process ended.
    SignalLeftovers(i32),
    /// The command has run for `max_run`: send the stop signal to its process group.
    TimeOut,
    /// Send SIGTERM to the processes that were orphaned when the main process ended, and to those orphaned later.
    TerminateLeftovers,
    /// Send SIGKILL to every descendant, repeatedly until none is left.
    Kill(KillReason),
    /// Send this report to the elector.
    Report(Report),
    /// Kill the elector, which is frozen and blocks other candidates.
    KillElector,
}
