//! The deadlines of an election, in one table.

use crate::instant::Instant;

/// What happens when a deadline passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Timer {
    /// The request under way is given up.
    GiveUp,
    /// The next request may be sent. Not set, it may be sent at any time.
    Send,
    /// The record is read, because no watch shows its changes.
    Poll,
    /// The watch is opened again.
    ReopenWatch,
    /// The watch has been open for long enough to be relied on again.
    WatchSettled,
    /// The open watch has been silent for so long that the record is read.
    SilentWatch,
    /// The attempt to release the lock ends.
    Release,
}

impl Timer {
    const COUNT: usize = 7;
}

/// The deadlines that are set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Timers([Option<Instant>; Timer::COUNT]);

impl Timers {
    /// Sets a timer, in place of the deadline it had.
    pub(super) fn set(&mut self, timer: Timer, at: Instant) {
        self.0[timer as usize] = Some(at);
    }

    /// Stops a timer.
    pub(super) fn stop(&mut self, timer: Timer) {
        self.0[timer as usize] = None;
    }

    /// Returns the deadline of a timer that is set.
    pub(super) fn get(&self, timer: Timer) -> Option<Instant> {
        self.0[timer as usize]
    }

    /// Returns whether a timer is set and its deadline has passed.
    pub(super) fn has_expired(&self, timer: Timer, now: Instant) -> bool {
        self.get(timer).is_some_and(|at| now >= at)
    }
}
