//! The scheduling of the threads that must not be delayed while the command is running.
//!
//! If the command has hundreds of busy threads, or has used up its CPU limit, an ordinary thread may have to wait for
//! seconds after it is woken, so leaderrun could not kill the command in time.

use std::mem;

use nix::errno::Errno;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

/// The lowest real-time priority, which is enough to run before all ordinary threads.
const REAL_TIME_PRIORITY: i32 = 1;

/// With SCHED_RR, threads of the same priority take turns. With SCHED_FIFO, a second leaderrun would have to wait until
/// this one sleeps. SCHED_RESET_ON_FORK gives new threads and processes the default policy.
const REAL_TIME_POLICY: i32 = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;

/// The shortest time slice that the kernel grants, in nanoseconds. The default is about 3 ms.
const SHORT_TIME_SLICE: u64 = 100_000;

/// A change to the scheduling of the current thread that makes it run soon after it is woken. Dropping the value, which
/// must happen in the same thread, restores the default policy or time slice.
#[derive(Debug)]
pub enum Priority {
    /// The thread runs before all ordinary threads.
    RealTime,
    /// The thread has a short time slice. Of the threads that have had less than their share of CPU time, the scheduler
    /// runs the one with the earliest virtual deadline, which a short slice brings forward. Linux 6.12 and later let
    /// every process choose a short slice; earlier kernels ignore it.
    ShortTimeSlice,
}

impl Priority {
    /// Gives the calling thread a real-time priority. If the kernel refuses that, for example because this process
    /// lacks CAP_SYS_NICE, or if RLIMIT_RTTIME is set, the thread gets a short time slice instead. Returns `None` if
    /// nothing was changed, because the thread does not have the default scheduling policy or the kernel refused both.
    pub fn acquire() -> Option<Self> {
        // SAFETY: the call takes an integer; zero means this thread.
        let policy = unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) };
        if policy != i64::from(libc::SCHED_OTHER) {
            return None;
        }
        if !has_rttime_limit() && set_policy(REAL_TIME_POLICY, REAL_TIME_PRIORITY).is_ok() {
            return Some(Self::RealTime);
        }
        Self::acquire_short_time_slice()
    }

    /// Gives the calling thread, which must not have a real-time policy, a short time slice, if the kernel permits it.
    pub fn acquire_short_time_slice() -> Option<Self> {
        set_time_slice(SHORT_TIME_SLICE).ok().map(|()| Self::ShortTimeSlice)
    }
}

impl Drop for Priority {
    fn drop(&mut self) {
        let _ = match self {
            Self::RealTime => set_policy(libc::SCHED_OTHER, 0),
            Self::ShortTimeSlice => set_time_slice(0),
        };
    }
}

/// Gives the calling thread, which must not have a real-time policy, the default time slice, in case it inherited a
/// short one from the thread that started it. With a short one, long computations in this thread and its children would
/// spend more CPU time on context switches.
pub fn reset_time_slice() {
    let _ = set_time_slice(0);
}

/// Returns whether the kernel limits how long a real-time thread may run without sleeping, and signals or kills the
/// process after that. Killing many processes can take longer than such a limit.
fn has_rttime_limit() -> bool {
    getrlimit(Resource::RLIMIT_RTTIME).is_ok_and(|(soft, hard)| soft.min(hard) != RLIM_INFINITY)
}

/// Sets the scheduling policy of the calling thread. Its nice value stays as it is.
fn set_policy(policy: i32, priority: i32) -> nix::Result<()> {
    // SAFETY: all fields are integers, so zeros are valid. The value is zeroed, because musl declares more fields than
    // glibc.
    let mut parameters: libc::sched_param = unsafe { mem::zeroed() };
    parameters.sched_priority = priority;
    // SAFETY: the kernel reads the parameters during the call; zero means this thread. The C library's function is
    // not used, because it always fails in musl.
    let result = unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, policy, &raw const parameters) };
    Errno::result(result).map(drop)
}

/// The argument of sched_setattr(2) and sched_getattr(2), in its first version.
#[repr(C)]
#[derive(Debug, Default)]
struct SchedulingAttributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    /// For a thread without a real-time policy: its time slice in nanoseconds.
    runtime: u64,
    deadline: u64,
    period: u64,
}

impl SchedulingAttributes {
    fn of_this_thread() -> nix::Result<Self> {
        let mut attributes = Self::default();
        let size = mem::size_of::<Self>();
        // SAFETY: the kernel writes at most `size` bytes during the call; the first zero means this thread.
        let result = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
        Errno::result(result).map(|_| attributes)
    }
}

/// Sets the time slice of the calling thread, which must not have a real-time policy; zero means the default.
fn set_time_slice(nanos: u64) -> nix::Result<()> {
    let attributes = SchedulingAttributes { runtime: nanos, ..SchedulingAttributes::of_this_thread()? };
    // SAFETY: the kernel reads the attributes during the call; the zeros mean this thread and no flags.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    Errno::result(result).map(drop)
}

#[cfg(test)]
mod tests {
    use nix::sys::resource::setrlimit;

    use super::*;

    fn policy() -> i32 {
        // SAFETY: the call takes an integer.
        unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) as i32 }
    }

    #[test]
    fn the_policy_is_restored_when_the_priority_is_dropped() {
        let before = policy();
        if let Some(priority) = Priority::acquire() {
            let expected = if matches!(priority, Priority::RealTime) { REAL_TIME_POLICY } else { before };
            assert_eq!(policy(), expected);
            drop(priority);
        }
        assert_eq!(policy(), before);
    }

    #[test]
    fn no_real_time_priority_is_acquired_if_rlimit_rttime_is_set() {
        let (soft, hard) = getrlimit(Resource::RLIMIT_RTTIME).unwrap();
        let an_hour = 3_600_000_000;
        setrlimit(Resource::RLIMIT_RTTIME, an_hour.min(hard), hard).unwrap();
        let priority = Priority::acquire();
        setrlimit(Resource::RLIMIT_RTTIME, soft, hard).unwrap();
        assert!(!matches!(priority, Some(Priority::RealTime)));
    }

    #[test]
    fn a_short_time_slice_changes_nothing_else_and_is_undone() {
        let attributes = || SchedulingAttributes::of_this_thread().unwrap();
        let before = attributes();
        set_time_slice(SHORT_TIME_SLICE).unwrap();
        let short = attributes();
        assert_eq!((short.policy, short.flags, short.nice), (before.policy, before.flags, before.nice));
        // Kernels before 6.12 show no time slice.
        assert!(short.runtime == SHORT_TIME_SLICE || before.runtime == 0, "{short:?}");
        drop(Priority::ShortTimeSlice);
        assert_eq!(attributes().runtime, before.runtime);
    }
}
