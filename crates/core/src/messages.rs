//! The messages between the two processes.
//!
//! The transport may lose any of them. A lost message shortens a command's life and never lengthens it.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::tenure::Tenure;

/// A message from the elector to the supervisor.
#[derive(Clone, Debug, PartialEq, Hash, Serialize, Deserialize)]
pub enum Order {
    /// The lock is acquired: run the command for as long as the tenure lasts.
    Start { tenure: Tenure, environment: Vec<(String, String)> },
    /// A renewal succeeded.
    Extend(Tenure),
    /// Another candidate holds the lock: kill at once.
    Lose,
    /// leaderrun was sent this signal.
    Signal(i32),
}

/// A message from the supervisor to the elector.
#[derive(Clone, Debug, PartialEq, Hash, Serialize, Deserialize)]
pub enum Report {
    /// The tenure that is enforced now. Answers every `Start` and `Extend` until the command is gone.
    Enforcing(Tenure),
    /// The command was executed.
    Started { pid: i32 },
    /// Nothing of the command is left, or it was never started. Answers every later `Extend`.
    Gone(Gone),
    /// Something worth a log line.
    Notice(SupervisorNotice),
}

/// Something about a command that people want to know, besides its beginning and its end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SupervisorNotice {
    /// The leadership is lost: the command is sent this signal.
    Stopping { signal: i32 },
    /// These processes are killed, and whatever they start.
    Killing { reason: KillReason, processes: String },
    /// The command could not be sent this signal.
    SignalRefused { signal: i32, reason: String },
    /// Something cannot be killed.
    CannotKill(String),
    /// The command could not be started.
    NotExecuted { command: String, reason: String },
    /// The command was suspended from its terminal, and was continued: a leader cannot be suspended.
    SuspendRefused,
    /// The command is stopped because it wants the terminal.
    AwaitsTerminal,
    /// `leaderrun check` cannot be used.
    CheckUnavailable { reason: String },
    /// Nothing kills the command when both processes of leaderrun are killed at once.
    SwitchUnavailable { reason: String },
}

/// Why a command is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KillReason {
    /// The leadership is lost and the grace period is over.
    Lost,
    /// The time that a command has after a termination signal is over.
    Terminated,
    /// The main process has ended and what it left running did not follow in time.
    LeftRunning,
}

/// How the life of a command ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Gone {
    pub end: End,
    /// It was stopped because the leadership was lost.
    pub lost: bool,
}

/// How the main process of a command ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum End {
    NotStarted,
    /// It could not be executed, with this `errno`.
    NotExecuted(i32),
    Exited(i32),
    Signaled(i32),
}
