//! The rules that determine which faults may be combined.
//!
//! leaderrun's promise (see docs/safety.md) covers any *one* fault. The torture test combines faults under the
//! following rules. Each rule says why the promise still holds.
//!
//! - **One of leaderrun's two processes may be killed or frozen at any time.** In each run of leaderrun, these faults
//!   affect only one of the two, the elector or the supervisor, and the other one kills the command's process tree.
//!   Processes of several candidates may fail at the same time, because each candidate represents a separate machine.
//! - **Both processes may fail at the same time only by being killed, and only if the command stays in its process
//!   group.** The kernel then kills that group. Both may be frozen first, if the kill comes before the lease expires.
//!   While both are frozen, no process can end the command, so the promise does not cover a longer freeze.
//! - **The network and the API server may fail, and the output of leaderrun and of its command may stay unread, at any
//!   time.** A request that is lost, late or refused, or that gets a wrong response, can only keep a tenure from being
//!   *extended*. The kill at the tenure's end needs no request. A write that arrives late is refused if the record has
//!   changed in the meantime.
//! - **leaderrun and the command may get signals at any time.** The promise does not depend on what the command does.
//! - **At any time, an edit may give the lock to another holder, label the object, or make the lease longer.** A
//!   candidate that observes such a record waits for its duration. The holder's process tree is dead by then, because
//!   its last renewal is older than the edit.
//! - **An edit may delete, clear or shorten the record, or make leaderrun's mark invalid, only if every candidate that
//!   is alive has observed the holder, and no other candidate starts before the lease would have expired.** Only a
//!   candidate that has observed the holder's record knows that the holder may be alive. The promise does not cover a
//!   new candidate, or one that had no connection since the holder acquired the lock. A record without its mark looks
//!   like that of another implementation, whose holders clear the record to release the lock. A candidate that observed
//!   such a record, and then an empty one, would acquire the lock immediately, although an orphaned command may be
//!   alive for a few seconds. The candidates that know the holder, and the holder itself, may still be disconnected,
//!   frozen or killed.

use std::time::{Duration, Instant};

use crate::candidate::{FaultyProcesses, TorturedCandidate};
use crate::plan::{Edit, LeaderrunProcess};

/// Returns whether a fault may be injected into this process: only if no fault has affected the other process.
pub fn may_fail(candidate: &TorturedCandidate, process: LeaderrunProcess) -> bool {
    candidate.faulty.is_none_or(|faulty| faulty == FaultyProcesses::One(process))
}

/// The longest time for which both processes are frozen before they are killed. It is shorter than the time from the
/// kill at the end of a tenure to the earliest takeover.
pub const LONGEST_FREEZE_OF_BOTH: Duration = Duration::from_millis(500);

/// The arguments with which a command has a process that leaves the command's process group. That process survives if
/// both processes of leaderrun are killed.
pub const LEAVE_PROCESS_GROUP: [&str; 3] = ["hidden", "regroup", "descendants"];

/// Returns whether both processes may be killed at the same time while a command with these arguments runs.
pub fn may_kill_both(arguments: &[String]) -> bool {
    !arguments.iter().any(|argument| LEAVE_PROCESS_GROUP.contains(&argument.as_str()))
}

/// Returns whether a candidate that has seen only the edited record cannot know how long the holder's command may be
/// alive.
pub fn hides_holder(edit: Edit) -> bool {
    match edit {
        Edit::Delete | Edit::Recreate | Edit::ClearHolder | Edit::ClearAll => true,
        Edit::ReleaseLikeClientGo | Edit::Shorten | Edit::Garbage => true,
        Edit::RemoveMark | Edit::Backdate => true,
        Edit::GiveToNobody | Edit::GiveToStandby | Edit::Label | Edit::Lengthen => false,
    }
}

/// Returns whether every candidate that may still claim the slot of `holder` has observed that `holder` holds it. A
/// candidate that has already led, or whose elector has ended, claims no more slots.
pub fn all_have_observed<'a>(mut candidates: impl Iterator<Item = &'a mut TorturedCandidate>, holder: &str) -> bool {
    candidates.all(|candidate| {
        let has_led = candidate.identity == holder || candidate.has_led();
        has_led || !candidate.elector_is_running() || candidate.has_observed(holder)
    })
}

/// Returns the instant before which no candidate may start after an edit that hides the holder.
pub fn no_start_before(now: Instant, lease_duration: Duration) -> Instant {
    const MARGIN: Duration = Duration::from_millis(500);
    now + lease_duration + MARGIN
}
