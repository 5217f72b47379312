//! Finds and kills processes of the command that left the tree before they were seen in it.
//!
//! In a PID namespace that another program has created (`nsenter`, `runc exec`), orphans become children of the init
//! process of that namespace. Such processes are recognized by the run ID in their environment. Reading the environment
//! can block while the kernel waits for a page of that process, so a child process reads it. The child is part of the
//! tree until it ends.

use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{ForkResult, Pid, fork, getppid, read};

use super::not_nested::NotNested;
use super::proc::{Identity, Listed, Proc};
use crate::process::deadline::RUN_VARIABLE;
use crate::process::pidfd::PidFd;

/// How long to wait for the death of a killed process, in milliseconds.
const DEATH_TIMEOUT: u16 = 1000;

/// The maximum number of scans. The scan is repeated after a kill, because killed processes may have forked.
const MAX_SCANS: usize = 100;

/// Returns the tag by which processes of a run are recognized in their environment: the variable with the run ID, with
/// a NUL before and after it.
pub fn tag(run: &str) -> Vec<u8> {
    format!("\0{RUN_VARIABLE}={run}\0").into_bytes()
}

/// Forks a child that kills every process with this tag in a nested PID namespace, and returns the child's pid. Returns
/// `None` if no process could have the tag, or if the kernel refuses the fork. The tree must be empty.
pub fn start_killing(proc: &Proc, not_nested: &NotNested, tag: &[u8]) -> Option<Pid> {
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
        Ok(ForkResult::Parent { child }) => Some(child),
        Ok(ForkResult::Child) => {
            let _ = prctl::set_pdeathsig(Signal::SIGKILL);
            if getppid() == parent {
                kill_tagged(proc, tag);
            }
            // SAFETY: the call ends this process without running the parent's destructors and exit handlers.
            unsafe { libc::_exit(0) }
        }
        Err(_) => None,
    }
}

fn kill_tagged(proc: &Proc, tag: &[u8]) {
    for _ in 0..MAX_SCANS {
        let mut found = false;
        proc.for_each_process(|Listed { number, .. }| {
            found |=
                possibly_tagged(proc, number).is_some_and(|(identity, pid)| kill_if_tagged(proc, tag, identity, pid));
            true
        });
        if !found {
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

/// Kills a process if it has the tag, and waits for its death. Returns whether it was killed.
fn kill_if_tagged(proc: &Proc, tag: &[u8], process: Identity, pid: Pid) -> bool {
    let Ok(fd) = PidFd::open(pid) else { return false };
    if !has_tag(proc, process.number, tag) || !proc.is_alive(process) || fd.signal(Signal::SIGKILL).is_err() {
        return false;
    }
    let _ = poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], DEATH_TIMEOUT);
    true
}

/// Returns whether the environment of a process contains the tag.
fn has_tag(proc: &Proc, number: i32, tag: &[u8]) -> bool {
    let Ok(environment) = proc.open_file(number, "environ") else { return false };
    let mut buffer = [0; 16 * 1024];
    // The first variable has no NUL before it, so the buffer begins with one.
    let mut kept = 1;
    loop {
        let length = match read(&environment, &mut buffer[kept..]) {
            Ok(length @ 1..) => kept + length,
            Ok(0) | Err(_) => return false,
        };
        if buffer[..length].windows(tag.len()).any(|window| window == tag) {
            return true;
        }
        // The tag may begin at the end of this part.
        kept = length.min(tag.len());
        buffer.copy_within(length - kept..length, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::process::{Command, Stdio};

    use super::*;

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
            assert_eq!(has_tag(&proc, child.id() as i32, &tag("this")), expected, "{variables:?}");
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
