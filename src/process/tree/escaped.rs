//! Finds and kills processes of the command that left the tree before they were seen in it.
//!
//! In a PID namespace that another program has created (`nsenter`, `runc exec`), orphans become children of the init
//! process of that namespace. Such processes are recognized by the run ID in their environment. Reading the environment
//! can block while the kernel waits for a page of that process, so a child process reads it. The child is part of the
//! tree until it ends.

use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use leaderrun_core::instant::Instant;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{ForkResult, Pid, fork, getpid, getppid, pipe2, read, write};

use super::not_nested::NotNested;
use super::proc::{Identity, Listed, Proc};
use super::run_environment::is_of_run;
use crate::process::clock;
use crate::process::pidfd::PidFd;
use crate::process::priority::Priority;

/// A search that reports no progress for this long is given up. The time is long enough for a scan of tens of thousands
/// of processes on a busy machine, so such a search is blocked.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(30);

/// The maximum number of killed processes that a search waits for at the same time.
const MAX_DYING: usize = 64;

/// How long a search waits for the death of killed processes before it looks for others.
const DEATH_TIMEOUT: Duration = Duration::from_secs(1);

/// The pause after a scan that failed because there was no free descriptor or no memory.
const FAILURE_PAUSE: Duration = Duration::from_millis(10);

/// What the child of a search reports after each scan.
const SCANNED: u8 = 0;

/// What the child of a search reports when all processes of the run are dead.
const COMPLETE: u8 = 1;

/// A child of this process that kills the escaped processes of a run.
#[derive(Debug)]
pub struct Search {
    pid: Pid,
    /// A pipe that the child writes its reports to. It is closed when the child is dead.
    reports: OwnedFd,
    reported_at: Instant,
    is_complete: bool,
    is_given_up: bool,
}

impl Search {
    /// Starts a search that kills every process of this run in a nested PID namespace, and ends when they are dead.
    /// Returns `None` if there can be no such process. If no child can be started, this process searches, and the call
    /// returns `None` at the end of the search.
    pub fn start(proc: &Proc, not_nested: &NotNested, run: &str) -> Option<Self> {
        let mut any_possible = false;
        let listing = proc.for_each_process(|process| {
            any_possible |= !not_nested.contains(process) && possibly_of_run(proc, process.number) != Ok(None);
            !any_possible
        });
        if listing.is_ok() && !any_possible {
            return None;
        }
        let search = Self::fork(proc, run);
        if search.is_none() {
            kill_all(proc, run, || {});
        }
        search
    }

    fn fork(proc: &Proc, run: &str) -> Option<Self> {
        let (reports, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).ok()?;
        let parent = getpid();
        // SAFETY: the child only makes system calls.
        match unsafe { fork() } {
            Ok(ForkResult::Parent { child }) => {
                Some(Self { pid: child, reports, reported_at: clock::now(), is_complete: false, is_given_up: false })
            }
            Ok(ForkResult::Child) => {
                let _ = prctl::set_pdeathsig(Signal::SIGKILL);
                // The parent's priority is not inherited.
                let _priority = Priority::acquire();
                let report = |byte| {
                    let _ = write(&writer, &[byte]);
                };
                if getppid() == parent && kill_all(proc, run, || report(SCANNED)) {
                    report(COMPLETE);
                }
                // SAFETY: the call ends this process without running the parent's destructors and exit handlers.
                unsafe { libc::_exit(0) }
            }
            Err(_) => None,
        }
    }

    /// Returns the pid of the child if the child is alive. Gives the search up if it is blocked: the child is killed.
    pub fn check(&mut self) -> Option<Pid> {
        let mut bytes = [0; 64];
        loop {
            match read(&self.reports, &mut bytes) {
                Ok(0) => return None,
                Ok(count) => {
                    self.reported_at = clock::now();
                    self.is_complete |= bytes[..count].contains(&COMPLETE);
                }
                Err(Errno::EINTR) => {}
                Err(_) => break,
            }
        }
        if !self.is_given_up && clock::now() >= self.reported_at + PROGRESS_TIMEOUT {
            self.is_given_up = true;
            let _ = kill(self.pid, Signal::SIGKILL);
        }
        Some(self.pid)
    }

    /// Ends a search whose child is dead. If another program has killed the child, this process searches.
    pub fn finish(mut self, proc: &Proc, run: &str) {
        self.check();
        if !self.is_complete && !self.is_given_up {
            kill_all(proc, run, || {});
        }
    }
}

/// Kills every process of the run, and calls `report` after each scan. Returns true when a scan has found no further
/// process, because killed processes may have forked, and when all that were killed are dead. Returns false if the scans
/// fail for [`PROGRESS_TIMEOUT`].
fn kill_all(proc: &Proc, run: &str, report: impl Fn()) -> bool {
    let mut dying: [Option<(Identity, PidFd)>; MAX_DYING] = [const { None }; MAX_DYING];
    let mut scanned_at = clock::now();
    loop {
        let scan = kill_found(proc, run, &mut dying);
        let until = clock::now() + DEATH_TIMEOUT;
        for slot in &mut dying {
            slot.take_if(|(_, fd)| fd.dies_within(until.since(clock::now())));
        }
        match scan {
            Ok(false) if dying.iter().all(Option::is_none) => return true,
            Ok(_) => {
                scanned_at = clock::now();
                report();
            }
            Err(_) if clock::now() >= scanned_at + PROGRESS_TIMEOUT => return false,
            Err(_) => thread::sleep(FAILURE_PAUSE),
        }
    }
}

