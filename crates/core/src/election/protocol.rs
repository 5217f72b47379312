//! What the election is given and what it returns.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use jiff::Timestamp;

use crate::instant::Instant;
use crate::record::{Record, RunId, Stored, Version};
use crate::tenure::Tenure;
use crate::timing::Timing;

/// Who takes part in an election, and how.
#[derive(Clone, Debug, Hash)]
pub struct ElectionConfig {
    /// The name that the record shows for this candidate.
    pub identity: String,
    /// This start of the program: no two candidates have the same one, whatever their identities.
    pub run: RunId,
    pub timing: Timing,
    /// How long to wait for the lock; without a limit if `None`. Zero does not queue behind a living holder.
    pub wait: Option<Duration>,
    /// The time from the acquisition to when the command may run again, after it has succeeded.
    pub min_hold: Option<Duration>,
}

/// The present, on both clocks: deadlines are kept on one, the other one is shown to people.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// The clock that deadlines are kept on. It only moves forward, and also counts suspend.
    pub boot: Instant,
    /// The wall clock. It may read anything.
    pub wall: Timestamp,
}

/// Everything that has arrived since the last step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ElectionInputs {
    /// Nothing of the command is alive, or it was never started.
    pub command_gone: Option<CommandGone>,
    /// The candidacy is to end. A leader goes on until its command is gone.
    pub stop: bool,
    /// The reply to the request that was sent last.
    pub reply: Option<Reply>,
    /// The events of the watch that was opened last, in order.
    pub watch_events: Vec<WatchEvent>,
}

impl ElectionInputs {
    /// Creates inputs with a reply and nothing else.
    pub fn reply(reply: Reply) -> Self {
        Self { reply: Some(reply), ..Self::default() }
    }

    /// Creates inputs with one watch event and nothing else.
    pub fn watch_event(event: WatchEvent) -> Self {
        Self { watch_events: Vec::from([event]), ..Self::default() }
    }

    /// Creates inputs that say that the command is gone, and nothing else.
    pub fn command_gone(succeeded: bool) -> Self {
        Self { command_gone: Some(CommandGone { succeeded }), ..Self::default() }
    }

    /// Creates inputs that end the candidacy, and nothing else.
    pub fn stop() -> Self {
        Self { stop: true, ..Self::default() }
    }
}

/// The end of everything that was started for a leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CommandGone {
    /// The command did what it had to do: `min_hold` counts.
    pub succeeded: bool,
}

/// A request for the record. One is under way at a time; a new one replaces the one before it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// Read the record, consistently: what was written before is seen.
    Get,
    /// Write the record where there is none.
    Create(Record),
    /// Replace the record that has this version, and no other.
    Update(Version, Record),
}

/// How a [`Request`] was answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    /// A read: the record, or that there is none.
    Read(Option<Stored>),
    /// A write that was carried out: the record as it is stored now.
    Written(Stored),
    /// A write that was refused, because it is not based on the present state.
    Conflict,
    /// A request that was certainly not carried out.
    Refused { retry_after: Option<Duration> },
    /// A request that may or may not have been carried out.
    Unknown { retry_after: Option<Duration> },
}

/// What a watch of the record said.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time, and none is kept")]
pub enum WatchEvent {
    /// The watch is open: changes will be seen from here on.
    Opened,
    /// The watch is alive, and nothing has changed.
    Bookmark,
    /// The record is this now.
    Changed(Stored),
    /// There is no record any more.
    Deleted,
    /// The watch ended cleanly and can be resumed where it ended.
    Ended,
    /// The watch broke, could not be opened, or cannot be resumed.
    Broken,
    /// This candidate may not watch.
    Forbidden,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ElectionAction {
    /// Send this request. The one before it, if it is still under way, is dropped with its connection.
    Send(Request),
    /// Watch the record from a version on, or from its present state. The watch before it is dropped.
    Watch(Option<Version>),
    /// Drop the watch.
    Unwatch,
    /// A claim is about to be sent: from here on the lock may be acquired, and has to be released at the end.
    Claiming,
    /// The claim has certainly failed: nothing has to be released.
    ClaimFailed,
    /// The lock is acquired: run the command for as long as this tenure lasts.
    StartLeading(Leadership),
    /// A renewal succeeded: the command may run for as long as this tenure lasts.
    Extend(Tenure),
    /// This run is asked to end its command cleanly. The lock stays its own until then.
    StepDown,
    /// Another candidate holds the lock: kill the command at once.
    Lose { holder: String },
    /// Something worth a log line.
    Notify(ElectionNotice),
    /// The election is over.
    Finish(Outcome),
}

/// A lock that was just acquired.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Leadership {
    pub tenure: Tenure,
    /// The uid of the object that the record is in.
    pub uid: String,
    /// The resourceVersion of the write that acquired the lock: the fencing token, or what it is made of.
    pub resource_version: String,
    /// How often the lock was acquired after another candidate had held it.
    pub transitions: u32,
}

/// How an election ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The command is gone and the lock was released.
    Released,
    /// The command is gone. The lock could not be released in time and will expire.
    NotReleased,
    /// The command is gone. Another candidate holds the lock.
    Lost,
    /// The candidacy was stopped before it led.
    Stopped,
    /// The time to wait is over, and the lock was held, or not due.
    NotAcquired,
    /// The time to wait is over, and the lock could not be reached or used.
    Unreachable,
}

/// Something about an election that people want to know.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ElectionNotice {
    /// Another candidate holds the lock.
    Held {
        holder: String,
        /// The acquisition, by that holder's clock.
        since: Option<Timestamp>,
        lease_duration: Duration,
    },
    /// Somebody released the lock in place of its holder, if it had one.
    ReleasedByForce { holder: Option<String> },
    /// This holder has released the lock.
    Released { holder: String },
    /// The record did not change for as long as it holds.
    Expired { holder: String },
    /// The record was emptied or deleted by somebody else while this run held the lock; it is written again.
    Restoring,
    /// The record was edited by somebody else while this run held the lock; it is written again.
    Edited,
    /// The record was emptied, deleted or replaced by somebody else while another run held the lock: that run's time
    /// is waited for.
    Displaced,
    /// The lock is free, but the command has succeeded and is not due again before then.
    NotDue { not_before: Timestamp },
    /// The record cannot be watched: it is read every retry period instead.
    Polling,
    /// The record is watched again.
    Watching,
}
