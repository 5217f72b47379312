//! The search for all descendants, however deep, by one scan of /proc.

use std::time::Duration;

use leaderrun_core::instant::Instant;
use nix::unistd::Pid;

use super::proc::{Identity, Numbers, Proc, Stat};
use crate::process::clock;

/// The largest number of processes that one scan can find. The next scan finds the others, because in the meantime the
/// first ones have been killed and their children have become children of this process.
pub const CAPACITY: usize = 8192;

/// The longest duration of one scan.
const MAX_SCAN_TIME: Duration = Duration::from_millis(100);

/// The numbers of the processes that were found, in ascending order.
#[derive(Debug)]
pub struct Members(Vec<i32>);

/// A descendant, found by a scan.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    pub identity: Identity,
    pub stat: Stat,
    pub numbers: Numbers,
    /// Whether the process was [added](Members::add) before the scan.
    pub is_added: bool,
}

impl Member {
    /// Returns the number of the descendant in the PID namespace of this process.
    pub fn pid(&self) -> Pid {
        self.numbers.pid
    }
}

impl Members {
    /// Allocates the memory for all scans.
    pub fn new() -> Self {
        Self(Vec::with_capacity(CAPACITY))
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a process whose descendants a scan searches for, if the list is not full.
    pub fn add(&mut self, number: i32) {
        if self.0.len() < CAPACITY
            && let Err(index) = self.0.binary_search(&number)
        {
            self.0.insert(index, number);
        }
    }

    /// Returns the numbers found so far.
    pub fn numbers(&self) -> &[i32] {
        &self.0
    }

    /// Reads every process once, in ascending order of the numbers, and calls `visit` with the processes that were
    /// [added](Self::add) and with their descendants.
    ///
    /// A parent almost always has a lower number than its child. A child with a lower number is found by the next scan.
    ///
    /// A process that started after the scan began is left for the next scan. A number in the list may have been reused
    /// by another process in the meantime, but the children of that process are then younger than the scan and are not
    /// mistaken for descendants.
    ///
    /// The scan ends after [`MAX_SCAN_TIME`] at the latest: otherwise it might never end if processes are forked faster
    /// than they are read. Returns whether the scan has read every process.
    pub fn scan(&mut self, proc: &Proc, visit: impl FnMut(Member)) -> bool {
        self.scan_until(proc, clock::now() + MAX_SCAN_TIME, visit)
    }

    /// Does the same as [`scan`](Self::scan), but ends at `until`.
    pub fn scan_until(&mut self, proc: &Proc, until: Instant, mut visit: impl FnMut(Member)) -> bool {
        let start_ticks = proc.ticks(clock::now());
        let mut is_complete = true;
        proc.for_each_process(|number| {
            let is_added = self.0.binary_search(&number).is_ok();
            is_complete = clock::now() < until;
            let Ok(stat) = proc.stat(number) else { return is_complete };
            let is_child = stat.started < start_ticks && self.0.binary_search(&stat.parent).is_ok();
            if (is_added || is_child)
                && let Some(numbers) = proc.numbers(number)
            {
                self.add(number);
                visit(Member { identity: Identity { number, started: stat.started }, stat, numbers, is_added });
            }
            is_complete
        });
        is_complete
    }
}
