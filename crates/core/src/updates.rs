//! The updates that a candidate sends to its observers: metrics, health checks, routing and Kubernetes Events.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use jiff::Timestamp;

use crate::instant::Instant;

/// An update about a candidate.
#[derive(Clone, Debug)]
pub enum Update {
    /// The full name of the lock. If the user gave no namespace, it contains the default one.
    Lock(String),
    /// The election's next timeout; `None` if the election only waits for input.
    NextTimeout(Option<Instant>),
    /// The record as last observed. This is sent even if it has not changed.
    Observed(Observed),
    /// A request succeeded or failed with a conflict, or the watch delivered an event, so the lock is reachable.
    LockResponded,
    /// A write that is not a renewal was refused. Usually this is a claim, and its refusal means that the lock can be
    /// read but not acquired. It can also be a release or a request to step down.
    WriteRefused,
    /// A watch was opened for a slot that had been watched before.
    WatchRestarted,
    /// A request to renew the lock ended with this result, after this time.
    Renewal {
        result: RenewalResult,
        took: Duration,
    },
    /// The tenure was extended. `margin` is the time that was left until its previous stop instant.
    Renewed {
        margin: Duration,
    },
    /// The slot that was acquired, if the lock has several slots. This is sent before [`Acquired`](Self::Acquired).
    Slot(usize),
    /// The lock was acquired.
    Acquired {
        /// The fencing token.
        token: String,
        /// The uids of the objects that contain the record.
        uids: Vec<String>,
    },
    /// The command may run until `stop`. This is sent again whenever the tenure changes.
    Leading {
        /// When the stop signal is sent to the command.
        stop: Instant,
        /// The time by which the supervisor must have reported that every process of the command is dead. If it has
        /// not, the elector kills the supervisor and the command. A supervisor that kills the processes gradually (see
        /// [`KillPace`](crate::kill_time::KillPace)) gets more time.
        gone_by: Instant,
    },
    CommandStarted,
    /// leaderrun got a termination signal or was asked to step down, so the command has to end.
    TerminationRequested,
    /// The command is about to get a termination signal, so traffic must no longer be routed to it. This is sent only
    /// if leaderrun routes traffic.
    Terminating,
    /// The command has ended, with this exit status: 124 after `--max-run`, otherwise the status that a shell reports.
    CommandEnded(String),
    Lost(Loss),
    /// The expected scheduling delay of a thread has changed: its deadlines now allow for this delay.
    SchedulingDelay {
        thread: MeasuredThread,
        delay: Duration,
    },
    /// How long the command's processes would take to end if they were killed now.
    KillTime(Duration),
    /// No process of the command is left.
    CommandGone,
    /// This run of leaderrun is over: the process exits or rejoins.
    RunEnding,
}

/// A thread whose scheduling delay is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MeasuredThread {
    /// The elector's main thread.
    Elector,
    /// The elector's election thread.
    Election,
    Supervisor,
}

/// The record as the candidate last observed it.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The holder's identity; empty if the record does not name a holder.
    pub holder: String,
    /// The time of the acquisition on the holder's wall clock.
    pub since: Option<Timestamp>,
    /// The record's number of transitions; `None` if there is no record.
    pub transitions: Option<u32>,
    /// When the lock may be acquired if the record does not change until then.
    pub acquirable_at: Instant,
}

/// The result of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenewalResult {
    Success,
    /// Another client had changed the object.
    Conflict,
    /// The request is known not to have renewed the lock.
    Refused,
    /// The request failed in a way that leaves open whether it was carried out, for example with a broken connection or
    /// a server error.
    Error,
    /// No reply to the renewal arrived in time.
    Timeout,
}

/// The reason for a loss of leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Loss {
    /// The lock could not be renewed in time.
    NotRenewed,
    /// Killing the command would have taken so long that the lock could have expired first, if renewals had failed.
    TooSlow,
    /// Another candidate holds the lock.
    Taken,
    SupervisorDied,
    /// The supervisor did not report in time that the command is gone.
    SupervisorLate,
}
