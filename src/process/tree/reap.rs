//! Reaps dead children.

use nix::errno::Errno;
use nix::unistd::Pid;

/// The maximum number of children that one call reaps. A command whose processes fork and end all the time must not
/// delay the caller's deadlines.
const MAX_REAPED: usize = 256;

/// The maximum number of children that one call reaps during a kill. It is larger, because the next round of the kill
/// has to go through the dead children that are left before it finds the live ones.
const MAX_REAPED_IN_KILL: usize = 4096;

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Exited(i32),
    Signaled(i32),
}

impl Ended {
    fn of(status: i32) -> Self {
        if libc::WIFEXITED(status) {
            Self::Exited(libc::WEXITSTATUS(status))
        } else {
            Self::Signaled(libc::WTERMSIG(status))
        }
    }
}

/// The children that were reaped, and whether any are left.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reaped {
    /// How the main process ended, if it did.
    pub main_ended: Option<Ended>,
    /// The signal that suspended the main process, if one did.
    pub main_suspended_by: Option<i32>,
    /// Whether at least one child has ended.
    pub any_ended: bool,
    /// Whether no child is left, dead or alive.
    pub none_left: bool,
    /// Whether more dead children may be left, for which no further SIGCHLD arrives.
    pub is_partial: bool,
}

/// Reaps a limited number of dead children of this thread. During a kill (`is_killing`) the limit is higher. Returns
/// what happened to the child `main`, and whether children are left. The function allocates no memory, because a kill
/// must not wait for memory.
pub fn reap(main: Option<Pid>, is_killing: bool) -> Reaped {
    let flags = libc::WNOHANG | libc::WUNTRACED | libc::__WALL | libc::__WNOTHREAD;
    let mut reaped = Reaped::default();
    for _ in 0..if is_killing { MAX_REAPED_IN_KILL } else { MAX_REAPED } {
        let mut status = 0;
        // nix's waitpid is not used, because it reaps a child that was killed by a real-time signal and loses its
        // status.
        // SAFETY: the kernel writes one int to `status`.
        let pid = unsafe { libc::waitpid(-1, &mut status, flags) };
        let is_main = main.is_some_and(|main| main.as_raw() == pid);
        match pid {
            0 => return reaped,
            -1 if Errno::last() == Errno::EINTR => {}
            -1 => {
                reaped.none_left = Errno::last() == Errno::ECHILD;
                return reaped;
            }
            _ if libc::WIFSTOPPED(status) => {
                if is_main {
                    reaped.main_suspended_by = Some(libc::WSTOPSIG(status));
                }
            }
            _ => {
                reaped.any_ended = true;
                if is_main {
                    reaped.main_ended = Some(Ended::of(status));
                }
            }
        }
    }
    Reaped { is_partial: true, ..reaped }
}
