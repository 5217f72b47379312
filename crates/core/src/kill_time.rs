//! Estimates how long killed processes take to end.
//!
//! A killed thread needs CPU time to exit. Under a CPU limit, the kernel also throttles every killed thread that has
//! not ended yet, once in each period of the limit. This takes CPU time from the same limit. With up to a few thousand
//! threads, the duration of the kill is proportional to their number. With more threads, throttling uses up the limit,
//! and the kill makes almost no progress. Therefore [`CpuLimit::max_killed_threads`] limits how many threads are killed
//! at once.
//!
//! The constants were measured on Linux 6.18 and rounded up. `docs/safety.md` has a table of kill times that were
//! measured on an idle machine. A busy machine took twice as long, so estimates are doubled.

use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::instant::Instant;
use crate::tenure::Tenure;

/// The CPU time that the end of a process takes, including its first thread.
const PROCESS_EXIT_COST: Duration = Duration::from_micros(100);

/// The CPU time that the end of each further thread takes.
const THREAD_EXIT_COST: Duration = Duration::from_micros(25);

/// The CPU time that the throttling of each killed thread takes in each period of a CPU limit, until the thread has
/// ended.
const THROTTLING_COST_PER_THREAD: Duration = Duration::from_nanos(1200);

/// The share of a CPU limit that the throttling of killed threads may take.
const THROTTLING_SHARE: f64 = 1.0 / 4.0;

/// The factor by which a kill takes longer on a busy machine, where the killed threads wait for a CPU and run with cold
/// caches. A kill of 14,000 threads under a CPU limit of 10 % takes 3.5 s on an idle machine. While twelve other
/// threads were runnable on two CPUs, it took 7 s.
const BUSY_MACHINE_FACTOR: u32 = 2;

/// A kill time that is shorter than this on an idle machine counts as zero, because
/// [`MIN_KILL_MARGIN`](crate::timing::MIN_KILL_MARGIN) covers it even on a busy machine.
const NEGLIGIBLE: Duration = Duration::from_millis(75);

/// How many processes and threads a command has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskCount {
    pub processes: u32,
    /// The number of threads, including the first one of each process.
    pub threads: u32,
    /// The number of threads of the process with the most threads.
    pub most_in_one_process: u32,
}

impl TaskCount {
    /// Counts a process with this number of threads.
    pub fn add(&mut self, threads: u32) {
        self.processes = self.processes.saturating_add(1);
        self.threads = self.threads.saturating_add(threads);
        self.most_in_one_process = self.most_in_one_process.max(threads);
    }
}

/// A CPU limit: a quota of CPU time in each period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuLimit {
    pub quota: Duration,
    pub period: Duration,
}

impl CpuLimit {
    /// Returns the limit as a number of CPUs.
    pub fn cpus(&self) -> f64 {
        self.quota.as_secs_f64() / self.period.as_secs_f64()
    }

    /// Returns how many threads can be killed at once if their throttling may take [`THROTTLING_SHARE`] of the limit. A
    /// single process with more threads is killed anyway.
    pub fn max_killed_threads(&self) -> u32 {
        let [quota, _] = self.on_one_cpu();
        (quota * THROTTLING_SHARE / THROTTLING_COST_PER_THREAD.as_secs_f64()) as u32
    }

    /// Returns how many threads end within this time after the kill has begun, on a busy machine, if each process has
    /// many threads, but fewer than [`max_killed_threads`](Self::max_killed_threads).
    pub fn threads_ended_within(&self, time: Duration) -> u32 {
        let [quota, period] = self.on_one_cpu();
        let usable_share = (1.0 - THROTTLING_SHARE) * quota / period;
        (time.as_secs_f64() * usable_share / (THREAD_EXIT_COST * BUSY_MACHINE_FACTOR).as_secs_f64()) as u32
    }

