//! How long a successful claim or renewal allows the command to run.

use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::instant::Instant;
use crate::timing::Timing;

/// How long after the kill instant the elector waits for the report that the command is gone. After that, the elector
/// kills both the supervisor and the command. This is part of [`MIN_KILL_MARGIN`](crate::timing::MIN_KILL_MARGIN).
const SUPERVISOR_KILL_TIMEOUT: Duration = Duration::from_millis(50);

/// How long a successful claim or renewal allows the command to run, and the instant at which the command is killed. A
/// claim counts as the first renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tenure {
    /// T0, the instant just before the renewal's request was sent. No other candidate can have seen the renewal
    /// earlier.
    pub renewal_sent_at: Instant,
    /// When the stop signal is sent to the command.
    pub stop: Instant,
    /// When SIGKILL is sent to every process of the command, repeatedly until none is left.
    pub kill: Instant,
}

impl Tenure {
    /// Returns the tenure of a renewal that was sent at `renewal_sent_at`.
    pub fn of_renewal(renewal_sent_at: Instant, timing: &Timing) -> Self {
        let stop = renewal_sent_at + timing.renew_deadline();
        Self { renewal_sent_at, stop, kill: stop + timing.lost_grace() }
    }

    /// Returns a tenure that is already over, for a lock that another candidate is known to hold.
    pub fn over(now: Instant) -> Self {
        Self { renewal_sent_at: now, stop: now, kill: now }
    }

    /// Returns this tenure with the stop and the kill brought forward by `advance`.
    #[must_use]
    pub fn earlier_by(self, advance: Duration) -> Self {
        Self { stop: self.stop - advance, kill: self.kill - advance, ..self }
    }

    /// Returns the instant at which the elector kills the supervisor and the command, unless the supervisor has
    /// reported by then that the command is gone.
    pub fn elector_kill_at(&self) -> Instant {
        self.kill + SUPERVISOR_KILL_TIMEOUT
    }
}
