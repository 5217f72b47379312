//! The tree of processes below this one, and how all of them are killed.
//!
//! The caller is a subreaper (or PID 1): when a process below it dies, the children of that process become children of
//! the caller. Repeatedly listing, killing and reaping the direct children therefore ends the whole tree, including
//! processes in other sessions and process groups. It never signals the wrong process, because the pid of an unreaped
//! child is not reused. [`Members`] makes the kill faster by finding all descendants in one scan.
//!
//! Processes in a PID namespace below the caller's are different. When their parent dies, they become children of the
//! init process of their namespace, which may not be a descendant of the caller (`nsenter`, `runc exec`). Such
//! processes are remembered when they are seen, stopped before any process above them is killed, and killed from the
//! leaves up. The tree does not count as empty until they are dead. Those that were never seen are [`Escaped`].
//!
//! Children of *other threads* of the caller, such as credential plugins, are not part of the tree.

mod escaped;
mod kill_rounds;
mod members;
mod nested;
mod not_nested;
mod proc;
mod reap;
mod run_environment;
mod runnable;
mod search;
mod shared_nested;
mod user;

use std::fs;
use std::io;
use std::path::Path;

use leaderrun_core::instant::Instant;
use leaderrun_core::kill_time::{KillAllowance, TaskCount};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getpgid};

use self::escaped::Escaped;
pub use self::kill_rounds::KillRounds;
use self::members::Members;
use self::nested::Nested;
use self::not_nested::NotNested;
use self::proc::{PidInfo, Proc};
pub use self::reap::{Ended, Reaped, reap};
pub use self::shared_nested::SharedNested;
use crate::process::clock;
use crate::process::pidfd::PidFd;
use crate::process::system_call::SystemCallError;
use crate::process::title;

/// The maximum number of processes that a message names.
const MAX_NAMES: usize = 8;

/// Threads are counted between scans only if there are at most this many processes. With more, counting would take as
/// long as a scan of all processes on the machine.
const MAX_RECOUNTED: usize = 64;

/// The pause after a scan during a kill, as a multiple of the time that the scan took. Most processes that are forked
/// during the pause become children of this process, which are killed without a scan.
const SCAN_PAUSE_FACTOR: u32 = 9;

/// Makes the orphans below this process its children. Otherwise they would become children of PID 1.
///
/// # Errors
/// Returns the error of prctl(2), which is not expected to fail.
pub fn adopt_orphans() -> io::Result<()> {
    Ok(prctl::set_child_subreaper(true).map_err(SystemCallError::of("prctl"))?)
}

/// The reason why some process could not be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillFailure {
    /// The process with this number in /proc could not be signaled.
    Refused { number: i32, errno: Errno },
    /// The children could not be listed.
    NotListed(Errno),
    /// The process with this number in /proc was killed some time ago and has not ended.
    Stuck { number: i32 },
}

impl KillFailure {
    /// Returns the failure as an error number, which is all that a child of [`user::as_user`] can report.
    fn errno(self) -> Errno {
        match self {
            Self::Refused { errno, .. } | Self::NotListed(errno) => errno,
            Self::Stuck { .. } => Errno::ETIMEDOUT,
        }
    }

    /// Returns whether the kernel would end the process when process 1 of its container exits. A process that is stuck
    /// has already been killed, and would not end then either.
    pub fn ends_with_init(self) -> bool {
        !matches!(self, Self::Stuck { .. })
    }
}

/// The processes below the thread that opened the tree.
#[derive(Debug)]
pub struct Tree {
    proc: Proc,
    members: Members,
    nested: Nested,
    not_nested: NotNested,
    /// How many processes and threads were counted last.
    count: TaskCount,
    /// Whether a kill checks the PID namespaces of the children even if no nested process is remembered.
    checks_namespaces: bool,
    /// How many children the last kill listed.
    listed_children: usize,
    /// When a kill may scan all processes again. Scans take at most a tenth of the time.
    next_scan: Instant,
    escaped: Escaped,
}

