//! The dead-man's switch: when both of leaderrun's processes are dead, the kernel kills the command's process group.
//!
//! It is a pair of connected sockets. The kernel closes the *held* socket when the last of the two processes has died:
//! only they have it open, because it is closed on exec. The *signaling* socket is set up so that the kernel then sends
//! SIGKILL to the command's process group.
//!
//! No process needs to keep the signaling socket open: its descriptor is sent over the socket itself (SCM_RIGHTS), so
//! the receive queue of the held socket contains a reference to it. When the held socket is closed, the kernel first
//! sends the signal and only then discards that queue. The command therefore needs no descriptor for the switch, and
//! cannot disable the switch by closing all inherited descriptors, as Python and Java do in their child processes.
//!
//! The switch does not kill processes that have left the process group, or that leaderrun's user may not signal.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};

use super::system_call::SystemCallError;

/// The constant from <fcntl.h>, which the libc crate does not define.
const F_SETSIG: i32 = 10;

/// The two sockets of the switch.
#[derive(Debug)]
pub struct DeadMansSwitch {
    held: OwnedFd,
    signaling: OwnedFd,
}

impl DeadMansSwitch {
    /// Creates a switch. It has no effect until it is [armed](Self::arm).
    ///
    /// # Errors
    /// Fails if the kernel refuses to create the sockets or to set their options.
    pub fn new() -> io::Result<Self> {
        let (held, signaling) =
            socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)
                .map_err(SystemCallError::of("socketpair"))?;
        // SAFETY: the call takes three integers.
        let signal = Errno::result(unsafe { libc::fcntl(signaling.as_raw_fd(), F_SETSIG, libc::SIGKILL) });
        signal.map_err(SystemCallError::of("fcntl"))?;
        let flags = FcntlArg::F_SETFL(OFlag::O_ASYNC | OFlag::O_NONBLOCK);
        fcntl(&signaling, flags).map_err(SystemCallError::of("fcntl"))?;
        let (data, passed) = ([IoSlice::new(&[0])], [signaling.as_raw_fd()]);
        sendmsg::<()>(passed[0], &data, &[ControlMessage::ScmRights(&passed)], MsgFlags::empty(), None)
            .map_err(SystemCallError::of("sendmsg"))?;
        Ok(Self { held, signaling })
    }

    /// Closes the signaling socket, and returns the held socket, which must stay open as long as this process lives.
    pub fn into_held(self) -> OwnedFd {
        self.held
    }

    /// Arms the switch for the process group of the calling process. This function only makes system calls, so a forked
    /// child may call it.
    ///
    /// # Errors
    /// Returns the error of the system call, which is not expected to fail.
    pub fn arm(&self) -> nix::Result<()> {
        // SAFETY: the call takes three integers.
        Errno::result(unsafe { libc::fcntl(self.signaling.as_raw_fd(), libc::F_SETOWN, -libc::getpgrp()) }).map(drop)
    }
}
