//! The dead-man's switch: when both of leaderrun's processes are dead, the kernel kills the command's process group.
//!
//! It is a pair of connected sockets. Only the two processes hold the first one, which is closed on exec. The second one
//! is set up so that the kernel sends SIGKILL to the command's process group when the first one is closed. That happens
//! when the last of the two processes has died, for whatever reason.
//!
//! No process needs to have the second socket open: it was sent through itself, so it is in the queue of the first one,
//! which the kernel empties only after the signal. Thus the command cannot use it, and whatever descriptors a command
//! closes in the processes that it starts, as Python and Java do, all of them are killed.
//!
//! It does not reach processes that have left the group, or that run as another user whom leaderrun's user may not
//! signal.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};

use super::system_call::SystemCallError;

/// The constant from <fcntl.h>, which the libc crate does not define.
const F_SETSIG: i32 = 10;

/// Both sockets of the switch.
#[derive(Debug)]
pub struct DeadMansSwitch {
    held: OwnedFd,
    signaling: OwnedFd,
}

impl DeadMansSwitch {
    /// Creates a switch that has no effect yet.
    ///
    /// # Errors
    /// Fails if the kernel refuses the sockets or the choice of the signal.
    pub fn new() -> io::Result<Self> {
        let (held, signaling) =
            socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)
                .map_err(SystemCallError::of("socketpair"))?;
        // SAFETY: takes three integers.
        let signal = Errno::result(unsafe { libc::fcntl(signaling.as_raw_fd(), F_SETSIG, libc::SIGKILL) });
        signal.map_err(SystemCallError::of("fcntl"))?;
        let flags = FcntlArg::F_SETFL(OFlag::O_ASYNC | OFlag::O_NONBLOCK);
        fcntl(&signaling, flags).map_err(SystemCallError::of("fcntl"))?;
        let (data, passed) = ([IoSlice::new(&[0])], [signaling.as_raw_fd()]);
        sendmsg::<()>(passed[0], &data, &[ControlMessage::ScmRights(&passed)], MsgFlags::empty(), None)
            .map_err(SystemCallError::of("sendmsg"))?;
        Ok(Self { held, signaling })
    }

    /// Returns the socket that must stay open as long as this process lives, and closes the other one.
    pub fn into_held(self) -> OwnedFd {
        self.held
    }

    /// Makes the switch kill this process's group. It only makes a system call, so a forked child may call it.
    ///
    /// # Errors
    /// Fails if the kernel refuses, which is not expected.
    pub fn arm(&self) -> nix::Result<()> {
        // SAFETY: takes three integers.
        Errno::result(unsafe { libc::fcntl(self.signaling.as_raw_fd(), libc::F_SETOWN, -libc::getpgrp()) }).map(drop)
    }
}