impl Tree {
    /// Opens /proc, and allocates everything that a kill needs. `run` is the ID of the run, by which escaped processes
    /// are recognized.
    ///
    /// # Errors
    /// Fails if this process cannot list its children. The error's message can be shown to users.
    pub fn open(run: &str) -> io::Result<Self> {
        let proc = Proc::open().map_err(|error| {
            let reason = match error.raw_os_error() {
                Some(number) => {
                    let description = Errno::from_raw(number).desc();
                    format!("{description}; mount /proc, and use a kernel with CONFIG_PROC_CHILDREN")
                }
                None => error.to_string(),
            };
            io::Error::other(format!("cannot list child processes in /proc: {reason}"))
        })?;
        Ok(Self {
            proc,
            members: Members::new(),
            nested: Nested::new(),
            not_nested: NotNested::default(),
            count: TaskCount::default(),
            checks_namespaces: false,
            listed_children: 0,
            next_scan: clock::now(),
            escaped: Escaped::new(run),
        })
    }

    /// Sends a signal to the process group that a child of this process leads. The child must not have been reaped. If
    /// this process may not signal the group, the signal is sent as the user of the child.
    ///
    /// # Errors
    /// Fails if the signal is not permitted, or returns `ESRCH` if the child leads no group.
    pub fn signal_group(&self, leader: Pid, signal: i32) -> nix::Result<()> {
        // nix's `kill` has no real-time signals.
        // SAFETY: the call takes two integers.
        let send = || Errno::result(unsafe { libc::kill(-leader.as_raw(), signal) }).map(drop);
        match send() {
            Err(Errno::EPERM) => match self.proc.owner(leader.as_raw()) {
                Ok(owner) => user::as_user(owner, send),
                Err(_) => Err(Errno::EPERM),
            },
            sent => sent,
        }
    }

    /// Returns the children of this thread that /proc lists, including dead children that have not been reaped.
    pub fn children(&self) -> Vec<Pid> {
        let mut children = Vec::new();
        let _ = self.proc.for_each_child(|number| {
            children.extend(self.proc.pid(number));
        });
        children
    }

    /// Returns whether no child of this thread is alive, so that its children, if it has any, only need to be reaped. A
    /// child whose state is unknown, because there is no free descriptor, counts as alive.
    pub fn has_only_dead_children(&self) -> bool {
        let mut has_live_child = false;
        let listing = self.proc.for_each_child(|number| {
            // A pidfd also shows the state of another user's process, which /proc can hide (`hidepid=`).
            let open = || PidFd::open_raw(self.proc.pid(number)?).ok();
            has_live_child = has_live_child || !open().is_some_and(|fd| fd.is_dead());
        });
        listing.is_ok() && !has_live_child
    }

    /// Makes a kill check the PID namespace of every child. This is for a process that has not [remembered](Self::scan)
    /// the processes in nested PID namespaces.
    pub fn with_namespace_checks(self) -> Self {
        Self { checks_namespaces: true, ..self }
    }

    /// Stores the remembered processes in `shared` from now on, so that the elector can [adopt](Self::adopt) them.
    pub fn storing_nested_in(mut self, shared: SharedNested) -> Self {
        self.nested.store_in(shared);
        self
    }

    /// Remembers the processes in nested PID namespaces that the supervisor has stored. Some of them may not be
    /// descendants of this process.
    pub fn adopt(&mut self, shared: &SharedNested) {
        self.nested.adopt(shared);
    }

    /// Remembers the descendants in nested PID namespaces, and counts all descendants. The scan ends early at `until`.
    /// An incomplete scan never lowers the count.
    pub fn scan(&mut self, until: Option<Instant>) {
        self.count = self.nested.remember_and_count(&self.proc, &mut self.members, until, self.count);
    }

    /// Checks in advance which processes on the machine the search for escaped processes can skip. Ends early at
    /// `until`.
    pub fn prepare_search(&mut self, until: Option<Instant>) {
        self.not_nested.update(&self.proc, until);
    }

    /// Counts the processes that the last [`scan`](Self::scan) found and that still exist, with their threads, unless
    /// it found more than [`MAX_RECOUNTED`].
    pub fn recount(&mut self) {
        let numbers = self.members.numbers();
        if numbers.len() <= MAX_RECOUNTED {
            self.count = TaskCount::default();
            numbers
                .iter()
                .filter_map(|number| self.proc.threads(*number).ok())
                .for_each(|threads| self.count.add(threads));
        }
    }

    /// Estimates how many threads of the processes that the last [`scan`](Self::scan) found are running or waiting for
    /// a CPU.
    pub fn estimate_runnable(&self) -> u32 {
        runnable::estimate(&self.proc, self.members.numbers(), self.count.threads)
    }

    /// Returns how many processes and threads were counted last.
    pub fn count(&self) -> TaskCount {
        self.count
    }

    /// Returns whether processes are remembered that may not become children of this process when their parents die.
    pub fn has_nested(&self) -> bool {
        !self.nested.is_empty()
    }

