//! What those that observe a candidate are told: metrics, health, routing, Events.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use jiff::Timestamp;

use crate::instant::Instant;

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Update {
    /// The lock's name, with what was left out filled in.
    Lock(String),
    /// The election acts by then, whatever happens; without an instant it only waits for something to happen.
    ActsBy(Option<Instant>),
    Observed(Observed),
    /// A read or a write succeeded, or the watch said something: the lock can be reached.
    LockAnswered,
    /// A claim of the free lock was refused: it can be read, but not acquired.
    ClaimRefused,
    WatchRestarted,
    Renewal {
        result: RenewalResult,
        took: Duration,
    },
    /// A renewal was known to have succeeded when this much time was left.
    Renewed {
        margin: Duration,
    },
    /// The slot that was acquired, of a lock that has several. Said before [`Acquired`](Self::Acquired).
    Slot(usize),
    /// The lock was acquired.
    Acquired {
        /// The fencing token.
        token: String,
        /// The uids of the objects that the record is in.
        uids: Vec<String>,
    },
    Leading {
        /// When the command is sent the stop signal.
        stop: Instant,
        /// When nothing of it can be left.
        gone: Instant,
    },
    CommandStarted,
    /// leaderrun was asked to end the command, by a signal or by a request to step down.
    TerminationRequested,
    /// The command is about to be sent a termination signal.
    Terminating,
    /// The main process of the command has ended, with this status as a shell shows it.
    CommandEnded(String),
    Lost(Loss),
    /// How late this thread runs after it should have been woken, as its deadlines allow for it.
    SchedulingDelay {
        thread: MeasuredThread,
        delay: Duration,
    },
    /// Nothing of the command is left.
    CommandGone,
    /// leaderrun exits, or rejoins.
    Exiting,
}

/// A thread whose punctuality is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MeasuredThread {
    /// The elector's main thread.
    Elector,
    /// The election's thread.
    Election,
    Supervisor,
}

/// The record as it was last seen.
#[derive(Clone, Debug)]
pub struct Observed {
    /// Empty when nobody holds it.
    pub holder: String,
    pub since: Option<Timestamp>,
    /// None where there is no record.
    pub transitions: Option<u32>,
    /// When the lock may be acquired, if the record does not change until then.
    pub takeable_at: Instant,
}

/// How a renewal was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenewalResult {
    Success,
    /// Somebody else had written meanwhile.
    Conflict,
    /// Certainly not carried out.
    Refused,
    /// It may or may not have been carried out.
    Error,
    /// Not answered in time.
    Timeout,
}

/// Why a leadership was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Loss {
    /// It could not be renewed in time.
    NotRenewed,
    /// Another candidate was seen to hold the lock.
    Taken,
    SupervisorDied,
    /// The supervisor did not have the command dead in time.
    SupervisorLate,
}
