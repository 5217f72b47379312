//! The command's processes, which the supervisor reaps, terminates and kills.

use std::mem;
use std::time::Duration;

use leaderrun_core::instant::Instant;
use leaderrun_core::kill_time::{CpuLimit, KillPace, TaskCount, kill_time};
use leaderrun_core::lateness::worst_delay;
use leaderrun_core::tenure::Tenure;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::process::clock;
use crate::process::cpu_limit::CpuCgroups;
use crate::process::tree::{self, Ended, KillFailure, KillRounds, Reaped, Tree};

/// The shortest pause between two scans by [`scan_if_due`](CommandTree::scan_if_due).
const SCAN_INTERVAL: Duration = Duration::from_secs(1);

/// If the tree is not growing, the pause after a scan is this many times the CPU time of the scan, up to
/// [`MAX_SCAN_PAUSE`]. Such scans take at most a 2000th of a CPU.
const SCAN_PAUSE_FACTOR: u32 = 2000;

/// The upper limit of the pause, except after a scan of very many processes. It is low enough to keep the process count
/// current, because the estimate of how long a kill takes depends on it.
const MAX_SCAN_PAUSE: Duration = Duration::from_secs(5);

/// If the tree is not growing, the pause after a scan of very many processes is this many times the CPU time of the
/// scan, even if that is longer than [`MAX_SCAN_PAUSE`].
const MIN_SCAN_PAUSE_FACTOR: u32 = 100;

/// The time between two preparations of the search for escaped processes.
const PREPARATION_INTERVAL: Duration = Duration::from_secs(60);

/// The time between two checks of a tree that is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// All processes that the command has started.
#[derive(Debug)]
pub struct CommandTree {
    tree: Tree,
    kill: Option<KillRounds>,
    /// The pids of the left-over processes that SIGTERM was sent to, in ascending order. Processes that are orphaned
    /// later get SIGTERM too. `None` while left-over processes are not to be terminated.
    terminated: Option<Vec<Pid>>,
    /// Whether the tree must be polled, because no SIGCHLD announces the next change: only nested processes are left,
    /// or a search for escaped processes is under way, is blocked, or has to be started again.
    is_polled: bool,
    /// Whether the last call to [`reap`](Self::reap) may have left dead children.
    is_partly_reaped: bool,
    next_scan: Instant,
    next_preparation: Instant,
    cpu: CpuCgroups,
    limit: Option<CpuLimit>,
    /// The number of periods in which the CPU limit was used up, as of the last call to
    /// [`worst_delay`](Self::worst_delay).
    throttled_periods: Option<u64>,
    kill_time: Duration,
    kill_pace: Option<KillPace>,
}

impl CommandTree {
    /// Creates the tree of a command that has not been started.
    pub fn new(tree: Tree) -> Self {
        Self {
            tree,
            kill: None,
            terminated: None,
            is_polled: false,
            is_partly_reaped: false,
            next_scan: clock::now(),
            next_preparation: clock::now(),
            cpu: CpuCgroups::find(),
            limit: None,
            throttled_periods: None,
            kill_time: Duration::ZERO,
            kill_pace: None,
        }
    }

    /// Reaps dead children, and sends SIGTERM to the processes that have been orphaned since
    /// [`begin_terminating`](Self::begin_terminating). `main` is the pid of the command's main process, even if it has
    /// already been reaped; `None` before the command is started and after it has been reported gone.
    ///
    /// In the result, `none_left` states whether no process of the command is left, child or not. Children that cannot
    /// be reaped during a kill do not count, and a main process among them counts as killed.
    pub fn reap(&mut self, main: Option<Pid>) -> Reaped {
        let mut reaped = tree::reap(main, self.kill.is_some());
        self.is_partly_reaped = reaped.is_partial;
        if let Some(kill) = self.kill.as_mut().filter(|_| reaped.any_ended) {
            kill.handle_ended(clock::now());
        }
        let may_be_unreapable = !reaped.none_left && !reaped.is_partial;
        let kill = self.kill.as_mut().filter(|_| may_be_unreapable);
        if kill.is_some_and(|kill| kill.only_unreapable_left(&self.tree, clock::now())) {
            reaped.none_left = true;
            if main.is_some_and(|main| self.tree.children().contains(&main)) {
                reaped.main_ended = Some(Ended::Signaled(libc::SIGKILL));
            }
        }
        self.is_polled = main.is_some() && reaped.none_left && !self.tree.confirm_empty();
        reaped.none_left &= !self.is_polled;
        self.is_polled |= self.tree.check_search();
        if !reaped.none_left && self.terminated.is_some() {
            self.terminate_leftovers();
        }
        reaped
    }

