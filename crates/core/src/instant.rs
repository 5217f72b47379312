//! Instants on the one clock that deadlines are kept on.

use core::ops::{Add, Sub};
use core::time::Duration;

use serde::{Deserialize, Serialize};

/// An instant on the boot clock of this machine, with nanoseconds.
///
/// Two processes of one machine can compare theirs. Instants of two machines mean nothing to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Instant(Duration);

impl Instant {
    /// Returns the instant `elapsed` after boot.
    pub const fn after_boot(elapsed: Duration) -> Self {
        Self(elapsed)
    }

    /// Returns the time since boot.
    pub const fn since_boot(self) -> Duration {
        self.0
    }

    /// Returns the nanoseconds since boot, for where an instant is stored as a number.
    pub fn as_nanos(self) -> u64 {
        u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Returns the instant whose [`as_nanos`](Self::as_nanos) is this number.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(Duration::from_nanos(nanos))
    }

    /// Returns how long after `earlier` this is; zero when it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(duration))
    }
}
