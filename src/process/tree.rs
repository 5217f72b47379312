//! The processes below this one, and how to have none of them left.
//!
//! The caller is a subreaper (or PID 1): when a process below it dies, that process's children become
//! the caller's own. So killing the direct children, reaping them, and looking again ends the whole
//! tree, whatever sessions and process groups it hides in; and every pid that is signalled is an
//! unreaped child of the caller, which cannot have been used again.
//!
//! Children of *other threads* of the caller, such as credential plugins, are not part of the tree.

use std::fs;
use std::io;
use std::path::Path;
use std::str::FromStr;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid};

/// Makes the orphans below this process its children, rather than those of PID 1.
///
/// # Errors
/// When the kernel refuses; it has no reason to.
pub fn adopt_orphans() -> io::Result<()> {
    Ok(prctl::set_child_subreaper(true)?)
}

/// Says whether this process can see its children, without which it cannot kill a tree.
///
/// # Errors
/// A sentence for people.
pub fn check() -> Result<(), String> {
    children().map(drop).map_err(|error| {
        format!(
            "cannot list child processes in /proc ({error}); mount /proc, and use a kernel with CONFIG_PROC_CHILDREN"
        )
    })
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Exited(i32),
    Signaled(i32),
}

/// What there was to reap, and whether anything is left.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reaped {
    pub ended: Vec<(Pid, Ended)>,
    /// Children that were stopped, and by which signal.
    pub stopped: Vec<(Pid, i32)>,
    /// No child is left, dead or alive: the tree is empty.
    pub none_left: bool,
}

/// Reaps every dead child of this thread.
pub fn reap() -> Reaped {
    let flags = libc::WNOHANG | libc::WUNTRACED | libc::__WALL | libc::__WNOTHREAD;
    let mut reaped = Reaped::default();
    loop {
        let mut status = 0;
        // Not nix's waitpid: it reaps a child that a real-time signal killed, and loses its status.
        // SAFETY: the kernel writes one int to where it may.
        match unsafe { libc::waitpid(-1, &mut status, flags) } {
            0 => return reaped,
            -1 if Errno::last() == Errno::EINTR => {}
            -1 => {
                reaped.none_left = Errno::last() == Errno::ECHILD;
                return reaped;
            }
            pid if libc::WIFSTOPPED(status) => reaped.stopped.push((Pid::from_raw(pid), libc::WSTOPSIG(status))),
            pid if libc::WIFEXITED(status) => {
                reaped.ended.push((Pid::from_raw(pid), Ended::Exited(libc::WEXITSTATUS(status))));
            }
            pid => reaped.ended.push((Pid::from_raw(pid), Ended::Signaled(libc::WTERMSIG(status)))),
        }
    }
}

/// Sends a signal to every child of this thread, and returns to which it could not be sent.
///
/// # Errors
/// When the children cannot be listed.
pub fn signal_children(signal: Signal) -> io::Result<Vec<(Pid, Errno)>> {
    let refused = children()?.into_iter().filter_map(|child| match kill(child, signal) {
        Ok(()) | Err(Errno::ESRCH) => None,
        Err(errno) => Some((child, errno)),
    });
    Ok(refused.collect())
}

/// SIGKILL to the children of the other threads, such as a credential plugin that hangs. For the end, when nobody waits
/// for them any more.
pub fn kill_helpers() {
    let this = fs::read_link("/proc/thread-self").unwrap_or_default();
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    for other in threads.filter(|thread| this.file_name() != Some(&thread.file_name())) {
        for child in children_in(&other.path().join("children")).unwrap_or_default() {
            let _ = kill(child, Signal::SIGKILL);
        }
    }
}

/// The children of this thread, dead ones that nobody reaped included.
///
/// # Errors
/// When /proc does not tell.
pub fn children() -> io::Result<Vec<Pid>> {
    children_in(Path::new("/proc/thread-self/children"))
}

fn children_in(list: &Path) -> io::Result<Vec<Pid>> {
    let pids: Vec<Pid> = fs::read_to_string(list)?
        .split_ascii_whitespace()
        .filter_map(|pid| pid.parse().ok().map(Pid::from_raw))
        .collect();
    let our_pid_in_proc = fs::read_link("/proc/self")?;
    if our_pid_in_proc.to_str() == Some(&getpid().to_string()) {
        return Ok(pids);
    }
    // This /proc belongs to an outer PID namespace and calls everybody by other numbers.
    let level = namespaced_pids("self")?.len() - 1;
    let ours = pids.iter().filter_map(|pid| namespaced_pids(pid).ok()?.get(level).copied());
    Ok(ours.map(Pid::from_raw).collect())
}

/// The processes below this one, a few of them, for people: by names of their own choice, and with the
/// numbers that /proc has.
pub fn names() -> String {
    const MOST: usize = 8;
    let words = |path: String| -> Vec<String> {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.split_ascii_whitespace().map(str::to_owned).collect()
    };
    let mut pids = words("/proc/thread-self/children".to_owned());
    let mut next = 0;
    while next < pids.len() && pids.len() <= MOST {
        let threads = fs::read_dir(format!("/proc/{}/task", pids[next])).into_iter().flatten().flatten();
        let children = threads.flat_map(|thread| words(format!("{}/children", thread.path().display())));
        pids.extend(children.collect::<Vec<_>>());
        next += 1;
    }
    let name = |pid: &String| format!("{} ({pid})", words(format!("/proc/{pid}/comm")).join(" "));
    let more = if pids.len() > MOST { " and more" } else { "" };
    pids.iter().take(MOST).map(name).collect::<Vec<_>>().join(", ") + more
}

/// What a process is called in each PID namespace, from the one of /proc inwards.
fn namespaced_pids(process: impl std::fmt::Display) -> io::Result<Vec<i32>> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    let pids: Vec<i32> = line.split_ascii_whitespace().filter_map(|pid| i32::from_str(pid).ok()).collect();
    if pids.is_empty() { Err(io::Error::other("no NSpid in /proc")) } else { Ok(pids) }
}
