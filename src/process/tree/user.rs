//! Signals to processes of another user.
//!
//! In a container whose root user has no `CAP_KILL`, an entry point that changes to another user cannot be signaled.
//! But the entry point needed `CAP_SETUID` for that, so a child of leaderrun can become the same user and signal the
//! entry point.

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{ForkResult, Pid, fork};

/// Runs `action` in a child with this user ID, and returns its result.
///
/// # Errors
/// Returns the error from `action` or from the change of the user ID, or `EPERM` if the child cannot be created or does
/// not exit normally.
pub fn as_user(user: u32, action: impl FnOnce() -> nix::Result<()>) -> nix::Result<()> {
    // SAFETY: the child only makes system calls.
    match unsafe { fork() } {
        Ok(ForkResult::Parent { child }) => wait_for(child),
        Ok(ForkResult::Child) => {
            let _ = prctl::set_pdeathsig(Signal::SIGKILL);
            // SAFETY: the call takes three integers. libc's function is not used, because it changes the users of all
            // threads.
            let changed = Errno::result(unsafe { libc::syscall(libc::SYS_setresuid, user, user, user) });
            let errno = changed.and_then(|_| action()).err().map_or(0, |errno| errno as i32);
            // SAFETY: the call ends this process without running the exit handlers that were inherited from the parent.
            unsafe { libc::_exit(errno) }
        }
        Err(_) => Err(Errno::EPERM),
    }
}

/// Waits for a child. The child ends soon, because it only makes system calls that do not block.
fn wait_for(child: Pid) -> nix::Result<()> {
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
