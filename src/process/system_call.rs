//! The errors from system calls that leaderrun cannot work without. Their messages suggest a remedy.

use std::error::Error;
use std::fmt;
use std::io;
use std::num::NonZeroUsize;

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// The default size of a thread's stack in Rust. The C library maps a little more than that.
const STACK: NonZeroUsize = NonZeroUsize::new(2 << 20).expect("the size is not zero");

/// The error from a system call that leaderrun needs.
#[derive(Debug)]
pub struct SystemCallError {
    /// The name of the call, as in seccomp profiles.
    call: &'static str,
    cause: io::Error,
}

impl SystemCallError {
    /// Returns a function for `map_err` that turns a failure of this system call into an error.
    pub fn of<E: Into<io::Error>>(call: &'static str) -> impl FnOnce(E) -> Self {
        move |cause| Self { call, cause: cause.into() }
    }

    /// Returns the error for a thread that could not be started. The C library also returns EAGAIN if there was no
    /// memory for the stack, so this function tries to map a stack to find the cause.
    pub fn of_thread(cause: io::Error) -> Self {
        let is_eagain = cause.raw_os_error() == Some(Errno::EAGAIN as i32);
        match map_stack() {
            Err(errno) if is_eagain => Self::of("mmap")(errno),
            _ => Self::of("clone3")(cause),
        }
    }

    /// Returns whether the call always fails, because the kernel does not support it or a sandbox refuses it.
    pub fn is_permanent(&self) -> bool {
        matches!(self.errno(), Errno::EPERM | Errno::EACCES | Errno::ENOSYS | Errno::EINVAL)
    }

    /// Returns the reason for the failure.
    pub fn errno(&self) -> Errno {
        self.cause.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw)
    }
}

impl fmt::Display for SystemCallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = match self.errno() {
            Errno::UnknownErrno => self.cause.to_string(),
            // nix describes it as "Try again", which does not name the cause.
            Errno::EAGAIN => "Resource temporarily unavailable".to_owned(),
            errno => errno.desc().to_owned(),
        };
        write!(f, "the system call {} failed: {reason}", self.call)?;
        f.write_str(match self.errno() {
            Errno::EPERM | Errno::EACCES => {
                "; allow it in the seccomp profile of the container or in SystemCallFilter= of the unit, or use a newer \
                 container runtime"
            }
            Errno::ENOSYS | Errno::EINVAL => {
                "; use Linux 5.4 or later, and a sandbox or container runtime that supports this system call"
            }
            Errno::EMFILE => "; raise the limit on open files, for example with ulimit -n 1024",
            Errno::ENFILE => "; raise fs.file-max, or close files elsewhere",
            Errno::EAGAIN => "; raise the process limit (ulimit -u, TasksMax of the unit, or pids.max of the cgroup)",
            Errno::EFBIG => "; raise the file size limit (ulimit -f, or LimitFSIZE of the unit)",
            Errno::ENOMEM => {
                "; free memory, or raise the memory limit (ulimit -d, ulimit -v, or the limit of the unit or container)"
            }
            _ => "",
        })
    }
}

/// Maps as much memory as a thread needs for its stack, and unmaps it.
fn map_stack() -> nix::Result<()> {
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: this is a new mapping at an address of the kernel's choice, and nothing else uses it.
    unsafe { munmap(mmap_anonymous(None, STACK, protection, MapFlags::MAP_PRIVATE)?, STACK.get()) }
}

impl Error for SystemCallError {}

impl From<SystemCallError> for io::Error {
    fn from(error: SystemCallError) -> Self {
        Self::new(error.cause.kind(), error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_names_the_call_and_suggests_a_remedy() {
        let error = SystemCallError::of("pidfd_open")(Errno::EPERM);
        assert!(error.is_permanent());
        assert_eq!(
            error.to_string(),
            "the system call pidfd_open failed: Operation not permitted; allow it in the seccomp profile of the container \
             or in SystemCallFilter= of the unit, or use a newer container runtime"
        );
        let error = SystemCallError::of("fork")(io::Error::from(Errno::EAGAIN));
        assert!(!error.is_permanent());
        assert!(error.to_string().contains("Resource temporarily unavailable; raise the process limit"), "{error}");
    }
}
