//! What the election is given and what it returns.

use alloc::string::String;
use core::time::Duration;

use jiff::Timestamp;

use crate::instant::Instant;
use crate::record::{Record, RunId, Stored, Version};
use crate::tenure::Tenure;
use crate::timing::Timing;

/// Who takes part, and how.
#[derive(Clone, Debug, Hash)]
pub struct ElectionConfig {
    pub identity: String,
    pub run: RunId,
    pub timing: Timing,
    /// How long to wait for the lease; for ever without. Zero does not queue behind a living holder.
    pub wait: Option<Duration>,
    /// From the acquisition to when anybody may run the command again, once it has ended well.
    pub min_hold: Option<Duration>,
}

/// The present, on both clocks: one to decide by, one to show to people.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    pub boot: Instant,
    pub wall: Timestamp,
}

/// A request for the record. One at a time; a new one replaces the one before it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    Get,
    Create(Record),
    Update(Version, Record),
}

/// How a [`Request`] was answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    /// To a read: the record, or that there is none.
    Read(Option<Stored>),
    /// To a write: carried out.
    Written(Stored),
    /// To a write: refused, because it is not based on the present state.
    Conflict,
    /// Certainly not carried out.
    Refused { retry_after: Option<Duration> },
    /// No telling whether it was carried out.
    Unknown { retry_after: Option<Duration> },
}

/// What a watch of the record said.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time, and none is kept")]
pub enum WatchEvent {
    Changed(Stored),
    Deleted,
    /// It ended cleanly and can be taken up where it ended.
    Ended,
    /// It broke, could not be opened, or can no longer be taken up.
    Broken,
    /// This candidate may not watch.
    Forbidden,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Send this request, dropping the one before it with its connection if it is still under way.
    Send(Request),
    /// Watch the record from a version on, or from its present state; drop the watch before it.
    Watch(Option<Version>),
    Unwatch,
    /// From here on a lease may be won that has to be given back. Comes before the write is sent.
    Claiming,
    /// It was not won: nothing has to be given back.
    NotWon,
    /// Run the command for as long as this tenure lasts.
    Lead(Leadership),
    /// A renewal succeeded.
    Extend(Tenure),
    /// This run is asked to end its command cleanly. The lease stays its own until then.
    StepDown,
    /// Somebody else holds the lease: kill the command at once.
    Lose {
        holder: String,
    },
    /// Something worth telling.
    Tell(News),
    /// The election is over.
    Finish(Outcome),
}

/// A lease that was just won.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Leadership {
    pub tenure: Tenure,
    /// Of the object that the record is in.
    pub uid: String,
    /// Of the write that won: the fencing token, or what it is made of.
    pub resource_version: String,
    pub transitions: u32,
}

/// Why an election is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The command is gone and the lease was given back.
    Released,
    /// The command is gone; the lease could not be given back in time and will run out.
    NotReleased,
    /// The command is gone; somebody else holds the lease.
    Lost,
    /// Told to stop before it led.
    Stopped,
    /// The time to wait ran out.
    NotAcquired,
}

/// What people want to know of an election.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum News {
    /// Somebody else holds the lease.
    Waiting {
        holder: String,
        /// By that holder's clock.
        since: Option<Timestamp>,
        lease_duration: Duration,
    },
    /// This holder has released it.
    Released { holder: String },
    /// The record did not change for as long as it holds.
    Expired { holder: String },
    /// Somebody emptied or deleted the record while it was held here; it is written again.
    Restoring,
    /// Somebody changed what this run wrote, which holds the lock all the same and writes it again.
    Edited,
    /// Somebody emptied or deleted the record while another run held it; that run's time is awaited.
    Displaced,
    /// It is free, but the command ended well and is not due again before then.
    NotDue { not_before: Timestamp },
    /// The watch is forbidden or broken: reading every retry period instead.
    Polling,
}
