//! True time, which nobody in the simulation can read, and the clocks of the machines, which they can.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use leaderrun_core::election::Now;
use leaderrun_core::instant::Instant;

/// Nanoseconds since a schedule began.
pub type Time = u64;

pub const MILLISECOND: Time = 1_000_000;
pub const SECOND: Time = 1_000 * MILLISECOND;

/// A rate of one, in parts per million.
pub const TRUE_RATE: u64 = 1_000_000;

/// What a wall clock reads that is right when a schedule begins.
const BEGINNING: Timestamp = Timestamp::constant(1_700_000_000, 0);

/// What a wall clock reads that is right.
pub fn wall(at: Time) -> Timestamp {
    BEGINNING + SignedDuration::from_nanos(at as i64)
}

/// The clocks of one machine: a boot clock that runs at its own rate, and a wall clock that may read
/// anything and jump.
#[derive(Clone, Debug)]
pub struct Clock {
    pub rate: u64,
    pub booted: Time,
    pub wall: SignedDuration,
}

impl Clock {
    pub fn now(&self, at: Time) -> Now {
        Now { boot: self.boot(at), wall: wall(at) + self.wall }
    }

    pub fn boot(&self, at: Time) -> Instant {
        Instant::after_boot(Duration::from_nanos(self.booted + self.elapsed(at)))
    }

    /// The first instant of true time at which this clock reads `instant`.
    pub fn time_of(&self, instant: Instant) -> Time {
        let since_start = instant.since(Instant::after_boot(Duration::from_nanos(self.booted)));
        self.true_time(since_start)
    }

    /// How much true time passes while this clock counts `duration`.
    pub fn true_time(&self, duration: Duration) -> Time {
        (duration.as_nanos() * u128::from(TRUE_RATE)).div_ceil(u128::from(self.rate)) as Time
    }

    fn elapsed(&self, at: Time) -> Time {
        (u128::from(at) * u128::from(self.rate) / u128::from(TRUE_RATE)) as Time
    }
}
