//! The time in the simulation and in the model: true time, which no candidate can read, and the clocks of the machines.
//!
//! A schedule is the sequence of events and faults in one run of the simulation, or in one interleaving of the model.
//! True time is zero when a schedule begins.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use leaderrun_core::election::Now;
use leaderrun_core::instant::Instant;

/// A point in true time, in nanoseconds since the schedule began, or an amount of true time, in nanoseconds.
pub type Time = u64;

pub const MILLISECOND: Time = 1_000_000;
pub const SECOND: Time = 1_000 * MILLISECOND;

/// The rate of a clock that keeps true time, in parts per million.
pub const TRUE_RATE: u64 = 1_000_000;

/// The correct wall-clock time when a schedule begins.
const BEGINNING: Timestamp = Timestamp::constant(1_700_000_000, 0);

/// Returns the correct wall-clock time at the given point in true time.
pub fn wall(at: Time) -> Timestamp {
    BEGINNING + SignedDuration::from_nanos(at as i64)
}

/// The clocks of one machine: a boot clock that runs at its own rate, and a wall clock that may be wrong and may jump.
#[derive(Clone, Debug)]
pub struct Clock {
    /// The rate of the boot clock, in parts per million of true time.
    pub rate: u64,
    /// The reading of the boot clock when the schedule begins, in nanoseconds.
    pub initial_boot_time: u64,
    /// The difference between the wall clock and the correct wall-clock time.
    pub wall_offset: SignedDuration,
}

impl Clock {
    /// Returns what both clocks read at the given point in true time.
    pub fn now(&self, at: Time) -> Now {
        Now { boot: self.boot_time(at), wall: wall(at) + self.wall_offset }
    }

    /// Returns what the boot clock reads at the given point in true time.
    pub fn boot_time(&self, at: Time) -> Instant {
        Instant::after_boot(Duration::from_nanos(self.initial_boot_time + self.elapsed(at)))
    }

    /// Returns the first point in true time at which the boot clock has reached `instant`.
    pub fn time_of(&self, instant: Instant) -> Time {
        let since_start = instant.since(Instant::after_boot(Duration::from_nanos(self.initial_boot_time)));
        self.true_time(since_start)
    }

    /// Returns how much true time passes while the boot clock advances by `duration`.
    pub fn true_time(&self, duration: Duration) -> Time {
        (duration.as_nanos() * u128::from(TRUE_RATE)).div_ceil(u128::from(self.rate)) as Time
    }

    /// Returns how far the boot clock has advanced since the schedule began, in nanoseconds.
    fn elapsed(&self, at: Time) -> u64 {
        (u128::from(at) * u128::from(self.rate) / u128::from(TRUE_RATE)) as u64
    }
}
