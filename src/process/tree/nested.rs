//! Descendants in a PID namespace below that of this process. When their parent dies, they become children of the init
//! process of their namespace and not of this process, so they have to be remembered.

use std::time::Duration;

use leaderrun_core::instant::Instant;
use leaderrun_core::kill_time::TaskCount;
use nix::sys::signal::Signal;

use super::members::{self, MAX_WALKED_THREADS, Member, Members};
use super::proc::{Identity, PidInfo, Proc};
use super::shared_nested::SharedNested;
use crate::process::clock;

/// The maximum number of remembered processes.
const CAPACITY: usize = members::CAPACITY;

/// The longest duration of a scan for processes to remember. It is enough for tens of thousands of processes on the
/// machine. A scan that ends early does not find the processes with the highest numbers in /proc.
const MAX_SCAN_TIME: Duration = Duration::from_millis(500);

/// The maximum number of scans in which a kill stops the remembered processes and their descendants. After that, it
/// kills them even if one is still running. A scan takes tens of microseconds for each process on the machine.
const MAX_SCANS: usize = 20;

/// The longest time that a kill spends on stopping the remembered processes.
const MAX_STOP_TIME: Duration = Duration::from_secs(1);

/// The remembered processes.
#[derive(Debug)]
pub struct Nested {
    /// The processes, each after the one that it descends from.
    processes: Vec<Remembered>,
    /// The numbers of the processes in /proc, in ascending order.
    sorted_numbers: Vec<i32>,
    /// Where the processes are stored for the elector.
    shared: Option<SharedNested>,
}

#[derive(Clone, Copy, Debug)]
struct Remembered {
    identity: Identity,
    /// Whether SIGTERM was sent to the process.
    sigterm_sent: bool,
}

impl Nested {
    /// Allocates the memory for the processes.
    pub fn new() -> Self {
        Self { processes: Vec::with_capacity(CAPACITY), sorted_numbers: Vec::with_capacity(CAPACITY), shared: None }
    }

    /// Stores the processes in this memory from now on.
    pub fn store_in(&mut self, shared: SharedNested) {
        self.shared = Some(shared);
    }

    /// Remembers the processes that the supervisor has stored.
    pub fn adopt(&mut self, shared: &SharedNested) {
        shared.processes().for_each(|identity| self.add(identity));
    }

    /// Remembers a process, if there is room and it is not remembered already.
    fn add(&mut self, identity: Identity) {
        if self.processes.len() < CAPACITY
            && let Err(index) = self.sorted_numbers.binary_search(&identity.number)
        {
            self.sorted_numbers.insert(index, identity.number);
            self.processes.push(Remembered { identity, sigterm_sent: false });
            self.shared.iter().for_each(|shared| shared.push(identity));
        }
    }

    pub fn is_empty(&self) -> bool {
        self.processes.is_empty()
    }

    /// Returns the numbers of the remembered processes in /proc, in no particular order.
    pub fn numbers(&self) -> impl Iterator<Item = i32> {
        self.processes.iter().map(|remembered| remembered.identity.number)
    }

    pub fn contains(&self, number: i32) -> bool {
        self.sorted_numbers.binary_search(&number).is_ok()
    }

    /// Forgets the processes that are dead.
    pub fn forget_dead(&mut self, proc: &Proc) {
        let count = self.processes.len();
        self.processes.retain(|remembered| proc.is_alive(remembered.identity));
        if self.processes.len() == count {
            return;
        }
        if let Some(shared) = &self.shared {
            shared.store(self.processes.iter().map(|remembered| remembered.identity));
        }
        self.sorted_numbers.clear();
        self.sorted_numbers.extend(self.processes.iter().map(|remembered| remembered.identity.number));
        self.sorted_numbers.sort_unstable();
    }

