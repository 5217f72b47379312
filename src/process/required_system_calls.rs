//! The system calls without which leaderrun cannot run a command.
//!
//! They are tried before anything is started. If a sandbox refused one of them later, leaderrun might end while it
//! starts the command, or hold the lock without a command.

use std::ptr;

use libc::c_long;
use nix::errno::Errno;

use super::system_call::SystemCallError;

/// A system call: its name, its number and its arguments.
type Probe = (&'static str, c_long, [c_long; 4]);

/// An argument that the kernel does not accept.
const INVALID: c_long = -1;

/// A clock that can only be read with a system call.
const CPU_CLOCK: c_long = libc::CLOCK_THREAD_CPUTIME_ID as c_long;

/// The calls that are tried, with arguments that keep them from changing anything. Calls that the C library or Rust's
/// runtime also needs are omitted, because without them leaderrun could not have reached this check.
const PROBES: [Probe; 20] = [
    ("clock_gettime", libc::SYS_clock_gettime, [CPU_CLOCK, 0, 0, 0]),
    ("epoll_create1", libc::SYS_epoll_create1, [INVALID, 0, 0, 0]),
    ("epoll_ctl", libc::SYS_epoll_ctl, [INVALID, 0, 0, 0]),
    ("eventfd2", libc::SYS_eventfd2, [0, INVALID, 0, 0]),
    ("fcntl", libc::SYS_fcntl, [INVALID, 0, 0, 0]),
    ("getpid", libc::SYS_getpid, [0; 4]),
    ("getppid", libc::SYS_getppid, [0; 4]),
    ("kill", libc::SYS_kill, [0, INVALID, 0, 0]),
    ("pidfd_open", libc::SYS_pidfd_open, [INVALID, 0, 0, 0]),
    ("pipe2", libc::SYS_pipe2, [0, INVALID, 0, 0]),
    ("prctl", libc::SYS_prctl, [libc::PR_GET_DUMPABLE as c_long, 0, 0, 0]),
    ("recvfrom", libc::SYS_recvfrom, [INVALID, 0, 0, 0]),
    ("rt_sigprocmask", libc::SYS_rt_sigprocmask, [0, 0, 0, INVALID]),
    ("sendto", libc::SYS_sendto, [INVALID, 0, 0, 0]),
    ("setpgid", libc::SYS_setpgid, [0, INVALID, 0, 0]),
    ("signalfd4", libc::SYS_signalfd4, [INVALID, 0, 0, INVALID]),
    ("socketpair", libc::SYS_socketpair, [INVALID, 0, 0, 0]),
    ("timerfd_create", libc::SYS_timerfd_create, [INVALID, 0, 0, 0]),
    ("timerfd_settime", libc::SYS_timerfd_settime, [INVALID, 0, 0, 0]),
    ("wait4", libc::SYS_wait4, [0, 0, INVALID, 0]),
];

/// Probes the system calls that leaderrun cannot work without.
///
/// # Errors
/// Fails with the first call that the kernel does not support, or that a sandbox refuses.
pub fn check() -> Result<(), SystemCallError> {
    for (name, number, [first, second, third, fourth]) in PROBES {
        // SAFETY: every pointer is null, which the kernel refuses or does not use.
        let result = unsafe { libc::syscall(number, first, second, third, fourth, 0, 0) };
        check_result(name, result)?;
    }
    // Which system call `epoll_wait` makes depends on the machine and the C library, so the function itself is called.
    // SAFETY: the descriptor is invalid, so the kernel writes nothing.
    let result = unsafe { libc::epoll_wait(-1, ptr::null_mut(), 1, 0) };
    check_result("epoll_wait", result.into())
}

fn check_result(name: &'static str, result: i64) -> Result<(), SystemCallError> {
    match Errno::result(result) {
        Err(errno @ (Errno::EPERM | Errno::EACCES | Errno::ENOSYS)) => Err(SystemCallError::of(name)(errno)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_required_system_call_is_refused_on_this_machine() {
        check().unwrap();
    }
}
