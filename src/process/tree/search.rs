//! A child process that finds and kills the [escaped](super::escaped) processes of a run.

use std::mem;
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
use super::proc::{Identity, Listed, PidInfo, Proc};
use super::run_environment::{Membership, membership};
use crate::process::clock;
use crate::process::pidfd::PidFd;
use crate::process::priority::Priority;

/// A search that reports no progress for this long must be blocked, or has no free descriptor, and is given up: even on
/// a busy machine, a scan of tens of thousands of processes takes less time.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(30);

/// The maximum time between two checks of a search by a process that is not frozen.
const MAX_CHECK_PAUSE: Duration = Duration::from_secs(1);

/// The maximum number of killed processes that a search waits for at the same time.
const MAX_DYING: usize = 64;

/// How long a search waits for the death of killed processes before it looks for others.
const DEATH_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a search keeps trying to read environments that cannot be read. A process has no environment during an
/// exec, which takes less time than this.
const EXEC_TIMEOUT: Duration = Duration::from_secs(1);

/// The pause after a scan that killed nothing or failed.
const PAUSE: Duration = Duration::from_millis(10);

/// The child's report after a scan if all killed processes have ended. Otherwise it reports the number of one that has
/// not.
const SCANNED: i32 = 0;

/// The child's last report, when the search is finished.
const ENDED: i32 = -1;

/// A search, and what its child has reported.
#[derive(Debug)]
pub struct Search {
    pid: Pid,
    /// The read end of a pipe. The child holds the write end until it dies.
    reports: OwnedFd,
    /// The instant from which [`PROGRESS_TIMEOUT`] counts: the last report, or the end of a freeze of this process.
    reported_at: Instant,
    checked_at: Instant,
    has_progressed: bool,
    /// The number of a killed process that had not ended at the last report.
    dying: Option<i32>,
    /// Whether the child has reported that the search is finished.
    has_ended: bool,
    is_given_up: bool,
}

impl Search {
    /// Starts a search that kills every process of this run in a nested PID namespace, and ends when they are dead.
    /// Returns `None` if there can be no such process.
    ///
    /// # Errors
    /// Fails if there is no free descriptor, or if no process can be forked.
    pub fn start(proc: &Proc, not_nested: &NotNested, run: &str) -> nix::Result<Option<Self>> {
        let mut any_possible = false;
        proc.for_each_process(|process| {
            any_possible |= !not_nested.contains(process) && possible_member(proc, process.number) != Ok(None);
            !any_possible
        })?;
        if any_possible { Self::fork(proc, run).map(Some) } else { Ok(None) }
    }

    fn new(child: Pid, reports: OwnedFd) -> Self {
        let now = clock::now();
        Self {
            pid: child,
            reports,
            reported_at: now,
            checked_at: now,
            has_progressed: false,
            dying: None,
            has_ended: false,
            is_given_up: false,
        }
    }

    fn fork(proc: &Proc, run: &str) -> nix::Result<Self> {
        let (reports, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let parent = getpid();
        // SAFETY: the child only makes system calls.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => Ok(Self::new(child, reports)),
            ForkResult::Child => {
                let _ = prctl::set_pdeathsig(Signal::SIGKILL);
                // The parent's real-time priority is not inherited.
                let _priority = Priority::acquire();
                let report = |number: i32| {
                    let _ = write(&writer, &number.to_ne_bytes());
                };
                if getppid() == parent {
                    kill_all(proc, run, report);
                    report(ENDED);
                }
                // SAFETY: `_exit` has no preconditions. The parent's destructors and exit handlers must not run here.
                unsafe { libc::_exit(0) }
            }
        }
    }

    /// Reads the child's reports. Returns the pid of the child if the child is alive. If the search is blocked, kills
    /// the child and thereby gives the search up.
    pub fn check(&mut self) -> Option<Pid> {
        let mut report = [0; size_of::<i32>()];
        loop {
            match read(&self.reports, &mut report) {
                Ok(0) => return None,
                Ok(_) => {
                    let number = i32::from_ne_bytes(report);
                    (self.reported_at, self.dying) = (clock::now(), Some(number).filter(|number| *number > SCANNED));
                    self.has_progressed = true;
                    self.has_ended |= number == ENDED;
                }
                Err(Errno::EINTR) => {}
                Err(_) => break,
            }
        }
        let now = clock::now();
        if now.since(mem::replace(&mut self.checked_at, now)) > MAX_CHECK_PAUSE {
            // This process was frozen or suspended, and perhaps the child as well.
            self.reported_at = now;
        }
        if !self.is_given_up && now >= self.reported_at + PROGRESS_TIMEOUT {
            self.is_given_up = true;
            let _ = kill(self.pid, Signal::SIGKILL);
        }
        Some(self.pid)
    }