    /// Remembers the descendants in namespaces below that of this process, including the descendants of those that were
    /// remembered before. A [walk](Members::walk) searches for them or, if it gives up, a scan, which ends early at
    /// `until`. Returns the number of all descendants, nested or not, and of their threads. If the scan is incomplete
    /// and finds no more threads than the `previous` count has, returns that count.
    pub fn remember_and_count(
        &mut self,
        proc: &Proc,
        members: &mut Members,
        until: Option<Instant>,
        previous: TaskCount,
    ) -> TaskCount {
        let mut count = TaskCount::default();
        if previous.threads <= MAX_WALKED_THREADS && self.walk(proc, members, |member| count.add(member.stat.threads)) {
            return count;
        }
        count = TaskCount::default();
        let is_complete = self.scan(proc, members, until, |member| count.add(member.stat.threads));
        if is_complete || count.threads > previous.threads { count } else { previous }
    }

    /// Sends SIGTERM, followed by SIGCONT, to the remembered processes that have not been sent them yet.
    pub fn terminate(&mut self, proc: &Proc) {
        for remembered in self.processes.iter_mut().filter(|remembered| !remembered.sigterm_sent) {
            remembered.sigterm_sent = true;
            for signal in [Signal::SIGTERM, Signal::SIGCONT] {
                let _ = send(proc, remembered.identity, signal);
            }
        }
    }

    /// Stops the remembered processes and those that descend from them, so that none can fork while others are being
    /// found. Then kills them, children before parents, so that none becomes an orphan. Calls `report` with each
    /// process and the result of its kill.
    pub fn kill(&mut self, proc: &Proc, members: &mut Members, report: &mut impl FnMut(i32, nix::Result<()>)) {
        let until = clock::now() + MAX_STOP_TIME;
        for _ in 0..MAX_SCANS {
            let mut all_stopped = true;
            let count = self.processes.len();
            self.scan(proc, members, Some(until), |member| {
                if member.is_nested && !member.stat.is_dead_or_stopped() {
                    all_stopped = false;
                    let _ = send(proc, member.identity, Signal::SIGSTOP);
                }
            });
            if all_stopped && self.processes.len() == count || clock::now() >= until {
                break;
            }
        }
        for Remembered { identity, .. } in self.processes.iter().rev() {
            report(identity.number, send(proc, *identity, Signal::SIGKILL));
        }
    }

    /// Resets `members` to the processes whose descendants are to be found: the children of this process, and the
    /// remembered processes that are alive.
    fn reset_members(&mut self, proc: &Proc, members: &mut Members) {
        self.forget_dead(proc);
        members.clear();
        let _ = proc.for_each_child(|number| members.add(number));
        self.processes.iter().for_each(|remembered| members.add(remembered.identity.number));
    }

    /// Like [`scan`](Self::scan), but by a [walk](Members::walk). Returns false if the walk gave up; `visit` may have
    /// been called with some of the processes by then.
    fn walk(&mut self, proc: &Proc, members: &mut Members, mut visit: impl FnMut(&Member)) -> bool {
        self.reset_members(proc, members);
        members.walk(proc, |member| {
            if member.is_nested {
                self.add(member.identity);
            }
            visit(&member);
        })
    }

    /// Remembers the nested processes that one scan finds, and calls `visit` with every process that it finds. Ends
    /// early at `until`. Returns whether the scan was complete.
    fn scan(
        &mut self,
        proc: &Proc,
        members: &mut Members,
        until: Option<Instant>,
        mut visit: impl FnMut(&Member),
    ) -> bool {
        self.reset_members(proc, members);
        if members.is_empty() {
            return true;
        }
        let latest_end = clock::now() + MAX_SCAN_TIME;
        members.scan_until(proc, until.map_or(latest_end, |until| until.min(latest_end)), |member| {
            if member.is_nested {
                self.add(member.identity);
            }
            visit(&member);
        })
    }
}

/// Sends a signal to a process. Does nothing if the process is gone or its pid cannot be read.
fn send(proc: &Proc, process: Identity, signal: Signal) -> nix::Result<()> {
    match proc.pid_info(process.number) {
        Some(PidInfo { pid, .. }) => proc.signal(process, pid, signal),
        None => Ok(()),
    }
}
