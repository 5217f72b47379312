//! Forks the supervisor from the elector.

use std::io;

use nix::unistd::{ForkResult, Pid, fork, getpid};

use super::pidfd::PidFd;
use super::system_call::SystemCallError;

/// The role of this process after the fork.
#[derive(Debug)]
pub enum Role {
    /// The process that called [`fork_supervisor`].
    Elector { supervisor: PidFd },
    /// The child of the elector.
    Supervisor { elector: Pid },
}

/// Forks the supervisor. This must be called before there are other threads, so that the child may call any function.
///
/// # Errors
/// Fails if the kernel cannot create the process or the pidfd.
pub fn fork_supervisor() -> io::Result<Role> {
    let elector = getpid();
    // The error names clone, because glibc implements fork with that system call.
    // SAFETY: this process has only one thread, so the child may do everything that this process may do.
    match unsafe { fork() }.map_err(SystemCallError::of("clone"))? {
        ForkResult::Parent { child } => Ok(Role::Elector { supervisor: PidFd::open(child)? }),
        ForkResult::Child => Ok(Role::Supervisor { elector }),
    }
}
