//! Signals to processes of another user.
//!
//! In a container whose root user has no `CAP_KILL`, leaderrun may not signal an entry point that has changed to
//! another user. But changing the user takes `CAP_SETUID`, which leaderrun then has as well. So a child of leaderrun
//! can become the same user and signal the entry point.

use std::time::Duration;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{ForkResult, Pid, fork, getpid, getppid};

use crate::process::pidfd::PidFd;
use crate::process::priority::Priority;

/// How long a child may take. This is several times as long as the longest [kill](super::Tree::kill) takes, so a child
/// that takes longer is blocked or frozen.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Runs `action` in a child with this effective user ID, and returns its result.
///
/// # Errors
/// Returns the error from `action` or from the change of the user ID, or `EPERM` if the child cannot be created or does
/// not exit normally.
pub fn as_user(user: u32, action: impl FnOnce() -> nix::Result<()>) -> nix::Result<()> {
    let parent = getpid();
    // SAFETY: the child only makes system calls.
    match unsafe { fork() } {
        Ok(ForkResult::Parent { child }) => wait_for(child),
        Ok(ForkResult::Child) => {
            // The parent's real-time priority is not inherited.
            let _priority = Priority::acquire();
            // Only the effective user is changed, so that processes of that user cannot stop this one.
            const UNCHANGED: i32 = -1;
            // SAFETY: the call takes three integers. libc's function is not used, because it changes the users of all
            // threads.
            let changed = Errno::result(unsafe { libc::syscall(libc::SYS_setresuid, UNCHANGED, user, UNCHANGED) });
            // The change of the user would have cleared an earlier parent-death signal.
            let _ = prctl::set_pdeathsig(Signal::SIGKILL);
            let permitted = changed.and_then(|_| if getppid() == parent { action() } else { Err(Errno::ESRCH) });
            let errno = permitted.err().map_or(0, |errno| errno as i32);
            // SAFETY: `_exit` has no preconditions. The parent's exit handlers must not run here.
            unsafe { libc::_exit(errno) }
        }
        Err(_) => Err(Errno::EPERM),
    }
}

/// Waits for a child, and kills it if it does not end within [`TIMEOUT`]. Without a free descriptor, there is no
/// timeout.
fn wait_for(child: Pid) -> nix::Result<()> {
    if PidFd::open_raw(child).is_ok_and(|fd| !fd.dies_within(TIMEOUT)) {
        let _ = kill(child, Signal::SIGKILL);
    }
    let mut status = 0;
    // SAFETY: the kernel writes one int to `status`.
    while unsafe { libc::waitpid(child.as_raw(), &mut status, libc::__WALL) } == -1 {
        if Errno::last() != Errno::EINTR {
            return Err(Errno::last());
        }
    }
    match libc::WEXITSTATUS(status) {
        _ if !libc::WIFEXITED(status) => Err(Errno::EPERM),
        0 => Ok(()),
        errno => Err(Errno::from_raw(errno)),
    }
}