    /// Returns whether dead children may be left to reap. No further SIGCHLD arrives for them.
    pub fn is_partly_reaped(&self) -> bool {
        self.is_partly_reaped
    }

    /// Returns whether so many processes are being killed that a SIGCHLD must not wake this process.
    pub fn handles_deaths_together(&self) -> bool {
        self.kill.as_ref().is_some_and(KillRounds::handles_deaths_together)
    }

    /// Returns the instant by which [`run_due_round`](Self::run_due_round) and [`reap`](Self::reap) must be called.
    pub fn next_timeout(&self) -> Option<Instant> {
        let next_round = self.kill.as_ref().map(KillRounds::next_round);
        let next_poll = self.is_polled.then(|| clock::now() + POLL_INTERVAL);
        next_round.into_iter().chain(next_poll).min()
    }

    /// Scans for processes in nested PID namespaces and remembers them, because they may get a parent outside of this
    /// tree when their own parent dies. Also estimates how long a kill takes. The scan ends early at `until`. Does
    /// nothing during a kill, which has its own scans.
    pub fn scan(&mut self, until: Option<Instant>) {
        if self.kill.is_some() {
            return;
        }
        let (started_at, previous_count) = (clock::cpu_time(), self.tree.count());
        self.tree.scan(until);
        let took = clock::cpu_time().saturating_sub(started_at);
        // A tree that grows is expected to grow further.
        let is_growing = self.tree.count().processes > previous_count.processes;
        self.next_scan = clock::now() + scan_pause(took, is_growing);
        self.limit = self.cpu.read_limit();
        self.estimate_kill_time();
    }

    /// Prepares the search for escaped processes, so that it does not delay the release of the lock. Does nothing
    /// during a kill, or if the preparation is not due. Ends early at `until`.
    pub fn prepare_search_if_due(&mut self, until: Option<Instant>) {
        let now = clock::now();
        if now >= self.next_preparation && self.kill.is_none() {
            self.tree.prepare_search(until);
            self.next_preparation = now + PREPARATION_INTERVAL;
        }
    }

    /// Calls [`scan`](Self::scan) if the last scan was long enough ago, and otherwise only counts the processes that it
    /// found, with their threads. Does nothing during a kill, which has its own scans.
    pub fn scan_if_due(&mut self, until: Option<Instant>) {
        if self.kill.is_some() {
            return;
        }
        if clock::now() >= self.next_scan {
            self.scan(until);
        } else {
            self.tree.recount();
            self.estimate_kill_time();
        }
    }

    fn estimate_kill_time(&mut self) {
        let (count, limit) = (self.tree.count(), self.limit);
        (self.kill_time, self.kill_pace) = (kill_time(count, limit), KillPace::of(count, limit));
    }

    /// Estimates how late a process without a real-time priority may be scheduled, from the number of runnable threads.
    /// Returns zero on the first call, and if the threads have not used up a CPU limit since the last call.
    pub fn worst_delay(&mut self) -> Duration {
        let throttled_periods = self.cpu.throttling().map(|throttling| throttling.throttled_periods);
        let previous = mem::replace(&mut self.throttled_periods, throttled_periods);
        let is_throttled = previous.is_some() && previous < throttled_periods;
        let limit = self.limit.filter(|_| is_throttled);
        limit.map_or(Duration::ZERO, |limit| worst_delay(self.tree.estimate_runnable(), limit))
    }

    /// Returns how long the processes that were counted last would take to end after a kill.
    pub fn kill_time(&self) -> Duration {
        self.kill_time
    }

    /// Returns the pace at which the processes would be killed; `None` if all of them would be killed at once.
    pub fn kill_pace(&self) -> Option<KillPace> {
        self.kill_pace
    }

    /// Returns how many processes and threads were counted last, by a scan or between scans.
    pub fn count(&self) -> TaskCount {
        self.tree.count()
    }

    /// Sends a signal to the process group that the main process leads. The main process must not have been reaped.
    ///
    /// # Errors
    /// Fails if the signal is not permitted, or returns `ESRCH` if there is no such group.
    pub fn signal_group(&self, main: Pid, signal: i32) -> nix::Result<()> {
        self.tree.signal_group(main, signal)
    }

