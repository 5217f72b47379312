//! One process becomes two.

use std::io;

use nix::unistd::{ForkResult, Pid, fork, getpid};

use super::pidfd::PidFd;

/// Which of the two processes this is.
#[derive(Debug)]
pub enum Side {
    /// The one that was there before.
    Outer { inner: PidFd },
    /// The new one, its child.
    Inner { outer: Pid },
}

/// Forks. To be called before there are threads: afterwards each side may do whatever it wants.
///
/// # Errors
/// When the kernel gives no process or no pidfd.
pub fn part() -> io::Result<Side> {
    let outer = getpid();
    // SAFETY: this process has one thread, so the child may do whatever this one may.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(Side::Outer { inner: PidFd::open(child)? }),
        ForkResult::Child => Ok(Side::Inner { outer }),
    }
}
