//! The inputs and actions of an election.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use jiff::Timestamp;

use crate::instant::Instant;
use crate::record::{Record, RunId, Stored, Version};
use crate::tenure::Tenure;
use crate::timing::Timing;

/// The configuration of one candidate.
#[derive(Clone, Debug, Hash)]
pub struct ElectionConfig {
    /// The holder identity that this candidate writes into the record.
    pub identity: String,
    /// The ID of this run, which is one execution of your program. It must be unique, even among candidates with the
    /// same identity.
    pub run: RunId,
    pub timing: Timing,
    /// How long to wait for the lock; `None` means that there is no limit. If this is zero, the candidate does not wait
    /// for a holder that is alive.
    pub wait: Option<Duration>,
    /// If the command succeeds, the minimum time from the acquisition until it may run again; `None` means no minimum.
    pub min_hold: Option<Duration>,
    /// Whether this candidate acquires the lock even if the last holder's `min_hold` is not over.
    pub ignores_min_hold: bool,
    pub preference: Preference,
}

/// How strongly a candidate is preferred over the others. A candidate with a shorter claim delay is preferred: it
/// claims a free lock earlier, and may ask a less preferred leader to step down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Preference {
    /// How long this candidate leaves a free lock to candidates with a shorter delay.
    pub claim_delay: Duration,
    /// How long this candidate must be a standby of a leader with a longer delay before it asks that leader to step
    /// down; `None` means never. It asks each leader once.
    pub preempt_after: Option<Duration>,
}

/// The current time on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// The clock for deadlines. It never goes back, and keeps running while the machine is suspended.
    pub boot: Instant,
    /// The wall clock, for times that people read. It may be wrong and may jump.
    pub wall: Timestamp,
}

/// Everything that has arrived since the last step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ElectionInputs {
    /// The end of the command. After [`StartLeading`](ElectionAction::StartLeading), set this exactly once: when the
    /// last process of the command has ended, or as soon as it is known that the command will not be started.
    pub command_gone: Option<CommandGone>,
    /// Whether to end the candidacy. A leader continues until its command is gone.
    pub stop: bool,
    /// The reply to the request that was sent last.
    pub reply: Option<Reply>,
    /// The record that an earlier write has stored, if the reply arrives after another request was sent. The driver may
    /// drop such replies, but then a leader whose writes take longer than a request timeout loses the lock.
    pub late_write: Option<Stored>,
    /// The events of the watch that was opened last, in order.
    pub watch_events: Vec<WatchEvent>,
}

impl ElectionInputs {
    /// Creates inputs that contain only a reply.
    pub fn reply(reply: Reply) -> Self {
        Self { reply: Some(reply), ..Self::default() }
    }

    /// Creates inputs that contain only one watch event.
    pub fn watch_event(event: WatchEvent) -> Self {
        Self { watch_events: Vec::from([event]), ..Self::default() }
    }

    /// Creates inputs that contain only the end of the command.
    pub fn command_gone(succeeded: bool) -> Self {
        Self { command_gone: Some(CommandGone { succeeded }), ..Self::default() }
    }

    /// Creates inputs that contain only the request to end the candidacy.
    pub fn stop() -> Self {
        Self { stop: true, ..Self::default() }
    }
}

/// Reports that the command has ended and that none of its processes is left, or that it will not be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CommandGone {
    /// Whether the command succeeded. If so, `min_hold` applies.
    pub succeeded: bool,
}

/// A request to the lock. There is at most one at a time: a new request replaces the previous one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// Read the record with a consistent read, which reflects all earlier writes.
    Get,
    /// Create the record if there is none.
    Create(Record),
    /// Replace the record if it has this version.
    Update(Version, Record),
}

/// The reply to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    /// The result of a read: the record, or `None` if there is none.
    Read(Option<Stored>),
    /// The write was carried out; this is the record as it is stored now.
    Written(Stored),
    /// The write was refused, because it is not based on the current version.
    Conflict,
    /// The request is known not to have acquired or renewed the lock. Either it was not carried out, or the server has
    /// stored a different record than the one that was sent, for example because of an admission webhook.
    Refused { retry_after: Option<Duration> },
    /// The request may or may not have been carried out.
    Unknown { retry_after: Option<Duration> },
}