    /// Returns the names and pids of some live children; `None` if there are none.
    pub fn names_of_live_children(&self) -> Option<String> {
        self.tree.names_of_live_children()
    }

    /// Sends a signal to every child: the processes that were orphaned when the main process ended, but not their
    /// descendants.
    pub fn signal_children(&self, signal: i32) {
        for child in self.tree.children() {
            // nix's `kill` does not support real-time signals.
            // SAFETY: the call takes two integers.
            unsafe { libc::kill(child.as_raw(), signal) };
        }
    }

    /// Sends SIGTERM, followed by SIGCONT, to every child and every remembered nested process, and makes
    /// [`reap`](Self::reap) do the same to each process that is orphaned from now on.
    pub fn begin_terminating(&mut self) {
        self.terminated = Some(Vec::new());
        self.terminate_leftovers();
    }

    fn terminate_leftovers(&mut self) {
        let Some(terminated) = &mut self.terminated else { return };
        for child in self.tree.children() {
            if let Err(index) = terminated.binary_search(&child) {
                terminated.insert(index, child);
                let _ = kill(child, Signal::SIGTERM);
                let _ = kill(child, Signal::SIGCONT);
            }
        }
        self.tree.terminate_nested();
    }

    /// Runs the first round of a kill of all processes, and schedules further rounds. `main` is the main process unless
    /// it has been reaped; `granted` is the tenure that was granted last.
    ///
    /// # Errors
    /// Returns why some process cannot be killed.
    pub fn begin_kill(&mut self, main: Option<Pid>, granted: Option<Tenure>) -> Result<(), KillFailure> {
        self.terminated = None;
        let now = clock::now();
        let pace = self.kill_pace.map(|pace| (pace, pace.end(now, granted))).filter(|(_, end)| now < *end);
        // Without a pace, one call kills the whole process group, whose number is not reused before the main process is
        // reaped. With nested PID namespaces the main process must not die first, because processes below it could get
        // a parent outside of this tree.
        if let Some(main) = main.filter(|_| !self.tree.has_nested() && pace.is_none()) {
            let _ = self.tree.signal_group(main, libc::SIGKILL);
        }
        self.kill.insert(KillRounds::begin(now, pace)).run_round(&mut self.tree, now)
    }

    /// Runs the next round of the kill if it is due.
    ///
    /// # Errors
    /// Returns why some process cannot be killed, unless an earlier round has already returned a failure.
    pub fn run_due_round(&mut self) -> Result<(), KillFailure> {
        let now = clock::now();
        let kill = self.kill.as_mut().filter(|kill| now >= kill.next_round());
        kill.map_or(Ok(()), |kill| kill.run_round(&mut self.tree, now))
    }

    /// Returns which process cannot be killed, and why, for messages.
    pub fn describe(&self, failure: KillFailure) -> String {
        self.tree.describe(failure)
    }

    /// Returns the names and pids of some of the processes that the last round of a kill found.
    pub fn names(&self) -> String {
        self.tree.names()
    }

    /// Prepares for the next command, when no process of the current command is left.
    pub fn reset(&mut self) {
        (self.kill, self.terminated, self.is_polled) = (None, None, false);
        (self.kill_time, self.kill_pace) = (Duration::ZERO, None);
        self.tree.reset();
    }
}

/// Returns the pause after a scan that took this CPU time. `is_growing` states whether the scan found more processes
/// than the previous scan.
fn scan_pause(took: Duration, is_growing: bool) -> Duration {
    let longest = MAX_SCAN_PAUSE.max(took * MIN_SCAN_PAUSE_FACTOR);
    if is_growing { SCAN_INTERVAL } else { SCAN_INTERVAL.max(longest.min(took * SCAN_PAUSE_FACTOR)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_after_a_scan_grows_with_the_cpu_time_of_the_scan() {
        let millis = Duration::from_millis;
        for (took, pause) in [(0, 1000), (1, 2000), (2, 4000), (12, 5000), (50, 5000), (100, 10_000)] {
            assert_eq!(scan_pause(millis(took), false), millis(pause), "{took} ms");
            assert_eq!(scan_pause(millis(took), true), SCAN_INTERVAL);
        }
    }
}
