//! The search for processes of the command that left the tree before they were seen there.
//!
//! In a PID namespace that another program has created (`nsenter`, `runc exec`), orphans are reparented to that
//! namespace's init instead of to us. They are identified by the run ID in their environment. Reading it can block
//! while the kernel waits for a page of that process, so a separate process reads it. As a child of ours it is part of
//! the tree until it ends.

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

/// The largest number of times that all processes are read, because killed processes may have forked before.
const MAX_SCANS: usize = 100;

/// Returns the mark of a run: its variable in an environment, with a NUL before and after it.
pub fn mark(run: &str) -> Vec<u8> {
    format!("\0{RUN_VARIABLE}={run}\0").into_bytes()
}

/// Forks a child that kills every process with this mark in a PID namespace below ours, and returns its pid. Returns
/// `None` if no process can be one of them. The tree below us must be empty.
pub fn start_search(proc: &Proc, mark: &[u8]) -> Option<Pid> {
    let mut has_suspects = false;
    proc.for_each_process(|number| {
        has_suspects |= suspect(proc, number).is_some();
        !has_suspects
    });
    if !has_suspects {
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
            // SAFETY: ends this process without running what belongs to its parent.
            unsafe { libc::_exit(0) }
        }
        Err(_) => None,
    }
}

fn kill_marked(proc: &Proc, mark: &[u8]) {
    for _ in 0..MAX_SCANS {
        let mut found = false;
        proc.for_each_process(|number| {
            found |= suspect(proc, number).is_some_and(|(identity, pid)| kill_if_marked(proc, mark, identity, pid));
            true
        });
        if !found {
            return;
        }
    }
}

/// Returns a process if it is younger than this one and in a PID namespace below ours.
fn suspect(proc: &Proc, number: i32) -> Option<(Identity, Pid)> {
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
    let Ok(environment) = proc.open_of(number, "environ") else { return false };
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
        // The next part may complete a mark.
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
    fn a_mark_is_found_wherever_it_is() {
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
            // /proc shows the environment only some time after the execution has begun.
            child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
            child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
            assert_eq!(has_mark(&proc, child.id() as i32, &mark("this")), expected, "{variables:?}");
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
