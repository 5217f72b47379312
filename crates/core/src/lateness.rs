//! How late a thread runs after it should have been woken.

use core::time::Duration;

use crate::instant::Instant;

/// Delays that [`SUPERVISOR_KILL_TIMEOUT`](crate::tenure) and the margin for the kill allow for anyway.
const NEGLIGIBLE: Duration = Duration::from_millis(50);

/// A delay counts for one or two of these.
const WINDOW: Duration = Duration::from_secs(30);

/// Returns the time between two measurements of a thread's delay.
pub fn probe_interval(command_runs: bool) -> Duration {
    if command_runs { Duration::from_millis(500) } else { Duration::from_secs(5) }
}

/// The delays of a thread, as far as its deadlines have to allow for them.
///
/// A thread that was late twice within a minute will be again, as under a CPU limit. A single delay is what a suspend or
/// a SIGSTOP brings, and says nothing about the next one.
#[derive(Clone, Debug, Default, Hash)]
pub struct Lateness {
    window_began: Option<Instant>,
    present: Greatest,
    previous: Greatest,
}

/// The two greatest delays of a window.
#[derive(Clone, Copy, Debug, Default, Hash)]
struct Greatest {
    first: Duration,
    second: Duration,
}

impl Greatest {
    fn add(&mut self, delay: Duration) {
        if delay > self.first {
            (self.first, self.second) = (delay, self.first);
        } else {
            self.second = self.second.max(delay);
        }
    }
}

impl Lateness {
    /// Takes in that this thread ran so long after it was due.
    pub fn add(&mut self, now: Instant, delay: Duration) {
        let window_began = *self.window_began.get_or_insert(now);
        if now.since(window_began) >= WINDOW {
            (self.previous, self.present) = (self.present, Greatest::default());
            self.window_began = Some(now);
        }
        self.present.add(delay);
    }

    /// Returns by how much deadlines have to be brought forward.
    pub fn allowance(&self) -> Duration {
        let mut greatest = self.present;
        greatest.add(self.previous.first);
        greatest.add(self.previous.second);
        if greatest.second < NEGLIGIBLE { Duration::ZERO } else { greatest.second }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATE: Duration = Duration::from_millis(400);

    fn at(seconds: u64) -> Instant {
        Instant::after_boot(Duration::from_secs(seconds))
    }

    #[test]
    fn one_freeze_does_not_count() {
        let mut lateness = Lateness::default();
        lateness.add(at(0), Duration::from_secs(5));
        lateness.add(at(1), Duration::from_millis(1));
        assert_eq!(lateness.allowance(), Duration::ZERO);
    }

    #[test]
    fn what_happens_again_counts_until_it_is_long_ago() {
        let mut lateness = Lateness::default();
        lateness.add(at(0), Duration::from_secs(5));
        lateness.add(at(1), LATE);
        assert_eq!(lateness.allowance(), LATE);
        lateness.add(at(31), Duration::ZERO);
        assert_eq!(lateness.allowance(), LATE, "in the previous window");
        lateness.add(at(62), Duration::ZERO);
        assert_eq!(lateness.allowance(), Duration::ZERO);
    }

    #[test]
    fn delays_in_two_windows_count_together() {
        let mut lateness = Lateness::default();
        lateness.add(at(0), LATE);
        lateness.add(at(31), LATE);
        assert_eq!(lateness.allowance(), LATE);
    }
}
