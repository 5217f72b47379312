//! The dead-man's switch: when both of leaderrun's processes are gone, the kernel kills the command's process group.
//!
//! It is a pair of connected sockets. Only the two processes hold one end of it, which is closed on exec. The command
//! inherits the other one, which is set up so that the kernel sends SIGKILL to the command's process group when the
//! first end is closed: when the last of the two has died, however that came about.
//!
//! It reaches what is in the process group, as long as one process there has the descriptor open. What has left the
//! group is not reached, nor what runs as another user whom the user of leaderrun may not signal.
//!
//! Sockets rather than a pipe, whose other end the command could open through /proc and write to, which would kill it.
//! What the command reads has ended from the beginning: the kernel sends no signal while somebody waits for a socket's
//! data. What it writes is never read.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, Shutdown, SockFlag, SockType, shutdown, socketpair};

use super::inherited_fd;
use super::system_call::SystemCallError;

/// From <fcntl.h>; the libc crate does not have it.
const F_SETSIG: i32 = 10;

/// Both ends, before the two processes part.
#[derive(Debug)]
pub struct DeadMansSwitch {
    held: OwnedFd,
    inherited: OwnedFd,
}

impl DeadMansSwitch {
    /// Makes a switch that has no effect yet.
    ///
    /// # Errors
    /// When the kernel gives no sockets, or cannot send a signal of our choice.
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

    /// Returns the end that has to stay open as long as this process lives, and closes the command's.
    pub fn into_held(self) -> OwnedFd {
        self.held
    }

    /// Makes the switch kill this process's group. Only system calls: it is for a forked child.
    ///
    /// # Errors
    /// When the kernel refuses; it has no reason to.
    pub fn arm(&self) -> nix::Result<()> {
        // SAFETY: takes three integers.
        Errno::result(unsafe { libc::fcntl(self.inherited.as_raw_fd(), libc::F_SETOWN, -libc::getpgrp()) })?;
        inherited_fd::pass_on(self.inherited.as_fd())
    }
}
