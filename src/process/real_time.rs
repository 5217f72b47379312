//! The real-time priority of leaderrun's main threads while the command runs.
//!
//! If the command has hundreds of busy processes, the scheduler gives leaderrun too little CPU time to kill them. Once
//! the processes have used up a CPU limit, leaderrun gets no CPU time at all. A real-time thread is not delayed by
//! either.

use nix::errno::Errno;

/// The lowest real-time priority, which is enough to run before all ordinary threads.
const PRIORITY: i32 = 1;

/// With SCHED_RR, threads of the same priority take turns. With SCHED_FIFO, a second leaderrun would have to wait until
/// this one sleeps.
const POLICY: i32 = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;

/// The real-time priority of the thread that has acquired it. Until this value is dropped, the thread runs before all
/// ordinary threads.
#[derive(Debug)]
pub struct RealTimePriority(());

impl RealTimePriority {
    /// Gives this thread the priority. Returns `None` if this process may not do so because it lacks CAP_SYS_NICE, or
    /// if the thread already has a scheduling policy of its own.
    pub fn acquire() -> Option<Self> {
        // SAFETY: the call takes an integer; zero is this thread.
        let policy = unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) };
        if policy != i64::from(libc::SCHED_OTHER) {
            return None;
        }
        set_policy(POLICY, PRIORITY).ok().map(|()| Self(()))
    }
}

impl Drop for RealTimePriority {
    fn drop(&mut self) {
        let _ = set_policy(libc::SCHED_OTHER, 0);
    }
}

/// Sets the scheduling policy of this thread. Its nice value stays as it is.
fn set_policy(policy: i32, priority: i32) -> nix::Result<()> {
    // SAFETY: all zeros are a valid value; some C libraries have more fields.
    let mut parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    parameters.sched_priority = priority;
    // SAFETY: the kernel reads the parameters during the call; zero is this thread. Not the C library's function, which
    // musl does not have.
    let set = unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, policy, &raw const parameters) };
    Errno::result(set).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> i32 {
        // SAFETY: the call takes an integer.
        unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) as i32 }
    }

    #[test]
    fn the_policy_is_restored_when_the_priority_is_dropped() {
        let before = policy();
        if let Some(priority) = RealTimePriority::acquire() {
            assert_eq!(policy(), POLICY);
            drop(priority);
        }
        assert_eq!(policy(), before);
    }
}