/// Kills the processes of the run that one scan finds, and adds them to `dying`, as long as there is room. Returns
/// whether there may be others.
fn kill_found(proc: &Proc, run: &str, dying: &mut [Option<(Identity, PidFd)>; MAX_DYING]) -> nix::Result<bool> {
    let (mut any_left, mut failure) = (false, Ok(()));
    proc.for_each_process(|Listed { number, .. }| {
        let Some(free) = dying.iter().position(Option::is_none) else {
            any_left = true;
            return false;
        };
        match possibly_of_run(proc, number) {
            Ok(Some((process, pid))) if !dying.iter().flatten().any(|(other, _)| *other == process) => {
                match kill_if_of_run(proc, run, process, pid) {
                    Ok(Some(fd)) => {
                        dying[free] = Some((process, fd));
                        any_left = true;
                    }
                    Ok(None) => {}
                    Err(errno) => failure = Err(errno),
                }
            }
            Ok(_) => {}
            Err(errno) => failure = Err(errno),
        }
        true
    })?;
    failure.map(|()| any_left)
}

/// Returns a process if it is younger than this process and in a nested PID namespace, so that it may be of the run.
fn possibly_of_run(proc: &Proc, number: i32) -> nix::Result<Option<(Identity, Pid)>> {
    // This is the cheapest check, and almost all processes fail it.
    if proc.is_in_own_namespace(number) {
        return Ok(None);
    }
    let stat = match proc.stat(number) {
        Ok(stat) if stat.started >= proc.own_start() && !stat.is_dead() => stat,
        Ok(_) | Err(Errno::ENOENT | Errno::ESRCH) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    let numbers = proc.numbers(number).filter(|numbers| numbers.is_nested);
    Ok(numbers.map(|numbers| (Identity { number, started: stat.started }, numbers.pid)))
}

/// Kills a process if it is of the run. Returns a descriptor of the process if it was killed.
fn kill_if_of_run(proc: &Proc, run: &str, process: Identity, pid: Pid) -> nix::Result<Option<PidFd>> {
    let fd = match PidFd::try_open(pid) {
        Ok(fd) => fd,
        Err(Errno::ESRCH) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    let is_of_run = is_of_run(proc, process, run)? && proc.is_alive(process);
    Ok((is_of_run && fd.signal(Signal::SIGKILL).is_ok()).then_some(fd))
}

#[cfg(test)]
pub mod tests {
    use std::process::{Child, Command, Stdio};

    use nix::sys::wait::waitpid;
    use nix::unistd::pipe;
    use testkit::eventually;

    use super::*;
    use crate::process::deadline::RUN_VARIABLE;

    /// A process of a run, in a nested PID namespace. It is killed when the value is dropped.
    pub struct NestedProcess {
        unshare: Child,
        pub number: i32,
    }

    impl NestedProcess {
        /// Starts a process. Returns `None` if this user cannot create namespaces.
        pub fn start(proc: &Proc, run: &str) -> Option<Self> {
            let mut command = Command::new("unshare");
            command.args(["--pid", "--fork", "--kill-child", "sleep", "1000"]);
            let unshare = command.env(RUN_VARIABLE, run).stderr(Stdio::null()).spawn().ok()?;
            let main = i32::try_from(unshare.id()).unwrap();
            let child = || {
                let mut child = None;
                let _ = proc.for_each_child_of(main, main, |number| child = Some(number));
                child
            };
            eventually("the process exists, or unshare has failed", || {
                child().is_some() || proc.stat(main).unwrap().is_dead()
            });
            child().map(|number| Self { unshare, number })
        }

        pub fn is_dead(&self, proc: &Proc) -> bool {
            proc.stat(self.number).map_or(true, |stat| stat.is_dead())
        }
    }

    impl Drop for NestedProcess {
        fn drop(&mut self) {
            let _ = self.unshare.kill();
            let _ = self.unshare.wait();
        }
    }

    /// Returns a search with this child, which has never reported anything.
    fn silent_search(child: &Child, reports: OwnedFd, reported_at: Instant) -> Search {
        let pid = Pid::from_raw(child.id().try_into().unwrap());
        Search { pid, reports, reported_at, is_complete: false, is_given_up: false }
    }

    #[test]
    fn a_search_kills_the_processes_of_its_run_only() {
        let proc = Proc::open().unwrap();
        let Some(other) = NestedProcess::start(&proc, "other") else { return };
        let found = NestedProcess::start(&proc, "searched for").unwrap();
        let search = Search::start(&proc, &NotNested::default(), "searched for").expect("a process may be of the run");
        waitpid(search.pid, None).unwrap();
        assert!(found.is_dead(&proc) && !other.is_dead(&proc));
    }

    #[test]
    fn if_the_child_of_a_search_is_killed_its_parent_searches() {
        let proc = Proc::open().unwrap();
        let Some(process) = NestedProcess::start(&proc, "continued") else { return };
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let (reports, _) = pipe().unwrap();
        silent_search(&child, reports, clock::now()).finish(&proc, "continued");
        assert!(process.is_dead(&proc));
    }

    #[test]
    fn a_search_without_progress_is_given_up() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let (reports, _writer) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).unwrap();
        let mut search = silent_search(&child, reports, clock::now());
        assert!(search.check().is_some() && !search.is_given_up);
        search.reported_at = clock::now() - PROGRESS_TIMEOUT;
        assert!(search.check().is_some() && search.is_given_up);
        assert!(!child.wait().unwrap().success());
    }
}