    /// Sends SIGTERM, followed by SIGCONT, to the remembered processes that have not been sent them yet.
    pub fn terminate_nested(&mut self) {
        self.nested.terminate(&self.proc);
    }

    /// Sends SIGKILL to every child and, with `scans`, to every descendant that one scan finds, unless the last scan
    /// was too recent. With `max_killed_threads`, it kills at least one process, but no further process while this many
    /// killed threads have not ended. A child that searches for escaped processes is spared. Remembered processes in
    /// nested PID namespaces are always killed, before all others. If this user may not kill a process, all of this is
    /// repeated as the user of that process.
    ///
    /// The kill allocates nothing, and needs no descriptor for the direct children.
    ///
    /// # Errors
    /// Fails if the children cannot be listed, or if a process cannot be killed; the error names the first such
    /// process.
    pub fn kill(&mut self, max_killed_threads: Option<u32>, scans: bool) -> Result<(), KillFailure> {
        let search = self.escaped.child();
        let result = self.kill_as_this_user(search, max_killed_threads, scans);
        let Err(KillFailure::Refused { number, errno: Errno::EPERM }) = result else { return result };
        let refused = |errno| KillFailure::Refused { number, errno };
        // The owner is not known if /proc hides processes of other users (`hidepid=`).
        let Ok(owner) = self.proc.owner(number) else { return result };
        user::as_user(owner, || self.kill_as_this_user(search, max_killed_threads, scans).map_err(KillFailure::errno))
            .map_err(refused)
    }

    fn kill_as_this_user(
        &mut self,
        search: Option<Pid>,
        max_killed_threads: Option<u32>,
        scans: bool,
    ) -> Result<(), KillFailure> {
        let Self { proc, members, nested, checks_namespaces, listed_children, next_scan, .. } = self;
        nested.forget_dead(proc);
        // A process that checks namespaces has never scanned the tree, so it knows no processes below its children.
        let scans = scans || *checks_namespaces;
        let checks_namespaces = *checks_namespaces || !nested.is_empty();
        let mut result = Ok(());
        let mut record_result = |number: i32, sent: nix::Result<()>| {
            result = result.and(sent.map_err(|errno| KillFailure::Refused { number, errno }));
        };
        if !nested.is_empty() {
            nested.kill(proc, members, &mut record_result);
        }
        let mut found_nested = false;
        // Children that were killed before and have not ended come first in the list, so they use up the allowance.
        let mut allowance = max_killed_threads.map(KillAllowance::new);
        let mut is_allowed =
            |threads: &dyn Fn() -> u32| allowance.as_mut().is_none_or(|allowance| allowance.take(threads));
        // Without a scan, the processes that the last scan found stay in the list, so that messages can name them.
        if scans {
            members.clear();
        }
        *listed_children = 0;
        let listing = proc.for_each_child(|number| {
            *listed_children += 1;
            if search.is_some() && proc.pid(number) == search {
                return;
            }
            members.add(number);
            if checks_namespaces && proc.pid_info(number).is_some_and(|found| found.is_nested) {
                found_nested = true;
            } else if is_allowed(&|| proc.stat(number).map_or(1, |stat| stat.threads)) {
                record_result(number, proc.signal_child(number, Signal::SIGKILL));
            }
        });
        let scan_started_at = clock::now();
        if scans && !members.is_empty() && scan_started_at >= *next_scan {
            members.scan(proc, |member| {
                if member.is_nested {
                    found_nested = true;
                } else if !member.is_added && is_allowed(&|| member.stat.threads) {
                    record_result(member.identity.number, proc.signal(member.identity, member.pid, Signal::SIGKILL));
                }
            });
            let now = clock::now();
            *next_scan = now + now.since(scan_started_at) * SCAN_PAUSE_FACTOR;
        }
        if found_nested {
            nested.kill(proc, members, &mut record_result);
        }
        listing.map_err(KillFailure::NotListed).and(result)
    }

    /// Sends SIGKILL to each process group that a child leads, unless nested processes are remembered. One system call
    /// kills a whole group, whereas on a busy machine a scan for the processes of these groups takes seconds.
    pub fn kill_groups(&self) {
        // With nested PID namespaces the children must not die first, because processes below them could get a parent
        // outside of this tree.
        if self.nested.is_empty() {
            let _ = self.proc.for_each_child(|number| {
                if let Some(leader) = self.proc.pid(number).filter(|child| getpgid(Some(*child)) == Ok(*child)) {
                    let _ = self.signal_group(leader, libc::SIGKILL);
                }
            });
        }
    }

