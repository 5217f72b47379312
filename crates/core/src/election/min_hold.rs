//! The minimum hold (`--min-hold`): after the command has succeeded, no candidate runs it again until this much time
//! has passed since the lock was acquired.
//!
//! The release writes the wall-clock time at which the hold ends to the record. No command is alive at the release, so
//! a wrong clock can shift when the command runs next, but two commands cannot overlap.
//!
//! A stored time that is further in the future than the hold shows that a clock is wrong, but not which one. A
//! candidate that waits measures the hold on its own boot clock, from when it last saw the record change. A candidate
//! that does not wait gives up, however far in the future the time is: if its own clock is behind, the command may have
//! succeeded only just now.

use core::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::protocol::Now;
use crate::instant::Instant;
use crate::record::Record;

/// Returns the earliest time at which the command may run again; `None` without a minimum hold. The release writes it
/// to the record after the command has succeeded.
pub(super) fn not_before(held: &Record, min_hold: Option<Duration>) -> Option<Timestamp> {
    let min_hold = SignedDuration::try_from(min_hold?).unwrap_or(SignedDuration::MAX);
    // A minimum hold of ten thousand years means that the command never runs again.
    Some(held.acquire_time?.checked_add(min_hold).unwrap_or(Timestamp::MAX))
}

/// Returns the instant before which a candidate must not acquire the lock with this record, which last changed at
/// `changed`. Returns `None` if the record sets no such time, or if the time has passed.
pub(super) fn earliest_acquisition(record: &Record, now: Now, changed: Instant) -> Option<Instant> {
    let not_before = record.valid_not_before()?;
    let remaining = Duration::try_from(not_before.duration_since(now.wall)).ok()?;
    // A wrong wall clock must not delay an acquisition by more than the minimum hold after the last change.
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