    /// Returns the number of a process that was killed and had not ended at the child's last report.
    pub fn dying(&self) -> Option<i32> {
        self.dying
    }

    /// Returns whether the child has reported anything.
    pub fn has_progressed(&self) -> bool {
        self.has_progressed
    }

    /// Reads the last reports of the child, which must be dead. Returns whether it died before the end of the search
    /// without having been given up, for example because another program killed it.
    pub fn was_interrupted(&mut self) -> bool {
        self.check();
        !self.has_ended && !self.is_given_up
    }
}

/// Kills every process of the run, and reports progress with the number of a process that has not ended, or with
/// [`SCANNED`].
///
/// Killed processes may have forked, so scans are repeated until one finds nothing to kill and all killed processes are
/// dead. If environments cannot be read, scans are repeated for [`EXEC_TIMEOUT`].
fn kill_all(proc: &Proc, run: &str, report: impl Fn(i32)) {
    let mut dying = none_dying();
    let mut unreadable_since = None;
    loop {
        let scan = kill_found(proc, run, &mut dying);
        let until = clock::now() + DEATH_TIMEOUT;
        for slot in &mut dying {
            slot.take_if(|(_, fd)| fd.dies_within(until.since(clock::now())));
        }
        let first_dying = dying.iter().flatten().next().map(|(process, _)| process.number);
        // Nothing is reported about a scan that fails, so the parent gives the search up if this goes on.
        if let Ok(Scan { any_killed, any_unreadable }) = scan {
            let now = clock::now();
            if any_killed || !any_unreadable {
                unreadable_since = None;
            }
            let is_conclusive = !any_unreadable || now >= *unreadable_since.get_or_insert(now) + EXEC_TIMEOUT;
            if !any_killed && first_dying.is_none() && is_conclusive {
                return;
            }
            report(first_dying.unwrap_or(SCANNED));
            if any_killed {
                continue;
            }
        }
        thread::sleep(PAUSE);
    }
}

/// Kills the processes of the run that one scan finds. The call can block while the kernel waits for a page of another
/// process.
pub fn kill_once(proc: &Proc, run: &str) {
    let _ = kill_found(proc, run, &mut none_dying());
}

/// The killed processes that have not ended.
type Dying = [Option<(Identity, PidFd)>; MAX_DYING];

fn none_dying() -> Dying {
    [const { None }; MAX_DYING]
}

/// The result of a scan.
#[derive(Default)]
struct Scan {
    any_killed: bool,
    /// Whether the environment of some process could not be read, for example because it is executing a program.
    any_unreadable: bool,
}

/// Kills the processes of the run that one scan finds, apart from those in `dying`, and adds them to `dying` as long as
/// there is room.
///
/// # Errors
/// Fails if there is no free descriptor or no memory to examine some process. The others are still killed.
fn kill_found(proc: &Proc, run: &str, dying: &mut Dying) -> nix::Result<Scan> {
    let (mut scan, mut failure) = (Scan::default(), None);
    proc.for_each_process(|Listed { number, .. }| {
        let member = match possible_member(proc, number) {
            Ok(Some(member)) if !dying.iter().flatten().any(|(process, _)| *process == member.0) => member,
            Ok(_) => return true,
            Err(errno) => {
                failure = Some(errno);
                return true;
            }
        };
        match kill_member(proc, run, member) {
            Ok(Killed::Yes(fd)) => {
                scan.any_killed = true;
                if let Some(slot) = dying.iter_mut().find(|slot| slot.is_none()) {
                    *slot = Some((member.0, fd));
                }
            }
            Ok(Killed::No) => {}
            Ok(Killed::Unreadable) => scan.any_unreadable = true,
            Err(errno) => failure = Some(errno),
        }
        true
    })?;
    failure.map_or(Ok(scan), Err)
}

/// Returns whether a call failed because there is no free descriptor or no memory, so that it may succeed later.
fn is_shortage(errno: Errno) -> bool {
    matches!(errno, Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM)
}

