//! What the elector's decisions are given and what they return.

use alloc::string::String;
use alloc::vec::Vec;

use crate::election::Outcome;
use crate::messages::{End, Order, Report};
use crate::tenure::Tenure;
use crate::updates::Loss;

/// Everything that has arrived since the last step.
#[derive(Clone, Debug, Default, PartialEq, Hash)]
pub struct ElectorInputs {
    /// The supervisor's reports, in order. Those it sent before it died have to be in the same step as its death, or
    /// an earlier one.
    pub reports: Vec<Report>,
    /// The election's reports, in order.
    pub election: Vec<ElectionReport>,
    pub supervisor_died: bool,
    /// Traffic was routed away from the command, or cannot be.
    pub withdrawn: bool,
    /// The signals that leaderrun was sent and not started to ignore.
    pub signals: Vec<i32>,
    /// This process has no child left, dead or alive.
    pub tree_empty: bool,
}

/// A message from the election to the elector's main thread.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ElectionReport {
    /// From here on the lock may be acquired, and has to be released at the end.
    Claiming,
    /// It was not acquired.
    ClaimFailed,
    /// The lock is acquired; the environment is what the command may know of it.
    StartLeading {
        tenure: Tenure,
        environment: Vec<(String, String)>,
    },
    /// A renewal succeeded.
    Extend(Tenure),
    /// The command is to end as if leaderrun were told to end.
    StepDown,
    /// Another candidate holds the lock.
    Lose,
    Finished(Outcome),
    /// There is no election any more, for a reason that has nothing to do with it.
    Failed,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Hash)]
pub enum ElectorAction {
    /// Send this order to the supervisor.
    Order(Order),
    /// Tell the election that nothing of the command is left.
    CommandGone { succeeded: bool },
    /// Tell the election to end.
    StopElection,
    /// Kill the supervisor, and then every descendant, again and again, until none is left.
    KillAll(SupervisorFailure),
    /// Something worth a log line, or of interest to those that observe this candidate.
    Notify(ElectorNotice),
    /// End leaderrun.
    Exit(Ending),
}

/// How a supervisor can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SupervisorFailure {
    Died,
    /// It did not have the command dead in time.
    Late,
}

/// How leaderrun ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Ending {
    /// As the command did.
    Command(End),
    /// The leadership was lost. Where nobody has asked for an end, leaderrun may wait for the lock again.
    Lost { may_rejoin: bool },
    /// The time to wait is over, and the lock was held, or not due.
    NotAcquired,
    /// The time to wait is over, and the lock could not be reached or used.
    Unreachable,
    /// This signal ended leaderrun before the command was started.
    Signaled(i32),
    /// leaderrun itself failed.
    Failed,
}

/// Something about the candidate that people want to know.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ElectorNotice {
    /// The command may live for as long as this tenure lasts.
    Leading(Tenure),
    Lost(Loss),
    /// The command is about to be sent a termination signal: traffic has to be routed away from it.
    Terminating,
    /// The command is sent this termination signal, the first one.
    TerminationSignal(i32),
    CommandEnded(End),
    /// Nothing of the command is left.
    CommandGone,
    NotAcquired,
    Unreachable,
    /// The lock was released.
    Released,
    /// The lock could not be released in time.
    NotReleased,
    /// This signal ended the wait for the lock.
    WaitInterrupted(i32),
    /// The supervisor died before a command was started.
    SupervisorDied,
}