    /// Returns how many children the last [`kill`](Self::kill) listed.
    pub fn listed_children(&self) -> usize {
        self.listed_children
    }

    /// Checks that every process that the last [`kill`](Self::kill) found is dead, and likewise an escaped process that
    /// was killed.
    ///
    /// # Errors
    /// Returns a process that is still alive, as [stuck](KillFailure::Stuck).
    pub fn check_found_are_dead(&self) -> Result<(), KillFailure> {
        let numbers = self.nested.numbers().chain(self.members.numbers().iter().copied());
        let mut numbers = numbers.chain(self.escaped.dying());
        let stuck = numbers.find(|number| self.proc.stat(*number).is_ok_and(|stat| !stat.is_dead()));
        stuck.map_or(Ok(()), |number| Err(KillFailure::Stuck { number }))
    }

    /// Returns which process was not killed, and why, for messages.
    pub fn describe(&self, failure: KillFailure) -> String {
        match failure {
            KillFailure::Refused { number, errno: Errno::EPERM } => format!(
                "{}: leaderrun may not signal it; run leaderrun as the command's user, or with CAP_KILL",
                self.name(number)
            ),
            KillFailure::Refused { number, errno } => format!("{}: {}", self.name(number), errno.desc()),
            KillFailure::Stuck { number } => format!("{}: {}", self.name(number), self.reason_not_ended(number)),
            KillFailure::NotListed(errno) => format!("processes that /proc does not list: {}", errno.desc()),
        }
    }

    /// Returns why a killed process does not end, and what to do. The reason is where the process is waiting in the
    /// kernel, according to /proc.
    fn reason_not_ended(&self, number: i32) -> String {
        let mut buffer = [0; 64];
        match self.proc.read_file(number, "wchan", &mut buffer).unwrap_or_default() {
            b"__refrigerator" => "its cgroup is frozen; thaw the cgroup".to_owned(),
            b"" | b"0" => {
                format!("it does not end; try cat /proc/{number}/stack as root to see what it is waiting for")
            }
            place => format!(
                "it is waiting in the kernel, in {}; try cat /proc/{number}/stack as root to see what for",
                String::from_utf8_lossy(place)
            ),
        }
    }

    /// Makes sure that no process of the tree is left, and returns whether that is certain. This process must have no
    /// children, apart from dead ones that cannot be reaped.
    ///
    /// The first time that the tree seems empty, a child process is started to kill escaped processes, if there may be
    /// any. The tree does not count as empty until that child has ended.
    pub fn confirm_empty(&mut self) -> bool {
        self.nested.forget_dead(&self.proc);
        if !self.nested.is_empty() {
            return false;
        }
        self.escaped.confirm_none_left(&self.proc, &self.not_nested)
    }

    /// Starts a search for escaped processes during a kill, unless one is under way or was started less than a second
    /// ago.
    pub fn search_in_kill(&mut self) {
        self.escaped.search_in_kill(&self.proc, &self.not_nested);
    }

    /// Gives up a search for escaped processes that is blocked. Returns whether the child that searches is alive.
    pub fn check_search(&mut self) -> bool {
        self.escaped.child().is_some()
    }

    /// Prepares for the next command.
    pub fn reset(&mut self) {
        self.escaped.reset();
        self.count = TaskCount::default();
    }

    /// Returns the names (`comm`) and numbers of some processes that the last [`kill`](Self::kill) found, for messages.
    pub fn names(&self) -> String {
        let not_nested = self.members.numbers().iter().copied().filter(|number| !self.nested.contains(*number));
        self.names_of(self.nested.numbers().chain(not_nested))
    }

    /// Returns the names and pids of some live children of this thread; `None` if there are none.
    pub fn names_of_live_children(&self) -> Option<String> {
        let mut live = Vec::new();
        let _ = self.proc.for_each_child(|number| {
            if live.len() <= MAX_NAMES
                && !self.has_supervisor_name(number)
                && self.proc.stat(number).is_ok_and(|stat| !stat.is_dead())
            {
                live.push(number);
            }
        });
        (!live.is_empty()).then(|| self.names_of(live))
    }

    /// Returns whether a process has a name other than the supervisor's. A process that has been reaped has no name.
    fn is_nameable(&self, number: i32) -> bool {
        !self.has_supervisor_name(number) && !self.comm(number, &mut [0; 64]).is_empty()
    }

