//! References to other processes that stay valid when their pids are reused.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::system_call::SystemCallError;

/// A descriptor of a process. It becomes readable when the process is dead.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    /// Opens the process that has this pid now. The caller must make sure that the pid has not been reused.
    ///
    /// # Errors
    /// Fails if there is no such process or no free descriptor, or if the kernel has no pidfds (before Linux 5.3). The
    /// error's message can be shown to users.
    pub fn open(pid: Pid) -> io::Result<Self> {
        Ok(Self::open_raw(pid).map_err(SystemCallError::of("pidfd_open"))?)
    }

    /// Like [`open`](Self::open), but returns the bare error number.
    ///
    /// # Errors
    /// Returns the error of the system call: `ESRCH` if there is no such process.
    pub fn open_raw(pid: Pid) -> nix::Result<Self> {
        // SAFETY: the call takes two integers and returns a new descriptor, close-on-exec, or -1.
        let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
        // SAFETY: the kernel has just created this descriptor, and nothing else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
    }

    /// Sends a signal to the process.
    ///
    /// # Errors
    /// Fails if the process has been reaped, or the signal is not permitted.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let no_info = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: a null siginfo is allowed and makes this like kill(2).
        match unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), signal as i32, no_info, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Returns whether the process is dead. A zombie is dead.
    pub fn is_dead(&self) -> bool {
        self.dies_within(Duration::ZERO)
    }

    /// Waits until the process is dead, but not longer than `timeout`. Returns whether it is dead.
    pub fn dies_within(&self, timeout: Duration) -> bool {
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        matches!(poll(&mut [PollFd::new(self.as_fd(), PollFlags::POLLIN)], timeout), Ok(1))
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
