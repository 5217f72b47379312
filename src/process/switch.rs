//! The dead-man's switch: when both of leaderrun's processes are dead, the kernel kills the command's process group.
//!
//! It is a pair of connected sockets. Only the two processes hold one end, which is closed on exec. The command
//! inherits the other end, which is set up so that the kernel sends SIGKILL to the command's process group when the
//! first end is closed. That happens when the last of the two processes has died, for whatever reason.
//!
//! It reaches the processes in the group, as long as one of them has the descriptor open. It does not reach processes
//! that have left the group, or that run as another user whom leaderrun's user may not signal.
//!
//! A pipe is not enough: the command could open its other end through /proc and write to it, which would kill the
//! command. The command's end of the sockets is at its end of file from the beginning, because the kernel sends no
//! signal while a process waits for a socket's data. Data that the command writes are never read.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, Shutdown, SockFlag, SockType, shutdown, socketpair};

use super::inherited_fd;
use super::system_call::SystemCallError;

/// The constant from <fcntl.h>, which the libc crate does not define.
const F_SETSIG: i32 = 10;

/// Both ends of the switch, before the fork of the supervisor.
#[derive(Debug)]
pub struct DeadMansSwitch {
    held: OwnedFd,
    inherited: OwnedFd,
}

impl DeadMansSwitch {
    /// Creates a switch that has no effect yet.
    ///
    /// # Errors
    /// Fails if the kernel refuses the sockets or the choice of the signal.
    pub fn new() -> io::Result<Self> {
        let (held, inherited) =
            socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)
                .map_err(SystemCallError::of("socketpair"))?;
        shutdown(held.as_raw_fd(), Shutdown::Write)?;
        let inherited = inherited_fd::move_up(inherited)?;
        // SAFETY: takes three integers.
        let signal = Errno::result(unsafe { libc::fcntl(inherited.as_raw_fd(), F_SETSIG, libc::SIGKILL) });
        signal.map_err(SystemCallError::of("fcntl"))?;
        let flags = FcntlArg::F_SETFL(OFlag::O_ASYNC | OFlag::O_NONBLOCK);
        fcntl(&inherited, flags).map_err(SystemCallError::of("fcntl"))?;
        Ok(Self { held, inherited })
    }

    /// Returns the end that must stay open as long as this process lives, and closes the command's end.
    pub fn into_held(self) -> OwnedFd {
        self.held
    }

    /// Makes the switch kill this process's group. It only makes system calls, so a forked child may call it.
    ///
    /// # Errors
    /// Fails if the kernel refuses, which is not expected.
    pub fn arm(&self) -> nix::Result<()> {
        // SAFETY: takes three integers.
        Errno::result(unsafe { libc::fcntl(self.inherited.as_raw_fd(), libc::F_SETOWN, -libc::getpgrp()) })?;
        inherited_fd::pass_on(self.inherited.as_fd())
    }
}
