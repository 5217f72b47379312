//! The timers of an election, in one table.

use crate::instant::Instant;

/// A timer. The comment on each variant states what happens when the timer expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Timer {
    /// The pending request times out.
    RequestTimeout,
    /// The next request may be sent. While this timer is stopped, requests may be sent at any time.
    Send,
    /// The record is read, because no watch reports its changes.
    Poll,
    /// The watch is opened again.
    ReopenWatch,
    /// The candidate reports that its watch, which has been open for a lease duration, works again.
    WatchSettled,
    /// The record is read, because the open watch has been silent for too long.
    SilentWatch,
    /// The release of the lock times out.
    Release,
}

impl Timer {
    const COUNT: usize = 7;
}

/// The deadlines of the timers that are set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Timers([Option<Instant>; Timer::COUNT]);

impl Timers {
    /// Sets a timer, replacing its previous deadline.
    pub(super) fn set(&mut self, timer: Timer, at: Instant) {
        self.0[timer as usize] = Some(at);
    }

    /// Stops a timer.
    pub(super) fn stop(&mut self, timer: Timer) {
        self.0[timer as usize] = None;
    }

    /// Returns the deadline of a timer, if it is set.
    pub(super) fn get(&self, timer: Timer) -> Option<Instant> {
        self.0[timer as usize]
    }

    /// Returns whether a timer is set and its deadline has passed.
    pub(super) fn has_expired(&self, timer: Timer, now: Instant) -> bool {
        self.get(timer).is_some_and(|at| now >= at)
    }
}