    /// Returns the quota, limited to one CPU, and the period, in seconds. Most threads of a process end one after the
    /// other, so a second CPU does not help.
    fn on_one_cpu(&self) -> [f64; 2] {
        [self.quota.min(self.period).as_secs_f64(), self.period.as_secs_f64()]
    }
}

/// Returns the time from the kill of these processes until all of them have ended, on a busy machine. Returns zero if
/// the time is negligible, and [`Duration::MAX`] if they would never end, because throttling them uses up the limit.
pub fn kill_time(tasks: TaskCount, limit: Option<CpuLimit>) -> Duration {
    let further_threads = tasks.threads.saturating_sub(tasks.processes);
    let work = PROCESS_EXIT_COST * tasks.processes + THREAD_EXIT_COST * further_threads;
    let time = match limit {
        None => work,
        Some(limit) => {
            let [quota, period] = limit.on_one_cpu();
            let killed_at_once = tasks.threads.min(tasks.most_in_one_process.max(limit.max_killed_threads()));
            let usable = quota - THROTTLING_COST_PER_THREAD.as_secs_f64() * f64::from(killed_at_once);
            if usable <= 0.0 {
                return Duration::MAX;
            }
            Duration::try_from_secs_f64(work.as_secs_f64() * period / usable).unwrap_or(Duration::MAX)
        }
    };
    if time < NEGLIGIBLE { Duration::ZERO } else { time.saturating_mul(BUSY_MACHINE_FACTOR) }
}

/// The pace of a gradual kill, which takes less time than a kill of all threads at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KillPace {
    /// No further process is killed while this many killed threads have not ended.
    pub max_killed_threads: u32,
    /// The longest time for which the pace is kept. After that, all processes are killed, because a killed process that
    /// does not end must not keep the others alive.
    pub duration: Duration,
}

impl KillPace {
    /// Returns the pace at which to kill these processes; `None` if all of them should be killed at once.
    pub fn of(tasks: TaskCount, limit: Option<CpuLimit>) -> Option<Self> {
        let (max_killed_threads, duration) = (limit?.max_killed_threads(), kill_time(tasks, limit));
        (tasks.threads > max_killed_threads && duration < Duration::MAX)
            .then_some(Self { max_killed_threads, duration })
    }

    /// Returns the instant at which a gradual kill that begins now gives up its pace and kills everything that is left.
    /// It is no later than the kill instant of `granted`, the tenure before it was brought forward: on a machine that
    /// is busier than the estimate assumes, processes not yet killed by then would run alongside the next leader's
    /// command.
    pub fn end(&self, now: Instant, granted: Option<Tenure>) -> Instant {
        let end = now + self.duration;
        granted.map_or(end, |granted| end.min(granted.kill))
    }
}

/// How many more threads may be killed before the threads that were already killed have ended.
///
/// A gradual kill proceeds in rounds. Each round lists the processes again and begins with a new allowance. The threads
/// of processes that were already killed but have not ended are deducted first.
#[derive(Clone, Copy, Debug)]
pub struct KillAllowance {
    max_killed_threads: u32,
    left: u32,
}

impl KillAllowance {
    /// Creates the allowance of a round in which no process has been counted yet.
    pub fn new(max_killed_threads: u32) -> Self {
        let max_killed_threads = max_killed_threads.max(1);
        Self { max_killed_threads, left: max_killed_threads }
    }

