//! Estimates from a sample how many threads are running or waiting for a CPU.

use super::proc::Proc;

/// The maximum number of threads from which a sample is taken.
const MAX_LISTED: usize = 4096;

/// The number of runnable threads after which the sample ends. Many runnable threads may mean that the command has
/// exhausted a CPU limit that also applies to this process. Reading more of them would then delay this process even
/// more.
const ENOUGH_RUNNABLE: u32 = 16;

/// The maximum number of threads in the sample.
const MAX_SAMPLE: u32 = 256;

/// Returns an estimate of how many threads of these processes are runnable. `all_threads` is how many threads they had
/// when they were last counted.
pub fn estimate(proc: &Proc, processes: &[i32], all_threads: u32) -> u32 {
    let mut threads = Vec::new();
    for process in processes {
        let _ = proc.for_each_thread(*process, |thread| {
            threads.push(thread);
            threads.len() < MAX_LISTED
        });
        if threads.len() >= MAX_LISTED {
            break;
        }
    }
    let all_threads = all_threads.max(u32::try_from(threads.len()).unwrap_or(u32::MAX));
    let (mut read, mut runnable) = (0, 0);
    // The sample is random, because threads with neighboring IDs tend to behave alike, so the first ones listed would
    // not be representative.
    while !threads.is_empty() && runnable < ENOUGH_RUNNABLE && read < MAX_SAMPLE {
        let thread = threads.swap_remove(fastrand::usize(..threads.len()));
        if let Ok(stat) = proc.stat(thread) {
            read += 1;
            runnable += u32::from(stat.is_runnable());
        }
    }
    extrapolate(runnable, read, all_threads)
}

/// Returns how many of all threads are probably runnable if `runnable` of `read` threads are.
fn extrapolate(runnable: u32, read: u32, all_threads: u32) -> u32 {
    let estimate = u64::from(runnable) * u64::from(all_threads) / u64::from(read.max(1));
    u32::try_from(estimate).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::hint::spin_loop;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use nix::unistd::getpid;

    use super::*;

    #[test]
    fn a_sample_is_extrapolated_to_all_threads() {
        assert_eq!(extrapolate(16, 16, 200), 200);
        assert_eq!(extrapolate(2, 202, 202), 2);
        assert_eq!(extrapolate(0, 0, 0), 0);
    }

    /// Tolerates a few more runnable threads, because other tests may run in this process at the same time.
    #[test]
    fn busy_threads_count_as_runnable_and_sleeping_threads_do_not() {
        let (idle, busy) = (200, 2);
        let (stop, barrier) = (AtomicBool::new(false), Barrier::new(idle + 1));
        let proc = Proc::open().unwrap();
        thread::scope(|scope| {
            (0..idle).for_each(|_| drop(scope.spawn(|| barrier.wait())));
            (0..busy).for_each(|_| {
                drop(scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        spin_loop()
                    }
                }))
            });
            let estimates: Vec<u32> = (0..5).map(|_| estimate(&proc, &[getpid().as_raw()], 0)).collect();
            stop.store(true, Ordering::Relaxed);
            barrier.wait();
            assert!(estimates.iter().any(|estimate| (1..30).contains(estimate)), "{estimates:?}");
        });
    }
}