/// Returns a process and its pid if it may belong to the run, because it is younger than this process and in a nested
/// PID namespace.
///
/// # Errors
/// Fails if there is no free descriptor or no memory.
fn possible_member(proc: &Proc, number: i32) -> nix::Result<Option<(Identity, Pid)>> {
    // This is the cheapest check, and almost all processes fail it.
    if proc.is_in_own_namespace(number) {
        return Ok(None);
    }
    let stat = match proc.stat(number) {
        Ok(stat) if stat.started >= proc.own_start() && !stat.is_dead() => stat,
        Err(errno) if is_shortage(errno) => return Err(errno),
        // The process is too old, dead, or hidden from this user.
        _ => return Ok(None),
    };
    match proc.try_pid_info(number) {
        Err(errno) if is_shortage(errno) => Err(errno),
        Ok(Some(PidInfo { pid, is_nested: true })) => Ok(Some((Identity { number, started: stat.started }, pid))),
        _ => Ok(None),
    }
}

/// The outcome of examining a process that may belong to the run, and of killing it if it does.
enum Killed {
    Yes(PidFd),
    /// The process does not belong to the run, is dead, or may not be killed by this user.
    No,
    /// The environment of the process cannot be read now.
    Unreadable,
}

/// Kills a process if it belongs to the run.
fn kill_member(proc: &Proc, run: &str, (process, pid): (Identity, Pid)) -> nix::Result<Killed> {
    let fd = match PidFd::open_raw(pid) {
        Ok(fd) => fd,
        Err(errno) if is_shortage(errno) => return Err(errno),
        Err(_) => return Ok(Killed::No),
    };
    let membership = match membership(proc, process.number, run) {
        Err(errno) if is_shortage(errno) => return Err(errno),
        Err(_) => Membership::No,
        Ok(membership) => membership,
    };
    // If /proc belongs to an outer PID namespace, the process may be in a sibling of this namespace. Its pid there may
    // be the pid of another process here, and the descriptor would refer to that one.
    let is_other = membership == Membership::Yes && proc.number_of(&fd)? != Some(process.number);
    // The check comes after the descriptor was opened. If the process is alive now, the descriptor refers to it.
    Ok(match membership {
        _ if is_other || !proc.is_alive(process) => Killed::No,
        Membership::Yes if fd.signal(Signal::SIGKILL).is_ok() => Killed::Yes(fd),
        Membership::Unreadable => Killed::Unreadable,
        Membership::Yes | Membership::No => Killed::No,
    })
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
        number: i32,
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
    fn silent_search(child: &Child, reports: OwnedFd) -> Search {
        Search::new(Pid::from_raw(child.id().try_into().unwrap()), reports)
    }

    #[test]
    fn a_search_kills_only_the_processes_of_its_run() {
        let proc = Proc::open().unwrap();
        let Some(other) = NestedProcess::start(&proc, "other") else { return };
        let found = NestedProcess::start(&proc, "searched for").unwrap();
        let search = Search::start(&proc, &NotNested::default(), "searched for").unwrap();
        let mut search = search.expect("a process may belong to the run");
        waitpid(search.pid, None).unwrap();
        assert!(found.is_dead(&proc) && !other.is_dead(&proc));
        assert!(!search.was_interrupted());
    }

    #[test]
    fn a_search_whose_child_was_killed_is_interrupted() {
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let (reports, _) = pipe().unwrap();
        assert!(silent_search(&child, reports).was_interrupted());
    }

    #[test]
    fn a_search_without_progress_is_given_up() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let (reports, writer) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).unwrap();
        let mut search = silent_search(&child, reports);
        search.reported_at = clock::now() - PROGRESS_TIMEOUT;
        write(&writer, &4711_i32.to_ne_bytes()).unwrap();
        assert!(search.check().is_some() && !search.is_given_up);
        assert_eq!(search.dying(), Some(4711));
        (search.reported_at, search.checked_at) = (clock::now() - PROGRESS_TIMEOUT, clock::now() - 2 * MAX_CHECK_PAUSE);
        assert!(
            search.check().is_some() && !search.is_given_up,
            "a search should not be given up if both processes were suspended"
        );
        search.reported_at = clock::now() - PROGRESS_TIMEOUT;
        assert!(search.check().is_some() && search.is_given_up);
        assert!(!child.wait().unwrap().success());
        drop(writer);
        assert!(!search.was_interrupted());
    }
}
