//! Descriptors that the command inherits.

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use super::system_call::SystemCallError;

/// Shells use the descriptors below for themselves.
const LOWEST: RawFd = 10;

/// Moves a descriptor out of the range that shells use, where the limit of open files allows it. It stays close-on-exec.
///
/// # Errors
/// When the limit of open files is reached.
pub fn move_up(fd: OwnedFd) -> io::Result<OwnedFd> {
    match fcntl(&fd, FcntlArg::F_DUPFD_CLOEXEC(LOWEST)) {
        // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
        Ok(number) => Ok(unsafe { OwnedFd::from_raw_fd(number) }),
        Err(Errno::EINVAL | Errno::EMFILE) => Ok(fd),
        Err(errno) => Err(SystemCallError::of("fcntl")(errno).into()),
    }
}

/// Lets a forked child pass a descriptor on to what it executes. Only a system call.
///
/// # Errors
/// When the kernel refuses; it has no reason to.
pub fn pass_on(fd: BorrowedFd<'_>) -> nix::Result<()> {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).map(drop)
}
