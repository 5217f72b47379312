//! The rules for which faults may be combined.
//!
//! leaderrun's promise covers any *one* fault. The torture test combines faults under these rules, and for these
//! reasons the promise still holds:
//!
//! - **One of leaderrun's two processes.** While one leaderrun runs, either its elector or its supervisor is killed or
//!   frozen, any number of times; the other one is left alone. Each kills the tree without the other. Other candidates
//!   are other machines, and their processes may be killed or frozen at the same time.
//! - **Both of them: only to be killed, at once or after a freeze that ends before the lease does, and only where the
//!   command stays in its process group.** The kernel then kills that group. While both are
//!   frozen, no process is left to end the command: a longer freeze is not covered.
//! - **Network, API server, unread pipes: at any time.** A request that is lost, late, refused or answered wrongly can
//!   only keep a tenure from being *extended*, and the kill at its end needs no request. A write that arrives late is a
//!   compare-and-swap.
//! - **Signals, to leaderrun and to the command: at any time.** Nothing depends on the command.
//! - **Giving the lock to another holder, labelling the object, making the lease longer: at any time.** A candidate
//!   that comes to such a record waits for its duration, and the holder's tree is dead before that: its last renewal is
//!   older than the edit.
//! - **Deleting the record, clearing it, shortening it, making leaderrun's mark invalid: only where every living
//!   candidate has seen this holder hold the lock, and no other candidate starts before the lease would have expired.**
//!   A candidate knows that a run may be alive because it has observed the run's record. A new candidate, or one that
//!   was cut off before this holder acquired the lock, cannot know that: this is not covered. A record without its mark
//!   looks like another implementation's, which is released by clearing it: a candidate that observed such a record,
//!   and then saw it cleared, would acquire the lock at once while an orphaned command has seconds left. The candidates
//!   that know the holder, and the holder itself, may still be cut off, frozen or killed.

use std::time::{Duration, Instant};

use crate::candidate::{Faulty, TorturedCandidate};
use crate::plan::{Edit, OwnProcess};

/// Returns whether faults may be injected into this process: not after a fault of the other process, or of both together.
pub fn may_fail(candidate: &TorturedCandidate, own: OwnProcess) -> bool {
    candidate.faulty.is_none_or(|faulty| faulty == Faulty::One(own))
}

/// The longest time that both processes are frozen, shorter than the time between kill and takeover.
pub const LONGEST_FREEZE_OF_BOTH: Duration = Duration::from_millis(500);

/// The behaviours by which a process is out of the kernel's reach when both processes of leaderrun are dead.
pub const OUT_OF_REACH: [&str; 3] = ["hidden", "regroup", "descendants"];

/// Returns whether both processes may be killed at once while a command with these words runs.
pub fn may_lose_both(words: &[String]) -> bool {
    !words.iter().any(|word| OUT_OF_REACH.contains(&word.as_str()))
}

/// Returns whether the record after this edit hides how long the holder may be alive.
pub fn hides_holder(edit: Edit) -> bool {
    match edit {
        Edit::Delete | Edit::Recreate | Edit::ClearHolder | Edit::ClearAll => true,
        Edit::ReleaseLikeClientGo | Edit::Shorten | Edit::Garbage => true,
        Edit::RemoveMark | Edit::Backdate => true,
        Edit::GiveToNobody | Edit::GiveToStandby | Edit::Label | Edit::Lengthen => false,
    }
}

/// Returns whether all candidates have observed that `holder` holds the lock. One that leads in another slot is not a
/// candidate for this one.
pub fn all_know<'a>(mut candidates: impl Iterator<Item = &'a mut TorturedCandidate>, holder: &str) -> bool {
    candidates.all(|candidate| {
        let leads = candidate.identity == holder || candidate.has_led();
        leads || !candidate.has_elector() || candidate.has_observed(holder)
    })
}

/// Returns the instant before which no candidate may start after an edit that hides the holder.
pub fn closed_until(now: Instant, lease_duration: Duration) -> Instant {
    now + lease_duration + Duration::from_millis(500)
}
