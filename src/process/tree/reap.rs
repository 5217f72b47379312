//! Reaps dead children.

use nix::errno::Errno;
use nix::unistd::Pid;

/// The largest number of children that are reaped at once. A command whose processes fork and end all the time must not
/// delay the caller's deadlines.
const MAX_REAPED: usize = 256;

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Exited(i32),
    Signaled(i32),
}

/// The children that were reaped, and whether any are left.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reaped {
    pub ended: Vec<(Pid, Ended)>,
    /// Children that were stopped, with the signal.
    pub stopped: Vec<(Pid, i32)>,
    /// No child is left, dead or alive.
    pub none_left: bool,
    /// More dead children may be left. No signal arrives for them.
    pub is_partial: bool,
}

/// Reaps dead children of this thread, [`MAX_REAPED`] at most.
pub fn reap() -> Reaped {
    let flags = libc::WNOHANG | libc::WUNTRACED | libc::__WALL | libc::__WNOTHREAD;
    let mut reaped = Reaped::default();
    for _ in 0..MAX_REAPED {
        let mut status = 0;
        // nix's waitpid is not used, because it reaps a child that was killed by a real-time signal and loses its
        // status.
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
