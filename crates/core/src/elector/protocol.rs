//! The inputs and actions of the elector.

use alloc::string::String;
use alloc::vec::Vec;

use crate::election::Outcome;
use crate::messages::{End, Order, Report, SupervisorNotice};
use crate::tenure::Tenure;
use crate::updates::Loss;

/// Everything that has arrived since the last step.
#[derive(Clone, Debug, Default, PartialEq, Hash)]
pub struct ElectorInputs {
    /// The supervisor's reports, in order. If `supervisor_died` is true, its last reports must be passed in this step
    /// or an earlier one.
    pub reports: Vec<Report>,
    /// The election's reports, in order.
    pub election: Vec<ElectionReport>,
    pub supervisor_died: bool,
    /// Whether traffic has been routed away from the command, or cannot be. A termination signal that was deferred
    /// until then is relayed.
    pub withdrawn: bool,
    /// The signals that leaderrun received, except for termination signals that were ignored when it was started.
    pub signals: Vec<i32>,
    /// Whether the size of leaderrun's terminal has changed.
    pub terminal_resized: bool,
    /// Whether the elector has no children left, and no other process of the command is left. While the elector kills
    /// the command, dead children that cannot be reaped do not count.
    pub tree_empty: bool,
}

/// A message from the election to the elector's main thread.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ElectionReport {
    /// A claim is about to be sent. From now on the lock may be acquired, so it must be released before the exit.
    Claiming,
    /// The claim has definitively failed: it can no longer acquire the lock.
    ClaimFailed,
    /// The lock was acquired. `environment` contains the variables that describe this leadership to the command.
    Acquired {
        tenure: Tenure,
        environment: Vec<(String, String)>,
    },
    /// A renewal succeeded.
    Renewed(Tenure),
    /// This candidate was asked to step down.
    StepDownRequested,
    /// Another candidate has acquired the lock.
    Taken,
    Finished(Outcome),
    /// The election thread ended with an error, for example because the lock could not be opened.
    Failed {
        /// Whether starting leaderrun again may succeed.
        is_transient: bool,
    },
}

/// An action for the driver of the elector to carry out.
#[derive(Clone, Debug, PartialEq, Hash)]
pub enum ElectorAction {
    /// Send this order to the supervisor.
    Order(Order),
    /// Report to the election that no process of the command is left.
    ReportCommandGone { succeeded: bool },
    /// Stop the election.
    StopElection,
    /// Kill the supervisor, then every descendant, repeatedly until none is left. This is always the first action of
    /// its step.
    KillAll(SupervisorFailure),
    /// Log this notice, and pass it to the observers of this candidate. Notices come in causal order: for example, the
    /// loss of the lock comes before the end of the command.
    Notify(ElectorNotice),
    /// End leaderrun.
    Exit(ExitReason),
}

/// The way in which a supervisor failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SupervisorFailure {
    Died,
    /// The supervisor did not report in time that the command is gone.
    Late,
}

/// The reason for leaderrun's exit, which determines its exit status.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ExitReason {
    /// The command ended.
    Command(End),
    /// Leadership was lost. `may_rejoin` states whether leaderrun may wait for the lock again. It is false if
    /// leaderrun or its command has been told to stop, by a signal or by a request to step down.
    Lost { may_rejoin: bool },
    /// leaderrun stopped waiting while the lock was held or could not be acquired yet.
    NotAcquired,
    /// leaderrun stopped waiting while the lock could not be reached or used.
    Unreachable,
    /// This signal arrived before the command was started.
    Signaled(i32),
    /// leaderrun itself failed.
    Failed {
        /// Whether starting leaderrun again may succeed.
        is_transient: bool,
    },
}

/// An event of the candidate that is logged and passed to its observers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ElectorNotice {
    /// The command was started, and its main process has this pid.
    CommandStarted {
        pid: i32,
    },
    /// A notice from the supervisor.
    Supervisor(SupervisorNotice),
    /// The command may run for as long as this tenure lasts.
    Leading(Tenure),
    Lost(Loss),
    /// The command is about to get a termination signal, so traffic must no longer be routed to it. This notice is sent
    /// only if leaderrun routes traffic.
    Terminating,
    /// The first termination signal since the acquisition of the lock. A request to step down counts as SIGTERM.
    TerminationSignal(i32),
    /// The supervisor reported that no process of the command is left, and how the main process ended. This notice is
    /// missing if the elector killed the command.
    CommandEnded(End),
    /// No process of the command is left, whether or not the elector killed it.
    CommandGone,
    /// The wait for the lock ended; see [`ExitReason::NotAcquired`].
    NotAcquired,
    /// The wait for the lock ended; see [`ExitReason::Unreachable`].
    Unreachable,
    /// The lock was released.
    Released,
    /// The lock could not be released in time.
    NotReleased,
    /// This signal ended the wait for the lock.
    WaitInterrupted(i32),
    /// The supervisor died before a command was started.
    SupervisorDiedWhileWaiting,
}
