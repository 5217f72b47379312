//! The processes that are known not to be in a nested PID namespace. The search for [escaped](super::escaped) processes
//! skips them.
//!
//! That search delays the release of the lock, and checking the namespace of every process takes most of its time. A
//! process never leaves its namespace, so most processes are checked in advance.

use leaderrun_core::instant::Instant;

use super::proc::{Listed, Proc};
use crate::process::clock;

/// The maximum number of processes that are remembered. Each search checks every process that is not among them.
const CAPACITY: usize = 4096;

/// The processes in /proc that are known not to be in a nested PID namespace.
#[derive(Debug, Default)]
pub struct NotNested {
    /// In ascending order.
    processes: Vec<Listed>,
}

impl NotNested {
    /// Checks the processes that are not known yet, and forgets those that have ended. Ends early at `until` or when
    /// [`CAPACITY`] is reached. In that case, also forgets the processes that it has not reached.
    pub fn update(&mut self, proc: &Proc, until: Option<Instant>) {
        let mut processes = Vec::with_capacity(self.processes.len());
        let listing = proc.for_each_process(|process| {
            // If the PID is reused before the check, the new process's /proc directory has a different inode, so the
            // two processes are not confused.
            if self.contains(process) || proc.is_in_own_namespace(process.number) {
                processes.push(process);
            }
            processes.len() < CAPACITY && until.is_none_or(|until| clock::now() < until)
        });
        if listing.is_ok() {
            self.processes = processes;
        }
    }

    /// Returns whether the process is known not to be in a nested PID namespace.
    pub fn contains(&self, process: Listed) -> bool {
        self.processes.binary_search(&process).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::mem;
    use std::process::Command;

    use nix::errno::Errno;
    use nix::sys::signal::{Signal, kill};
    use nix::sys::wait::waitpid;
    use nix::unistd::{Pid, pause};

    use super::*;

    fn listed(proc: &Proc, pid: i32) -> Listed {
        let mut found = None;
        proc.for_each_process(|process| {
            found = Some(process).filter(|process| process.number == pid);
            found.is_none()
        })
        .unwrap();
        found.expect("the process exists")
    }

    /// Forks a child with this PID. Returns false if this process is not permitted to choose PIDs.
    fn fork_with_pid(pid: i32) -> bool {
        // SAFETY: all zeros are a valid value.
        let mut arguments: libc::clone_args = unsafe { mem::zeroed() };
        arguments.exit_signal = libc::SIGCHLD as u64;
        (arguments.set_tid, arguments.set_tid_size) = (&raw const pid as u64, 1);
        // SAFETY: the kernel reads the arguments during the call. The child has a copy of the stack, and only waits.
        match unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of_val(&arguments)) } {
            0 => loop {
                pause();
            },
            -1 => {
                assert!(matches!(Errno::last(), Errno::EPERM | Errno::ENOSYS), "{}", Errno::last());
                false
            }
            _ => true,
        }
    }

    #[test]
    fn a_process_is_known_until_its_pid_is_reused() {
        let (proc, mut known) = (Proc::open().unwrap(), NotNested::default());
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let first = listed(&proc, pid);
        assert!(!known.contains(first));
        known.update(&proc, Some(clock::now()));
        assert!(!known.contains(first), "an unchecked process should not be known");
        known.update(&proc, None);
        assert!(known.contains(first) && known.contains(listed(&proc, pid)));
        child.kill().unwrap();
        child.wait().unwrap();
        if fork_with_pid(pid) {
            let second = listed(&proc, pid);
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
            waitpid(Pid::from_raw(pid), None).unwrap();
            assert!(!known.contains(second), "{first:?}, {second:?}");
        }
    }
}
