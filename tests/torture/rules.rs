//! Which faults may come together.
//!
//! leaderrun promises to hold through any *one* fault. Here they come in heaps, so this is what may be
//! heaped, and why a candidate must still hold:
//!
//! - **One of leaderrun's two processes, never both.** In the life of one leaderrun either its elector
//!   or its supervisor is killed or frozen, as often as the plan likes; the other one is not touched.
//!   Each kills the tree without the other. With both frozen, nobody is left to do it: not covered.
//!   Other candidates are other machines; theirs may be struck at the same time.
//! - **Network, API server, clogged pipes: any time, on top of everything.** A request that is lost,
//!   late, refused or answered wrongly can only keep a tenure from being *extended*, and what kills
//!   the tree at its end needs no request. A write that arrives late is a compare-and-swap.
//! - **Signals, to leaderrun and to the command: any time.** Nothing counts on the command.
//! - **Giving the lease away, labelling it, making it last longer: any time.** Whoever comes to such a
//!   record waits for its duration, and the holder's tree is dead before that: its last renewal is
//!   older than the edit.
//! - **Deleting, emptying, shortening, making leaderrun's mark invalid: only where every living
//!   candidate has seen this holder hold it, and no other one comes before the lease's time is over.** A candidate knows that a run may be
//!   alive because it saw its record; one that comes new to a lease without that record cannot, nor
//!   can one that was cut off before this holder won. Not covered. Without its mark a record looks
//!   like another implementation's, which is released by emptying it: a candidate that came to it
//!   like that, and saw it emptied then, took it at once while an orphaned command had seconds left.
//!   Those who knew may be cut off, frozen or struck all the same, and so may the holder.

use std::time::{Duration, Instant};

use crate::entrant::Entrant;
use crate::plan::{Meddling, Own};

/// Whether this run's other process has been left alone so far.
pub fn may_strike(entrant: &Entrant, own: Own) -> bool {
    entrant.struck.is_none_or(|struck| struck == own)
}

/// Whether the edit takes away the knowledge that somebody holds the lease, or for how long.
pub fn takes_knowledge(deed: Meddling) -> bool {
    match deed {
        Meddling::Delete | Meddling::Replace | Meddling::Empty | Meddling::Wipe => true,
        Meddling::ReleaseForeign | Meddling::Shorten | Meddling::Garbage => true,
        Meddling::Unmark | Meddling::Backdate => true,
        Meddling::GiveAway | Meddling::GiveToOther | Meddling::Label | Meddling::Lengthen => false,
    }
}

/// Whether all candidates know that `holder` holds the lease: they said so, and it still does.
pub fn all_know<'a>(mut entrants: impl Iterator<Item = &'a mut Entrant>, holder: &str) -> bool {
    entrants.all(|entrant| entrant.identity == holder || !entrant.has_elector() || entrant.knows(holder))
}

/// Until when no candidate may start after such an edit.
pub fn closed_until(now: Instant, lease: Duration) -> Instant {
    now + lease + Duration::from_millis(500)
}