/// An event of a watch of the record.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::large_enum_variant, reason = "events are handled one at a time and not stored")]
pub enum WatchEvent {
    /// The watch is open, and delivers all changes from now on.
    Opened,
    /// The watch is alive, and nothing has changed.
    Bookmark,
    /// The record was created or changed; this is its current state.
    Changed(Stored),
    /// The record was deleted.
    Deleted,
    /// The watch ended cleanly and can be resumed at the last version.
    Ended,
    /// The watch broke, could not be opened, or cannot be resumed.
    Broken,
    /// The watch was refused, and the server requests a pause before the next watch.
    Refused { retry_after: Duration },
    /// This candidate is not allowed to watch.
    Forbidden,
}

/// An action for the driver of an election to carry out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::large_enum_variant, reason = "actions are few and not stored")]
pub enum ElectionAction {
    /// Send this request. If the previous request is still pending, drop it and close its connection. If that request
    /// is a write, you may instead keep waiting for its reply, and pass the stored record in
    /// [`ElectionInputs::late_write`].
    Send(Request),
    /// Watch the record for changes after this version, or from its current state on if this is `None`. Drop the
    /// previous watch.
    Watch(Option<Version>),
    /// Drop the watch.
    Unwatch,
    /// A claim is about to be sent. From now on this candidate may hold the lock: before your program exits, it must
    /// set [`ElectionInputs::stop`] and wait for [`Finish`](Self::Finish).
    Claiming,
    /// The claim has definitively failed: this candidate does not hold the lock, and none of its writes can still
    /// acquire it.
    ClaimFailed,
    /// The lock was acquired: run the command for as long as this tenure lasts.
    StartLeading(Leadership),
    /// A renewal succeeded: the command may run for as long as this tenure lasts.
    Extend(Tenure),
    /// This candidate was asked to step down. End the command cleanly; the lock is renewed until the command is gone.
    StepDown,
    /// Another candidate has acquired the lock. Kill the command at once. `holder` is empty if that candidate has
    /// already released the lock.
    Lose { holder: String },
    /// Log this notice.
    Notify(ElectionNotice),
    /// The election is over.
    Finish(Outcome),
}

/// A successful acquisition of the lock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Leadership {
    pub tenure: Tenure,
    /// The uid of the object that contains the record.
    pub uid: String,
    /// The resourceVersion of the write that acquired the lock, from which the fencing token is derived.
    pub resource_version: String,
    /// The record's `leaseTransitions`: the number of acquisitions since the one that created the record.
    pub transitions: u32,
}

/// How an election ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The command is gone, and the lock was released or was no longer held by this candidate.
    Released,
    /// The command is gone. The lock could not be released in time and will expire.
    NotReleased,
    /// The command is gone. Another candidate had acquired the lock.
    Lost,
    /// The candidacy was stopped before this candidate led.
    Stopped,
    /// The candidate stopped waiting while the lock was held or could not be acquired yet.
    NotAcquired,
    /// The candidate stopped waiting while the lock could not be reached or used.
    Unreachable,
}

/// An event of an election that is logged.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ElectionNotice {
    /// Another candidate holds the lock.
    Held {
        holder: String,
        /// The time of the acquisition, according to that holder's clock.
        since: Option<Timestamp>,
        /// The time until the lock may be acquired if the record does not change.
        acquirable_in: Duration,
    },
    /// Another client released the lock in place of its holder. `holder` is `None` if no holder was known before.
    ReleasedByForce { holder: Option<String> },
    /// The holder released the lock.
    Released { holder: String },
    /// The record has expired: it did not change for its lease duration.
    Expired { holder: String },
    /// Another client emptied or deleted the record while this candidate held the lock. The candidate writes it again.
    Restoring,
    /// Another client edited the record while this candidate held the lock. The candidate writes it again.
    Edited,
    /// Another client emptied, deleted or replaced the record while another run held the lock. This candidate waits for
    /// that run's lease duration.
    Displaced,
    /// The lock is free, but the command has succeeded and must not run again before this time.
    NotDue { not_before: Timestamp },
    /// The record cannot be watched, so it is read every retry period instead.
    Polling,
    /// The record is watched again.
    Watching,
    /// A leader with a longer claim delay is asked to step down.
    Preempting { holder: String },
}
