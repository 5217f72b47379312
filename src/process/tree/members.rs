//! Finds all descendants, however deep, by one scan of /proc or by walking the lists of children.

use std::mem;
use std::time::Duration;

use leaderrun_core::instant::Instant;
use nix::errno::Errno;
use nix::unistd::Pid;

use super::proc::{Identity, Listed, PidInfo, Proc, Stat};
use crate::process::clock;

/// The maximum number of processes whose children one scan can recognize. During a kill, the next scan finds further
/// processes, because those that the first scan found have been killed and their children have become children of this
/// process.
pub const CAPACITY: usize = 8192;

/// The longest duration of one [`scan`](Members::scan).
const MAX_SCAN_TIME: Duration = Duration::from_millis(100);

/// The maximum number of threads whose children a walk lists. With more threads, a scan is faster.
pub const MAX_WALKED_THREADS: u32 = 32;

/// The maximum number of processes that a walk has found but not yet read. Dead processes count, too.
const MAX_UNREAD: usize = 128;

/// The processes that were added, and those of their descendants that a scan or a walk has found.
#[derive(Debug)]
pub struct Members {
    /// The numbers of the processes in /proc, in ascending order.
    numbers: Vec<i32>,
    /// The processes that a walk has to read, and whether they were [added](Self::add) before it.
    unread: Vec<(i32, bool)>,
}

/// A process that a scan or a walk found.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    pub identity: Identity,
    pub stat: Stat,
    /// The pid in the PID namespace of this process.
    pub pid: Pid,
    /// Whether the process is in a PID namespace below that of this process.
    pub is_nested: bool,
    /// Whether the process was [added](Members::add) beforehand.
    pub is_added: bool,
}

impl Members {
    /// Allocates the memory for all scans and walks.
    pub fn new() -> Self {
        Self { numbers: Vec::with_capacity(CAPACITY), unread: Vec::with_capacity(MAX_UNREAD) }
    }

    pub fn clear(&mut self) {
        self.numbers.clear();
    }

    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// Adds a process whose descendants a scan or a walk is to find, if the list is not full.
    pub fn add(&mut self, number: i32) {
        if self.numbers.len() < CAPACITY
            && let Err(index) = self.numbers.binary_search(&number)
        {
            self.numbers.insert(index, number);
        }
    }

    /// Returns the numbers of the processes that were added or found so far, in ascending order.
    pub fn numbers(&self) -> &[i32] {
        &self.numbers
    }

    /// Finds the same processes as [`scan_until`](Self::scan_until), but reads only these and not all processes of the
    /// machine, which is much faster if there are few of them. Returns false if there are too many threads or children,
    /// or if a thread has ended during the walk. The caller must then scan, although `visit` has already been called
    /// with some of the processes.
    pub fn walk(&mut self, proc: &Proc, visit: impl FnMut(Member)) -> bool {
        if self.numbers.len() > MAX_UNREAD {
            return false;
        }
        // The memory is kept, because a walk before the stop signal must not wait for memory.
        let mut unread = mem::take(&mut self.unread);
        unread.clear();
        unread.extend(self.numbers.iter().map(|number| (*number, true)));
        let is_complete = self.walk_from(&mut unread, proc, visit);
        self.unread = unread;
        is_complete
    }

    fn walk_from(&mut self, unread: &mut Vec<(i32, bool)>, proc: &Proc, mut visit: impl FnMut(Member)) -> bool {
        let mut walked_threads = 0;
        while let Some((number, is_added)) = unread.pop() {
            let stat = match proc.stat(number) {
                Ok(stat) if !stat.is_dead() => stat,
                Err(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM) => return false,
                _ => continue,
            };
            // By now, the number may belong to another process, or the process may have been found in another list.
            let is_known = |number: i32| self.numbers.binary_search(&number).is_ok();
            if !is_added && (is_known(number) || !is_known(stat.parent)) {
                continue;
            }
            let Some(PidInfo { pid, is_nested }) = proc.pid_info(number) else { continue };
            self.add(number);
            let identity = Identity { number, started: stat.started };
            visit(Member { identity, stat, pid, is_nested, is_added });
            let mut is_complete = true;
            let mut list_children = |thread| {
                walked_threads += 1;
                let mut has_room = true;
                let listing = proc.for_each_child_of(number, thread, |child| {
                    has_room = unread.len() < MAX_UNREAD;
                    if has_room {
                        unread.push((child, false));
                    }
                });
                // The children of a thread that has ended belong to another thread, which may have been listed before.
                is_complete = listing.is_ok() && has_room && walked_threads <= MAX_WALKED_THREADS;
                is_complete
            };
            let listing = if stat.threads == 1 {
                list_children(number);
                Ok(())
            } else {
                proc.for_each_thread(number, list_children)
            };
            // A process that has ended meanwhile has no children.
            let is_listed = matches!(listing, Ok(()) | Err(Errno::ENOENT | Errno::ESRCH));
            if !is_complete || !is_listed {
                return false;
            }
        }
        true
    }

