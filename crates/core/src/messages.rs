//! The messages between leaderrun's two processes, the elector and the supervisor.
//!
//! The transport may lose any message. A lost message can end a command too early, but cannot let it live past the kill
//! instant of its tenure, with one exception: if an [`Order::ElectorLate`] or a [`Report::Enforcing`] with an earlier
//! stop and kill is lost, and the supervisor then fails, the elector may kill the command too late.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::kill_time::KillPace;
use crate::tenure::Tenure;

/// A message from the elector to the supervisor.
#[derive(Clone, Debug, PartialEq, Hash, Serialize, Deserialize)]
pub enum Order {
    /// The lock was acquired: run the command for as long as the tenure lasts, with these additional variables in its
    /// environment.
    Start { tenure: Tenure, environment: Vec<(String, String)> },
    /// A renewal succeeded.
    Extend(Tenure),
    /// Another candidate holds the lock: kill the command at once.
    Lose,
    /// The elector may be woken `delay` too late. If the supervisor fails, the elector may kill the command that much
    /// later.
    ElectorLate { delay: Duration },
    /// Relay this signal to the command. leaderrun received it, or was asked to step down (SIGTERM), or its terminal
    /// was resized (SIGWINCH).
    Signal(i32),
}

/// A message from the supervisor to the elector.
#[derive(Clone, Debug, PartialEq, Hash, Serialize, Deserialize)]
pub enum Report {
    /// The tenure that is now enforced. This is sent after every `Start` and `Extend` until the command is gone, and
    /// when the supervisor has moved the stop and the kill.
    Enforcing(Tenure),
    /// The command was executed, or its process was killed before that.
    Started { pid: i32 },
    /// No process of the command is left, or the command was never started. This is repeated after every later
    /// `Extend`.
    Gone(Gone),
    /// An event to log.
    Notice(SupervisorNotice),
}

/// An event that the supervisor reports and the elector logs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SupervisorNotice {
    /// Leadership is lost, and this signal is sent to the command.
    Stopping { signal: i32 },
    /// The command has reached `--max-run`, and this signal is sent to it.
    TimedOut { signal: i32 },
    /// All processes of the command are being killed. `processes` names some of them.
    Killing { reason: KillReason, processes: String },
    /// The supervisor may be woken `delay` too late, so it brings the stop and the kill forward by that much.
    RunsLate { delay: Duration },
    /// Killing the command would take `kill_time`, so the stop and the kill are brought forward by that much. `pace` is
    /// the pace of the kill; `None` if all processes would be killed at once.
    KillTime { kill_time: Duration, processes: u32, threads: u32, pace: Option<KillPace> },
    /// The stop and the kill would have to be brought forward by `advance`, which is longer than `max_advance`, so no
    /// command may run.
    TooSlow { advance: Duration, max_advance: Duration },
    /// This signal could not be sent to the command.
    SignalRefused { signal: i32, reason: String },
    /// A process cannot be killed. The text names it and states the reason.
    CannotKill(String),
    /// The main process ended on its own and left these processes running; `awaited` states whether they are treated as
    /// part of the command, so that leaderrun waits for them (`--wait-for all`).
    LeftRunning { processes: String, awaited: bool },
    /// The command could not be started.
    NotExecuted { command: String, reason: String },
    /// The command was suspended from its terminal, and leaderrun continued it, because a leader cannot be suspended.
    SuspendRefused,
    /// The command's process group is the terminal's foreground group.
    HasTerminal,
    /// The kernel has suspended the command, because it tried to use the terminal from the background.
    AwaitsTerminal,
    /// This signal has suspended the command's main process.
    CommandStopped { pid: i32, signal: i32 },
    /// `leaderrun check` cannot be used.
    CheckUnavailable { reason: String },
    /// The supervisor exits because the kernel refuses something that it needs.
    Failed { reason: String },
    /// The dead-man's switch cannot be used. If both processes of leaderrun are killed at once, the command is not
    /// killed.
    SwitchUnavailable { reason: String },
}

/// The reason for killing a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KillReason {
    /// Leadership was lost, and the grace period is over. If another candidate holds the lock, there is no grace
    /// period.
    Lost,
    /// The command did not end within `--kill-after` of a termination signal.
    Terminated,
    /// The command did not end in time after `--max-run`.
    TimedOut,
    /// The main process has ended, and processes that it left running did not end in time.
    LeftRunning,
}

/// The end of a command, when none of its processes is left.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Gone {
    pub end: End,
    /// Whether leadership was lost before the command ended. If so, its exit status does not count.
    pub lost: bool,
}

/// The way in which the main process of a command ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum End {
    NotStarted,
    /// The command could not be executed because of the error with this `errno`.
    NotExecuted(i32),
    Exited(i32),
    Signaled(i32),
    /// The command was stopped because it had run for `--max-run`.
    TimedOut,
}
