//! The fork of the supervisor by the elector.

use std::io;

use nix::unistd::{ForkResult, Pid, fork, getpid};

use super::pidfd::PidFd;
use super::system_call::SystemCallError;

/// The role of this process after the fork.
#[derive(Debug)]
pub enum Role {
    /// The process that existed before.
    Elector { supervisor: PidFd },
    /// The child of the elector.
    Supervisor { elector: Pid },
}

/// Forks the supervisor. It must be called before threads exist, so that the child may make any call.
///
/// # Errors
/// Fails if the kernel refuses a process or a pidfd.
pub fn fork_supervisor() -> io::Result<Role> {
    let elector = getpid();
    // SAFETY: this process has one thread, so the child may do whatever this one may.
    match unsafe { fork() }.map_err(SystemCallError::of("clone"))? {
        ForkResult::Parent { child } => Ok(Role::Elector { supervisor: PidFd::open(child)? }),
        ForkResult::Child => Ok(Role::Supervisor { elector }),
    }
}
