//! Reaping dead children.

use nix::errno::Errno;
use nix::unistd::Pid;

/// How many children are reaped at once. A command whose processes fork and end all the time must not keep the caller
/// from its deadlines.
const MAX_REAPED: usize = 256;

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
    /// No child is left, dead or alive.
    pub none_left: bool,
    /// There may be more to reap: no signal will say so.
    pub is_partial: bool,
}

/// Reaps dead children of this thread, a limited number of them.
pub fn reap() -> Reaped {
    let flags = libc::WNOHANG | libc::WUNTRACED | libc::__WALL | libc::__WNOTHREAD;
    let mut reaped = Reaped::default();
    for _ in 0..MAX_REAPED {
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
    Reaped { is_partial: true, ..reaped }
}
