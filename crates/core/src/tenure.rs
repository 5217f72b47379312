//! The time that one successful renewal buys.

use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::instant::Instant;
use crate::timing::Timing;

/// How long after the kill instant the elector waits for the supervisor's report that the command is gone, before it
/// kills the supervisor and the command itself. Part of [`MIN_KILL_MARGIN`](crate::timing::MIN_KILL_MARGIN).
const SUPERVISOR_KILL_TIMEOUT: Duration = Duration::from_millis(50);

/// The time that one successful renewal buys: until when the command may run, and when it is killed at the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tenure {
    /// T0, just before the renewal's request was sent: the record cannot be older than this.
    pub renewal_sent_at: Instant,
    /// The command gets the stop signal.
    pub stop: Instant,
    /// Every descendant gets SIGKILL, until none is left.
    pub kill: Instant,
}

impl Tenure {
    /// Returns what a renewal buys that was sent at this instant.
    pub fn of_renewal(renewal_sent_at: Instant, timing: &Timing) -> Self {
        let stop = renewal_sent_at + timing.renew_deadline();
        Self { renewal_sent_at, stop, kill: stop + timing.lost_grace() }
    }

    /// Returns a tenure that is over: another candidate is known to hold the lock.
    pub fn over(now: Instant) -> Self {
        Self { renewal_sent_at: now, stop: now, kill: now }
    }

    /// Returns when the elector no longer waits for the supervisor to kill the command.
    pub fn last_resort(&self) -> Instant {
        self.kill + SUPERVISOR_KILL_TIMEOUT
    }
}
