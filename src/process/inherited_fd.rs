//! Descriptors that the command inherits.

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use super::system_call::SystemCallError;

/// The lowest number that an inherited descriptor should have, because shells use lower ones.
const LOWEST: RawFd = 10;

/// Moves a descriptor out of the range that shells use, if the limit on open files permits it. It remains
/// close-on-exec.
///
/// # Errors
/// Fails if the kernel refuses for a reason other than that limit.
pub fn move_up(fd: OwnedFd) -> io::Result<OwnedFd> {
    match fcntl(&fd, FcntlArg::F_DUPFD_CLOEXEC(LOWEST)) {
        // SAFETY: the kernel has just created this descriptor, and nothing else owns it.
        Ok(number) => Ok(unsafe { OwnedFd::from_raw_fd(number) }),
        Err(Errno::EINVAL | Errno::EMFILE) => Ok(fd),
        Err(errno) => Err(SystemCallError::of("fcntl")(errno).into()),
    }
}

/// Keeps a descriptor open across an exec. It only makes a system call, so a forked child may call it.
///
/// # Errors
/// Returns the error of the system call, which is not expected to fail.
pub fn pass_on(fd: BorrowedFd<'_>) -> nix::Result<()> {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).map(drop)
}
