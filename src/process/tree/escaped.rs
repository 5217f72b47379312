//! Finds and kills processes of the command that left the tree before they were seen in it.
//!
//! In a PID namespace that another program has created (`nsenter`, `runc exec`), orphans become children of the init
//! process of that namespace. Such processes are recognized by the run ID in their environment. Reading the environment
//! can block while the kernel waits for a page of that process, so a child process reads it. The child is part of the
//! tree until it ends.

use std::thread;
use std::time::Duration;

use leaderrun_core::instant::Instant;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{ForkResult, Pid, fork, getppid, read};

use super::not_nested::NotNested;
use super::proc::{Identity, Listed, Proc};
use crate::process::clock;
use crate::process::deadline::RUN_VARIABLE;
use crate::process::pidfd::PidFd;
use crate::process::priority::Priority;

/// How long a search may take before it may be killed. The time is long enough for tens of thousands of processes on a
/// busy machine, so a longer search is blocked.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(30);

/// The maximum number of killed processes that a search waits for at the same time.
const MAX_DYING: usize = 64;

/// How long a search waits for the death of killed processes before it looks for others.
const DEATH_TIMEOUT: Duration = Duration::from_secs(1);

/// How long an exec may take until the new environment can be read.
const EXEC_TIMEOUT: Duration = Duration::from_secs(1);

/// The pause before an environment is read again.
const EXEC_PAUSE: Duration = Duration::from_millis(1);

/// Returns the tag by which processes of a run are recognized in their environment: the variable with the run ID, with
/// a NUL before and after it.
pub fn tag(run: &str) -> Vec<u8> {
    format!("\0{RUN_VARIABLE}={run}\0").into_bytes()
}

/// A child of this process that kills the escaped processes.
#[derive(Debug)]
pub struct Search {
    pid: Pid,
    /// `None` if there was no free descriptor.
    fd: Option<PidFd>,
    started_at: Instant,
}

impl Search {
    /// Starts a search that kills every process with this tag in a nested PID namespace, and ends when they are dead.
    /// Returns `None` if no process could have the tag. If no process can be forked, this process searches, and the call
    /// returns `None` at the end of the search. The tree must be empty.
    pub fn start(proc: &Proc, not_nested: &NotNested, tag: &[u8]) -> Option<Self> {
        let mut any_possible = false;
        proc.for_each_process(|process| {
            any_possible |= !not_nested.contains(process) && possibly_tagged(proc, process.number).is_some();
            !any_possible
        });
        if !any_possible {
            return None;
        }
        let parent = nix::unistd::getpid();
        // SAFETY: the child only makes system calls.
        match unsafe { fork() } {
            Ok(ForkResult::Parent { child }) => {
                Some(Self { pid: child, fd: PidFd::open(child).ok(), started_at: clock::now() })
            }
            Ok(ForkResult::Child) => {
                let _ = prctl::set_pdeathsig(Signal::SIGKILL);
                if getppid() == parent {
                    // The parent's priority is not inherited.
                    let _priority = Priority::acquire();
                    kill_tagged(proc, tag);
                }
                // SAFETY: the call ends this process without running the parent's destructors and exit handlers.
                unsafe { libc::_exit(0) }
            }
            Err(_) => {
                kill_tagged(proc, tag);
                None
            }
        }
    }

    /// Returns the pid of the child as long as the child is alive and a kill of the tree must leave it out.
    pub fn child(&self) -> Option<Pid> {
        let is_alive = self.fd.as_ref().is_some_and(|fd| !fd.is_dead());
        (is_alive && clock::now() < self.started_at + SEARCH_TIMEOUT).then_some(self.pid)
    }
}

/// Kills every process with the tag. Returns when a scan has found no further one, because killed processes may have
/// forked, and when all that were killed are dead.
fn kill_tagged(proc: &Proc, tag: &[u8]) {
    let mut dying: [Option<(Identity, PidFd)>; MAX_DYING] = [const { None }; MAX_DYING];
    loop {
        let mut none_found = true;
        proc.for_each_process(|Listed { number, .. }| {
            let Some(free) = dying.iter().position(Option::is_none) else {
                none_found = false;
                return false;
            };
            if let Some((process, pid)) = possibly_tagged(proc, number)
                && !dying.iter().flatten().any(|(other, _)| *other == process)
                && let Some(fd) = kill_if_tagged(proc, tag, process, pid)
            {
                dying[free] = Some((process, fd));
                none_found = false;
            }
            true
        });
        let until = clock::now() + DEATH_TIMEOUT;
        for slot in &mut dying {
            slot.take_if(|(_, fd)| fd.dies_within(until.since(clock::now())));
        }
        if none_found && dying.iter().all(Option::is_none) {
            return;
        }
    }
}

