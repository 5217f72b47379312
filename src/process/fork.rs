//! One process becomes two: the elector forks the supervisor.

use std::io;

use nix::unistd::{ForkResult, Pid, fork, getpid};

use super::pidfd::PidFd;
use super::system_call::SystemCallError;

/// Which of the two processes this is.
#[derive(Debug)]
pub enum Role {
    /// The process that was there before.
    Elector { supervisor: PidFd },
    /// Its child.
    Supervisor { elector: Pid },
}

/// Forks the supervisor. Must be called before there are threads: afterwards each process may do whatever it wants.
///
/// # Errors
/// When the kernel gives no process or no pidfd.
pub fn fork_supervisor() -> io::Result<Role> {
    let elector = getpid();
    // SAFETY: this process has one thread, so the child may do whatever this one may.
    match unsafe { fork() }.map_err(SystemCallError::of("clone"))? {
        ForkResult::Parent { child } => Ok(Role::Elector { supervisor: PidFd::open(child)? }),
        ForkResult::Child => Ok(Role::Supervisor { elector }),
    }
}
