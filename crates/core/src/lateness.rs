//! Records how late the scheduler has woken a thread, and estimates how late it may wake the thread next time.

use core::time::Duration;

use crate::instant::Instant;
use crate::kill_time::CpuLimit;

/// Shorter delays are ignored. `SUPERVISOR_KILL_TIMEOUT` and [`MIN_KILL_MARGIN`](crate::timing::MIN_KILL_MARGIN) leave
/// time for them.
const NEGLIGIBLE: Duration = Duration::from_millis(50);

/// The length of a window. A delay counts during its window and the next one.
const WINDOW: Duration = Duration::from_secs(30);

/// How long a thread may keep the CPU while other threads wait. The scheduler's time slice is about 3 ms and ends at a
/// clock tick, which comes every 4 ms on many kernels; this leaves a margin.
const TIME_SLICE: Duration = Duration::from_millis(5);

/// Estimates how late a thread may be woken once the quota of a CPU limit is exhausted: every runnable thread may get a
/// time slice first. [`Lateness`] does not suffice here, because most delays are much shorter than the longest.
pub fn worst_delay(runnable_threads: u32, limit: CpuLimit) -> Duration {
    let seconds = TIME_SLICE.as_secs_f64() * f64::from(runnable_threads) / limit.cpus();
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

/// Returns the time between two measurements of a thread's delay.
pub fn probe_interval(command_runs: bool) -> Duration {
    if command_runs { Duration::from_millis(500) } else { Duration::from_secs(5) }
}

/// The recent delays of a thread, which determine the delay that its deadlines must allow for.
///
/// This delay is the second longest one in the current and the previous window of 30 seconds, taken together: a thread
/// that was late at least twice is expected to be late again, for example because of a CPU limit. A single delay does
/// not count, because a suspend or a SIGSTOP may have caused it.
#[derive(Clone, Debug, Default, Hash)]
pub struct Lateness {
    window_began: Option<Instant>,
    current: LongestDelays,
    previous: LongestDelays,
}

/// The two longest delays of a window.
#[derive(Clone, Copy, Debug, Default, Hash)]
struct LongestDelays {
    longest: Duration,
    second_longest: Duration,
}

impl LongestDelays {
    fn add(&mut self, delay: Duration) {
        if delay > self.longest {
            (self.longest, self.second_longest) = (delay, self.longest);
        } else {
            self.second_longest = self.second_longest.max(delay);
        }
    }
}

impl Lateness {
    /// Records that the thread was woken late by `delay`. Returns the new allowance if it has changed.
    pub fn add(&mut self, now: Instant, delay: Duration) -> Option<Duration> {
        let before = self.allowance();
        let window_began = *self.window_began.get_or_insert(now);
        if now.since(window_began) >= WINDOW {
            (self.previous, self.current) = (self.current, LongestDelays::default());
            self.window_began = Some(now);
        }
        self.current.add(delay);
        Some(self.allowance()).filter(|allowance| *allowance != before)
    }

    /// Returns the delay that the thread's deadlines must allow for.
    pub fn allowance(&self) -> Duration {
        let mut delays = self.current;
        delays.add(self.previous.longest);
        delays.add(self.previous.second_longest);
        if delays.second_longest < NEGLIGIBLE { Duration::ZERO } else { delays.second_longest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATE: Duration = Duration::from_millis(400);

    fn at(seconds: u64) -> Instant {
        Instant::after_boot(Duration::from_secs(seconds))
    }

    /// `measured` is the longest delay in seconds that was measured within a minute, on Linux 6.18.
    #[test]
    fn no_estimate_is_shorter_than_the_longest_measured_delay() {
        for (runnable_threads, percent, measured) in
            [(2, 5, 0.2), (16, 5, 0.8), (64, 5, 6.0), (200, 5, 18.8), (16, 20, 0.4), (64, 20, 1.4)]
        {
            let limit = CpuLimit { quota: Duration::from_millis(percent), period: Duration::from_millis(100) };
            let estimate = worst_delay(runnable_threads, limit).as_secs_f64();
            assert!(estimate >= measured, "{runnable_threads} threads, {percent} %: {estimate} s");
        }
    }

    #[test]
    fn a_single_delay_is_ignored() {
        let mut lateness = Lateness::default();
        lateness.add(at(0), Duration::from_secs(5));
        lateness.add(at(1), Duration::from_millis(1));
        assert_eq!(lateness.allowance(), Duration::ZERO);
    }

    #[test]
    fn a_repeated_delay_counts_until_two_windows_have_passed() {
        let mut lateness = Lateness::default();
        lateness.add(at(0), Duration::from_secs(5));
        lateness.add(at(1), LATE);
        assert_eq!(lateness.allowance(), LATE);
        lateness.add(at(31), Duration::ZERO);
        assert_eq!(lateness.allowance(), LATE, "delays in the previous window still count");
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