    /// Counts a process, and returns whether it may be killed in this round. `threads` returns the process's number of
    /// threads. Once this method has returned `false`, no other process may be killed in this round, and `threads` is
    /// no longer called. A process with more threads than a round allows is killed alone in a round.
    pub fn take(&mut self, threads: impl FnOnce() -> u32) -> bool {
        if self.left == 0 {
            return false;
        }
        let threads = threads();
        let is_allowed = threads <= self.left || self.left == self.max_killed_threads;
        self.left = if is_allowed { self.left.saturating_sub(threads) } else { 0 };
        is_allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the limit with this quota, in milliseconds of CPU time per 100 ms.
    fn limit(quota: u64) -> CpuLimit {
        CpuLimit { quota: Duration::from_millis(quota), period: Duration::from_millis(100) }
    }

    /// Returns the kill time, in seconds, of this many processes with this many threads in total. `quota` is in
    /// milliseconds of CPU time per 100 ms.
    fn kill_seconds(processes: u32, threads: u32, quota: Option<u64>) -> f64 {
        let mut tasks = TaskCount::default();
        (0..processes).for_each(|_| tasks.add(threads / processes));
        kill_time(tasks, quota.map(limit)).as_secs_f64()
    }

    #[test]
    fn the_kill_time_of_ordinary_commands_is_negligible() {
        for quota in [None, Some(10)] {
            assert_eq!(kill_seconds(1, 1, quota), 0.0);
            assert_eq!(kill_seconds(10, 200, quota), 0.0);
        }
    }

    /// `measured` is the duration of a kill in seconds, on an idle machine with Linux 6.18.
    #[test]
    fn no_estimated_kill_time_is_shorter_than_twice_the_one_measured_on_an_idle_machine() {
        for (processes, threads, quota, measured) in [
            (7, 14_000, None, 0.2),
            (2000, 2000, None, 0.17),
            (7, 14_000, Some(50), 0.26),
            (2000, 2000, Some(10), 2.2),
            (1, 4000, Some(10), 0.9),
            (1, 8000, Some(10), 2.8),
            (7, 14_000, Some(10), 3.5),
        ] {
            let estimate = kill_seconds(processes, threads, quota);
            assert!(estimate >= 2.0 * measured, "{processes} {threads} {quota:?}: {estimate} s");
        }
    }

    #[test]
    fn threads_ended_within_agrees_with_kill_time() {
        for quota in [5, 10, 50, 400] {
            let threads = limit(quota).threads_ended_within(Duration::from_secs(1));
            let estimate = kill_seconds(threads / 500, threads, Some(quota));
            assert!((0.9..1.2).contains(&estimate), "{quota}: {threads} threads in {estimate} s");
        }
    }

    #[test]
    fn a_round_kills_only_as_many_threads_as_allowed_or_a_single_larger_process() {
        for (max_killed_threads, threads, allowed) in [
            (2777, [2000, 2000, 500], [true, false, false]),
            (2777, [900, 1000, 800], [true, true, true]),
            (2777, [0, 5000, 1], [true, true, false]),
            (0, [1, 1, 1], [true, false, false]),
        ] {
            let mut allowance = KillAllowance::new(max_killed_threads);
            assert_eq!(threads.map(|threads| allowance.take(|| threads)), allowed, "{max_killed_threads} {threads:?}");
        }
    }

    #[test]
    fn a_gradual_kill_ends_no_later_than_the_kill_instant_of_the_granted_tenure() {
        let (now, duration) = (Instant::from_nanos(1_000_000_000), Duration::from_secs(3));
        let pace = KillPace { max_killed_threads: 10, duration };
        let granted = |remaining| Some(Tenure { kill: now + remaining, ..Tenure::over(now) });
        assert_eq!(pace.end(now, granted(Duration::from_secs(2))), now + Duration::from_secs(2));
        assert_eq!(pace.end(now, granted(Duration::from_secs(4))), now + duration);
        assert_eq!(pace.end(now, None), now + duration);
    }

    #[test]
    fn many_killed_processes_end_but_a_killed_process_with_too_many_threads_never_ends() {
        assert!((7.0..10.0).contains(&kill_seconds(7, 14_000, Some(10))));
        let mut single_process = TaskCount::default();
        single_process.add(14_000);
        assert_eq!(kill_time(single_process, Some(limit(10))), Duration::MAX);
        assert_eq!(KillPace::of(single_process, Some(limit(10))), None, "a gradual kill would not help");
    }
}
