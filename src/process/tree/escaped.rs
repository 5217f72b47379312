//! Searches for processes of the command that left the tree before they were seen in it.
//!
//! In a PID namespace that another program has created (`nsenter`, `runc exec`), orphans become children of the init
//! process of that namespace. Such processes are recognised by the run ID in their environment. Reading the environment
//! can block while the kernel waits for a page of that process, so a child process reads it. The child is part of the
//! tree until it ends.

use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{ForkResult, Pid, fork, getppid, read};

use super::proc::{Identity, Proc};
use crate::process::deadline::RUN_VARIABLE;
use crate::process::pidfd::PidFd;

/// How long to wait for the death of a killed process, in milliseconds.
const DEATH_TIMEOUT: u16 = 1000;

/// The largest number of searches. The search is repeated after a kill, because killed processes may have forked.
const MAX_SCANS: usize = 100;

/// Returns the mark by which processes of a run are recognised: the variable with the run ID, with a NUL before and
/// after it.
pub fn mark(run: &str) -> Vec<u8> {
    format!("\0{RUN_VARIABLE}={run}\0").into_bytes()
}

/// Forks a child that kills every process with this mark in a nested PID namespace, and returns its pid. Returns `None`
/// if no process could have the mark. The tree must be empty.
pub fn start_search(proc: &Proc, mark: &[u8]) -> Option<Pid> {
    let mut may_have_marked = false;
    proc.for_each_process(|number| {
        may_have_marked |= possibly_marked(proc, number).is_some();
        !may_have_marked
    });
    if !may_have_marked {
        return None;
    }
    let parent = nix::unistd::getpid();
    // SAFETY: the child only makes system calls.
    match unsafe { fork() } {
        Ok(ForkResult::Parent { child }) => Some(child),
        Ok(ForkResult::Child) => {
            let _ = prctl::set_pdeathsig(Signal::SIGKILL);
            if getppid() == parent {
                kill_marked(proc, mark);
            }
            // SAFETY: the call ends this process without running the parent's destructors and exit handlers.
            unsafe { libc::_exit(0) }
        }
        Err(_) => None,
    }
}

fn kill_marked(proc: &Proc, mark: &[u8]) {
    for _ in 0..MAX_SCANS {
        let mut found = false;
        proc.for_each_process(|number| {
            found |=
                possibly_marked(proc, number).is_some_and(|(identity, pid)| kill_if_marked(proc, mark, identity, pid));
            true
        });
        if !found {
            return;
        }
    }
}

/// Returns a process if it is younger than this process and in a nested PID namespace, so that it may have the mark.
fn possibly_marked(proc: &Proc, number: i32) -> Option<(Identity, Pid)> {
    let stat = proc.stat(number).ok().filter(|stat| stat.started >= proc.own_start() && !stat.is_dead())?;
    let numbers = proc.numbers(number).filter(|numbers| numbers.is_nested)?;
    Some((Identity { number, started: stat.started }, numbers.pid))
}

fn kill_if_marked(proc: &Proc, mark: &[u8], process: Identity, pid: Pid) -> bool {
    let Ok(fd) = PidFd::open(pid) else { return false };
    if !has_mark(proc, process.number, mark) || !proc.is_alive(process) || fd.signal(Signal::SIGKILL).is_err() {
        return false;
    }
    let _ = poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], DEATH_TIMEOUT);
    true
}

/// Returns whether the environment of a process contains the mark.
fn has_mark(proc: &Proc, number: i32, mark: &[u8]) -> bool {
    let Ok(environment) = proc.open_file(number, "environ") else { return false };
    let mut buffer = [0; 16 * 1024];
    // The first variable has no NUL before it, so the buffer begins with one.
    let mut kept = 1;
    loop {
        let length = match read(&environment, &mut buffer[kept..]) {
            Ok(length @ 1..) => kept + length,
            Ok(0) | Err(_) => return false,
        };
        if buffer[..length].windows(mark.len()).any(|window| window == mark) {
            return true;
        }
        // A mark may begin at the end of this part.
        kept = length.min(mark.len());
        buffer.copy_within(length - kept..length, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_mark_is_found_anywhere_in_an_environment() {
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
            // The child has executed the program when it answers. Only then does /proc show its environment.
            child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
            child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
            assert_eq!(has_mark(&proc, child.id() as i32, &mark("this")), expected, "{variables:?}");
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
