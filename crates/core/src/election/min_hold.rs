//! The minimum hold (`--min-hold`): after the command has succeeded, no candidate runs it again until this much time
//! has passed since the lock was acquired.
//!
//! When the lock is released, the wall-clock time at which the hold ends is written to the record. The command is dead
//! before the release, so a wrong clock can shift when the command runs next, but cannot make two commands overlap.
//!
//! If the stored time is further in the future than the length of the hold, a clock is wrong, but it is unknown which
//! one. A candidate that waits for the lock then measures the hold on its own boot clock, from when it last saw the
//! record change. A candidate whose [`ElectionConfig::wait`](super::ElectionConfig::wait) is zero cannot measure the
//! hold, so it gives up even if the stored time is implausibly far in the future: its own clock may be behind, and the
//! command may have succeeded a moment ago.

use core::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::protocol::Now;
use crate::instant::Instant;
use crate::record::Record;

/// Returns the earliest time at which the command may run again; `None` without a minimum hold. If the command has
/// succeeded, the release stores this time in the record.
pub(super) fn not_before(held: &Record, min_hold: Option<Duration>) -> Option<Timestamp> {
    let min_hold = SignedDuration::try_from(min_hold?).unwrap_or(SignedDuration::MAX);
    // A hold that would end after the last representable time (in the year 9999) never ends.
    Some(held.acquire_time?.checked_add(min_hold).unwrap_or(Timestamp::MAX))
}

/// Returns the earliest instant at which the minimum hold in `record` allows the lock to be acquired. `changed` is when
/// the record last changed. Returns `None` if the record has no valid `not_before` time, or if that time has passed.
pub(super) fn earliest_acquisition(record: &Record, now: Now, changed: Instant) -> Option<Instant> {
    let not_before = record.valid_not_before()?;
    let remaining = Duration::try_from(not_before.duration_since(now.wall)).ok()?;
    // Even with a wrong wall clock, an acquisition must not be delayed beyond the minimum hold, counted from the last
    // change.
    let latest = record.min_hold().map(|hold| changed + hold);
    Some((now.boot + remaining).min(latest.unwrap_or(now.boot + remaining)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minimum_hold_beyond_the_last_representable_time_never_ends() {
        let held = Record { acquire_time: Some(Timestamp::UNIX_EPOCH), ..Record::default() };
        for hold in [Duration::from_secs(10_000 * 366 * 86_400), Duration::MAX] {
            assert_eq!(not_before(&held, Some(hold)), Some(Timestamp::MAX), "{hold:?}");
        }
        assert_eq!(not_before(&held, None), None);
    }
}