    /// Reads every process once, in ascending order of the numbers, and calls `visit` with the processes that were
    /// [added](Self::add) and with their descendants. Dead processes are skipped: they have no children.
    ///
    /// A parent almost always has a lower number than its child. A scan misses a child with a lower number, unless the
    /// parent was added. During a kill, a later scan finds that child when its parent is dead.
    ///
    /// A process that started after the scan began is left for the next scan. A number in the list may have been reused
    /// by another process in the meantime, but the children of that process are then younger than the scan and are not
    /// mistaken for descendants.
    ///
    /// The scan takes at most [`MAX_SCAN_TIME`], because it might otherwise never end if processes are forked faster
    /// than they are read. Returns whether the scan has read every process.
    pub fn scan(&mut self, proc: &Proc, visit: impl FnMut(Member)) -> bool {
        self.scan_until(proc, clock::now() + MAX_SCAN_TIME, visit)
    }

    /// Like [`scan`](Self::scan), but ends at `until` instead of after [`MAX_SCAN_TIME`].
    pub fn scan_until(&mut self, proc: &Proc, until: Instant, mut visit: impl FnMut(Member)) -> bool {
        let start_ticks = proc.ticks(clock::now());
        let mut is_complete = true;
        let listing = proc.for_each_process(|Listed { number, .. }| {
            let is_added = self.numbers.binary_search(&number).is_ok();
            is_complete = clock::now() < until;
            let Some(stat) = proc.stat(number).ok().filter(|stat| !stat.is_dead()) else { return is_complete };
            let is_child = stat.started < start_ticks && self.numbers.binary_search(&stat.parent).is_ok();
            if (is_added || is_child)
                && let Some(PidInfo { pid, is_nested }) = proc.pid_info(number)
            {
                self.add(number);
                let identity = Identity { number, started: stat.started };
                visit(Member { identity, stat, pid, is_nested, is_added });
            }
            is_complete
        });
        is_complete && listing.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};
    use std::sync::Barrier;
    use std::thread;

    use nix::sys::signal::{Signal, killpg};
    use nix::unistd::getpid;
    use testkit::eventually;

    use super::*;

    #[test]
    fn a_walk_finds_the_processes_that_a_scan_finds() {
        let proc = Proc::open().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 1000 & (sleep 1000 & sleep 1000 & wait) & wait"]).process_group(0);
        let mut shell = command.stdout(Stdio::null()).spawn().unwrap();
        let number = i32::try_from(shell.id()).unwrap();
        let scanned = RefCell::new(Members::new());
        eventually("all processes have started", || {
            let mut scanned = scanned.borrow_mut();
            scanned.clear();
            scanned.add(number);
            scanned.scan(&proc, |_| {}) && scanned.numbers().len() == 5
        });
        let (scanned, mut walked) = (scanned.into_inner(), Members::new());
        walked.add(number);
        let mut visited = Vec::new();
        assert!(walked.walk(&proc, |member| visited.push((member.pid, member.stat.threads, member.is_added))));
        killpg(Pid::from_raw(number), Signal::SIGKILL).unwrap();
        shell.wait().unwrap();
        visited.sort_unstable();
        let expected = scanned.numbers().iter().map(|found| (Pid::from_raw(*found), 1, *found == number));
        assert_eq!(visited, expected.collect::<Vec<_>>());
        assert_eq!(walked.numbers(), scanned.numbers());
    }

    #[test]
    fn a_walk_gives_up_without_allocating_if_there_are_many_dead_children() {
        let proc = Proc::open().unwrap();
        let script = format!("for i in $(seq {}); do true & done; exec sleep 1000", MAX_UNREAD + 1);
        let mut sleep = Command::new("sh").args(["-c", &script]).stdout(Stdio::null()).spawn().unwrap();
        let number = i32::try_from(sleep.id()).unwrap();
        let children = || {
            let mut count = 0;
            let _ = proc.for_each_child_of(number, number, |_| count += 1);
            count
        };
        eventually("all children have been started", || children() == MAX_UNREAD + 1);
        let mut members = Members::new();
        members.add(number);
        let is_complete = members.walk(&proc, |_| {});
        sleep.kill().unwrap();
        sleep.wait().unwrap();
        assert!(!is_complete);
        assert_eq!(members.unread.capacity(), MAX_UNREAD);
    }

    #[test]
    fn a_walk_gives_up_if_there_are_many_threads() {
        let (proc, ends) = (Proc::open().unwrap(), Barrier::new(MAX_WALKED_THREADS as usize + 1));
        let mut members = Members::new();
        members.add(getpid().as_raw());
        thread::scope(|scope| {
            (0..MAX_WALKED_THREADS).for_each(|_| drop(scope.spawn(|| ends.wait())));
            let is_complete = members.walk(&proc, |_| {});
            ends.wait();
            assert!(!is_complete);
        });
    }
}
