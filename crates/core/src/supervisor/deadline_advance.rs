//! How far the stop and the kill are brought forward to allow for delays on this machine.

use core::mem;
use core::time::Duration;

use crate::instant::Instant;
use crate::lateness::Lateness;

/// How far the stop and the kill are brought forward, to allow for the delay until a kill begins and for the time that
/// the kill takes.
#[derive(Clone, Debug, Hash)]
pub(super) struct DeadlineAdvance {
    /// How late the scheduler wakes this supervisor.
    lateness: Lateness,
    /// How late the scheduler wakes the elector, which kills the command if this supervisor fails.
    elector_delay: Duration,
    /// How long the command's processes take to end after SIGKILL.
    kill_time: Duration,
    /// The longest time by which the stop and the kill may be brought forward while a command runs.
    pub(super) max: Duration,
}

impl DeadlineAdvance {
    pub(super) fn new() -> Self {
        Self {
            lateness: Lateness::default(),
            elector_delay: Duration::ZERO,
            kill_time: Duration::ZERO,
            max: Duration::MAX,
        }
    }

    /// Records that the supervisor was woken `delay` too late. Returns the delay that is expected from now on, if it
    /// has changed.
    pub(super) fn note_delay(&mut self, now: Instant, delay: Duration) -> Option<Duration> {
        self.lateness.add(now, delay)
    }

    pub(super) fn set_elector_delay(&mut self, delay: Duration) {
        self.elector_delay = delay;
    }

    /// Sets the kill time. Returns whether it has changed.
    pub(super) fn set_kill_time(&mut self, kill_time: Duration) -> bool {
        mem::replace(&mut self.kill_time, kill_time) != kill_time
    }

    /// Returns how far the stop and the kill are brought forward.
    pub(super) fn total(&self) -> Duration {
        self.lateness.allowance().max(self.elector_delay).saturating_add(self.kill_time)
    }

    /// Returns whether the [`total`](Self::total) is not more than `max`.
    pub(super) fn is_within_max(&self) -> bool {
        self.total() <= self.max
    }
}
