//! How long a command may live on the strength of one renewal.

use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::instant::Instant;
use crate::timing::Timing;

/// How long after the kill instant the elector waits for the supervisor's word that the tree is gone,
/// before it kills the supervisor and the tree itself. Part of the time that
/// [`MIN_KILL_MARGIN`](crate::timing::MIN_KILL_MARGIN) keeps free.
const SUPERVISOR_KILL_TIMEOUT: Duration = Duration::from_millis(50);

/// The time that one successful renewal buys: until when the command may run untouched, and when it is
/// killed at the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tenure {
    /// T0, just before the renewal's request was sent: the record cannot be older than this.
    pub renewed: Instant,
    /// The command gets the stop signal.
    pub stop: Instant,
    /// Every descendant gets SIGKILL, until none is left.
    pub kill: Instant,
}

impl Tenure {
    /// What a renewal sent at `renewed` buys.
    pub fn of_renewal(renewed: Instant, timing: &Timing) -> Self {
        let stop = renewed + timing.renew_deadline();
        Self { renewed, stop, kill: stop + timing.lost_grace() }
    }

    /// A tenure that is over: somebody else is known to hold the lease.
    pub fn over(now: Instant) -> Self {
        Self { renewed: now, stop: now, kill: now }
    }

    /// When the elector no longer waits for the supervisor to kill the tree.
    pub fn last_resort(&self) -> Instant {
        self.kill + SUPERVISOR_KILL_TIMEOUT
    }
}
