//! What the rest of the program is told of a candidate.

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
    /// The election acts by then, whatever happens; without an instant it waits for something.
    ActsBy(Option<Instant>),
    Observed(Observed),
    WatchRestarted,
    Renewal {
        result: RenewalResult,
        took: Duration,
    },
    /// A renewal was known to have succeeded when this much time was left.
    Renewed {
        margin: Duration,
    },
    /// The lock was won.
    Won {
        /// The fencing token.
        token: String,
        /// Of the objects that the record is in.
        uids: Vec<String>,
    },
    Leading {
        /// The command is told to stop.
        stop: Instant,
        /// Nothing of it can be left.
        gone: Instant,
    },
    CommandStarted,
    /// The command is about to be asked to end.
    Ending,
    /// With a status as a shell shows it.
    CommandEnded(String),
    Lost(Loss),
    /// Nothing of the command is left.
    Gone,
    /// leaderrun ends, or begins again.
    Over,
}

/// The record as it was last seen.
#[derive(Clone, Debug)]
pub struct Observed {
    /// Empty when nobody holds it.
    pub holder: String,
    pub since: Option<Timestamp>,
    /// None where there is no record.
    pub transitions: Option<u32>,
    /// When it may be taken, if it does not change until then.
    pub free: Instant,
}

/// How a renewal was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenewalResult {
    Success,
    /// Somebody had written meanwhile.
    Conflict,
    /// Certainly not carried out.
    Refused,
    /// No telling whether it was carried out.
    Error,
    /// Not answered in time.
    Timeout,
}

/// Why a leadership was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Loss {
    /// It could not be renewed in time.
    NotRenewed,
    /// Somebody else was seen to hold the lock.
    Taken,
    SupervisorDied,
    /// The supervisor did not have the command dead in time.
    SupervisorLate,
}