/// Returns a process if it is younger than this process and in a nested PID namespace, so that it may have the tag.
fn possibly_tagged(proc: &Proc, number: i32) -> Option<(Identity, Pid)> {
    // This is the cheapest check, and almost all processes fail it.
    if proc.is_in_own_namespace(number) {
        return None;
    }
    let stat = proc.stat(number).ok().filter(|stat| stat.started >= proc.own_start() && !stat.is_dead())?;
    let numbers = proc.numbers(number).filter(|numbers| numbers.is_nested)?;
    Some((Identity { number, started: stat.started }, numbers.pid))
}

/// Kills a process if it has the tag. Returns a descriptor of the process if it was killed.
fn kill_if_tagged(proc: &Proc, tag: &[u8], process: Identity, pid: Pid) -> Option<PidFd> {
    let fd = PidFd::open(pid).ok()?;
    let is_tagged = has_tag(proc, process, tag) && proc.is_alive(process);
    (is_tagged && fd.signal(Signal::SIGKILL).is_ok()).then_some(fd)
}

/// Returns whether the environment of a process contains the tag. If the process executes a program meanwhile, the
/// environment is read again.
fn has_tag(proc: &Proc, process: Identity, tag: &[u8]) -> bool {
    let until = clock::now() + EXEC_TIMEOUT;
    loop {
        let Ok((found, length)) = find_tag(proc, process.number, tag) else { return false };
        let is_whole = proc.environment_length(process.number) == Some(length);
        if found || is_whole || clock::now() >= until || !proc.is_alive(process) {
            return found;
        }
        thread::sleep(EXEC_PAUSE);
    }
}

/// Reads the environment of a process up to the tag. Returns whether the tag was found, and how many bytes were read.
fn find_tag(proc: &Proc, number: i32, tag: &[u8]) -> nix::Result<(bool, u64)> {
    let environment = proc.open_file(number, "environ")?;
    let mut buffer = [0; 16 * 1024];
    let mut length = 0;
    // The first variable has no NUL before it, so the buffer begins with one.
    let mut kept = 1;
    loop {
        let count = read(&environment, &mut buffer[kept..])?;
        length += count as u64;
        let filled = kept + count;
        let found = buffer[..filled].windows(tag.len()).any(|window| window == tag);
        if found || count == 0 {
            return Ok((found, length));
        }
        // The tag may begin at the end of this part.
        kept = filled.min(tag.len());
        buffer.copy_within(filled - kept..filled, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_child_of_a_search_is_left_out_of_a_kill_until_it_is_dead_or_has_taken_too_long() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = Pid::from_raw(child.id().try_into().unwrap());
        let search = |started_at| Search { pid, fd: PidFd::open(pid).ok(), started_at };
        let (recent, old) = (search(clock::now()), search(clock::now() - SEARCH_TIMEOUT));
        assert_eq!((recent.child(), old.child()), (Some(pid), None));
        child.kill().unwrap();
        assert!(recent.fd.as_ref().unwrap().dies_within(Duration::from_secs(60)));
        assert_eq!(recent.child(), None);
        child.wait().unwrap();
    }

    fn environment_length(variables: &[(&str, &str)]) -> u64 {
        variables.iter().map(|(name, value)| (name.len() + value.len() + "=\0".len()) as u64).sum()
    }

    #[test]
    fn a_tag_is_found_anywhere_in_an_environment() {
        let proc = Proc::open().unwrap();
        let filler = "x".repeat(16 * 1024 - 20);
        for (variables, expected) in [
            (vec![(RUN_VARIABLE, "this")], true),
            (vec![(RUN_VARIABLE, "this"), ("ZZZ", "last")], true),
            (vec![("AAA", filler.as_str()), (RUN_VARIABLE, "this")], true),
            (vec![(RUN_VARIABLE, "this one")], false),
            (vec![("OTHER_LEADERRUN_RUN_ID", "this")], false),
            (vec![], false),
        ] {
            let mut child = Command::new("cat");
            child.env_clear().envs(variables.clone()).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = child.spawn().unwrap();
            // The child has executed the program when its output arrives. Only then does /proc show its environment.
            child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
            child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
            let number = i32::try_from(child.id()).unwrap();
            let process = Identity { number, started: proc.stat(number).unwrap().started };
            assert_eq!(has_tag(&proc, process, &tag("this")), expected, "{variables:?}");
            assert_eq!(proc.environment_length(number), Some(environment_length(&variables)));
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    #[test]
    fn a_tag_is_found_while_the_process_executes_one_program_after_the_other() {
        const AGAIN: &str = r#"exec sh -c "$0" "$0""#;
        let proc = Proc::open().unwrap();
        let mut child = Command::new("sh").args(["-c", AGAIN, AGAIN]).env(RUN_VARIABLE, "this").spawn().unwrap();
        let number = i32::try_from(child.id()).unwrap();
        let process = Identity { number, started: proc.stat(number).unwrap().started };
        let tag = tag("this");
        let missed = (0..4000).filter(|_| !has_tag(&proc, process, &tag)).count();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(missed, 0);
    }
}