    /// Returns whether a process has the supervisor's name. Such a process is the supervisor, or a fork of it that has
    /// not executed a program yet. Messages about the command omit it.
    fn has_supervisor_name(&self, number: i32) -> bool {
        self.comm(number, &mut [0; 64]) == title::SUPERVISOR.to_bytes()
    }

    fn names_of(&self, numbers: impl IntoIterator<Item = i32>) -> String {
        let named = numbers.into_iter().filter(|number| self.is_nameable(*number));
        let numbers: Vec<i32> = named.take(MAX_NAMES + 1).collect();
        let more = if numbers.len() > MAX_NAMES { " and more" } else { "" };
        numbers.iter().take(MAX_NAMES).map(|number| self.name(*number)).collect::<Vec<_>>().join(", ") + more
    }

    fn name(&self, number: i32) -> String {
        match self.comm(number, &mut [0; 64]) {
            b"" => format!("process {number}"),
            comm => format!("{} ({number})", String::from_utf8_lossy(comm)),
        }
    }

    fn comm<'a>(&self, number: i32, buffer: &'a mut [u8]) -> &'a [u8] {
        self.proc.read_file(number, "comm", buffer).unwrap_or_default().trim_ascii_end()
    }
}

/// Sends SIGKILL to the children of other threads, such as a credential plugin that hangs, and to the process groups
/// that these children lead. This is done when leaderrun ends or re-executes itself.
pub fn kill_helpers() {
    let this_thread = fs::read_link("/proc/thread-self").unwrap_or_default();
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let Ok(proc) = Proc::open() else { return };
    for thread in threads.filter(|thread| this_thread.file_name() != Some(&thread.file_name())) {
        for child in children_in(&thread.path().join("children")) {
            if let Some(PidInfo { pid, .. }) = proc.pid_info(child) {
                // A helper that uses the terminal is in leaderrun's own process group, which must not be killed.
                let leads_group = getpgid(Some(pid)) == Ok(pid);
                let _ = if leads_group { killpg(pid, Signal::SIGKILL) } else { kill(pid, Signal::SIGKILL) };
            }
        }
    }
}

fn children_in(list: &Path) -> Vec<i32> {
    let list = fs::read_to_string(list).unwrap_or_default();
    list.split_ascii_whitespace().filter_map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork, pause};

    use super::*;

    /// Runs `test` in a child of this process that has a live child. Returns what `test` returned.
    fn with_live_child(test: impl FnOnce(&mut Tree) -> bool) -> bool {
        // SAFETY: the C library keeps its allocator usable in a child of a process with several threads.
        let ForkResult::Parent { child } = unsafe { fork() }.unwrap() else {
            let mut tree = Tree::open("1").unwrap();
            // SAFETY: the child only makes system calls.
            let ForkResult::Parent { child } = unsafe { fork() }.unwrap() else {
                loop {
                    pause();
                }
            };
            let result = test(&mut tree);
            let _ = kill(child, Signal::SIGKILL);
            // SAFETY: `_exit` has no preconditions. Exit handlers of the test process must not run here.
            unsafe { libc::_exit(result.into()) }
        };
        match waitpid(child, None).unwrap() {
            WaitStatus::Exited(_, status) => status == 1,
            status => panic!("{status:?}"),
        }
    }

    /// Keeps this process from opening descriptors.
    fn forbid_descriptors() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 0, hard).unwrap();
    }

    #[test]
    fn a_scan_without_a_free_descriptor_keeps_the_count() {
        let keeps_count = |tree: &mut Tree| {
            tree.scan(None);
            let before = tree.count();
            forbid_descriptors();
            tree.scan(None);
            before.processes == 1 && tree.count().processes == 1
        };
        assert!(with_live_child(keeps_count));
    }

    #[test]
    fn a_child_counts_as_dead_only_if_it_is_known_to_be_dead() {
        assert!(!with_live_child(|tree| tree.has_only_dead_children()));
        let without_descriptors = |tree: &mut Tree| {
            forbid_descriptors();
            tree.has_only_dead_children()
        };
        assert!(!with_live_child(without_descriptors));
        let with_dead_child = |tree: &mut Tree| {
            tree.children().into_iter().for_each(|child| kill(child, Signal::SIGKILL).unwrap());
            testkit::eventually("all children are dead", || tree.has_only_dead_children());
            true
        };
        assert!(with_live_child(with_dead_child));
    }
}
