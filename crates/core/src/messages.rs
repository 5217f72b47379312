//! What the two processes say to each other.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::tenure::Tenure;

/// What the elector tells the supervisor.
#[derive(Clone, Debug, PartialEq, Hash, Serialize, Deserialize)]
pub enum Order {
    /// The lease is won: run the command for as long as the tenure lasts.
    Start { tenure: Tenure, environment: Vec<(String, String)> },
    /// A renewal succeeded.
    Extend(Tenure),
    /// Somebody else holds the lease: kill at once.
    Lose,
    /// leaderrun was sent this signal.
    Signal(i32),
}

/// What the supervisor tells the elector.
#[derive(Clone, Debug, PartialEq, Hash, Serialize, Deserialize)]
pub enum Report {
    /// This is the tenure now enforced. Answers every `Start` and `Extend` until the command is gone.
    Enforcing(Tenure),
    /// The command was executed.
    Started { pid: i32 },
    /// Nothing of the command is left, or it was never started. Answers every later `Extend`.
    Gone(Gone),
    /// Something for the log.
    Remark(Remark),
}

/// What people want to know of a command's life besides its beginning and its end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Remark {
    /// The leadership is lost: the command is sent this signal.
    Stopping { signal: i32 },
    /// These are killed, and whatever they start.
    Killing { reason: Reason, processes: String },
    /// Something cannot be killed.
    CannotKill(String),
    /// The command could not be started.
    NotExecuted { command: String, reason: String },
    /// The command was suspended from its terminal and goes on all the same.
    GoesOn,
    /// The command is stopped because it wants the terminal.
    AwaitsTerminal,
    /// `leaderrun check` cannot be used.
    NoCheck { reason: String },
}

/// Why the tree is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// The leadership is lost and the grace is over.
    Lost,
    /// `--kill-after` has passed since the command was asked to end.
    AskedToEnd,
    /// The main process has ended and what it left running did not follow.
    LeftRunning,
}

/// How the command's life ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Gone {
    pub end: End,
    /// It had to be stopped because the leadership was lost.
    pub lost: bool,
}

/// How the command's main process ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum End {
    NotStarted,
    /// It could not be executed, with this `errno`.
    NotExecuted(i32),
    Exited(i32),
    Signaled(i32),
}
