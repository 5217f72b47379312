//! The process that keeps a file locked, for messages.

use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Mutex;

use crate::lock::{LockError, LockErrorKind};
use crate::telemetry::log::{printable, shell_word};

/// A description of what a write is waiting for, if it waits unusually long. The election reads it while another thread
/// waits.
#[derive(Debug, Default)]
pub struct WaitReason(Mutex<Option<String>>);

impl WaitReason {
    pub fn get(&self) -> Option<String> {
        self.0.lock().expect("no thread panics while it holds this lock").clone()
    }

    pub fn set(&self, wait_reason: Option<String>) {
        *self.0.lock().expect("no thread panics while it holds this lock") = wait_reason;
    }
}

/// A process that has locked a file.
#[derive(Debug, PartialEq, Eq)]
pub struct LockingProcess {
    pid: i32,
    name: String,
}

impl LockingProcess {
    /// Returns the process that has locked an open file, if it is known. The kernel does not name a process in another
    /// PID namespace. If a process has passed its descriptor to another process and died, the kernel names the dead
    /// process, and this returns `None`.
    pub fn of(file: &File) -> Option<Self> {
        let metadata = file.metadata().ok()?;
        let (major, minor) = (libc::major(metadata.dev()), libc::minor(metadata.dev()));
        let pid = locking_pid(
            &fs::read_to_string("/proc/locks").ok()?,
            &format!("{major:02x}:{minor:02x}:{}", metadata.ino()),
        )?;
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        Some(Self { pid, name: printable(name.trim_end()) })
    }
}

impl fmt::Display for LockingProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.pid, self.name)
    }
}

/// Returns the process that has locked this file with flock(2), according to the contents of `/proc/locks`.
fn locking_pid(locks: &str, file: &str) -> Option<i32> {
    locks.lines().find_map(|line| {
        // Lines with `->` are about processes that wait for the lock.
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let &[_, "FLOCK", _, _, pid, id, ..] = &words[..] else { return None };
        pid.parse().ok().filter(|pid| id == file && *pid > 0)
    })
}

/// Describes what a write is waiting for: the file, and the process that keeps it locked.
pub fn wait_reason(path: &Path, process: Option<&LockingProcess>) -> String {
    format!("{}, which {} keeps locked", path.display(), process_name(process))
}

/// Returns the error for a write that has waited for too long.
pub fn locked_by_another(path: &Path, process: Option<&LockingProcess>) -> LockError {
    let remedy = match process {
        Some(LockingProcess { pid, .. }) => format!("ps -fp {pid} to see what it is doing"),
        None => format!("fuser -v {} to see which one", shell_word(&path.to_string_lossy())),
    };
    let message = format!("cannot lock {}: {} keeps it locked; try {remedy}", path.display(), process_name(process));
    LockError::new(LockErrorKind::Refused, message)
}

fn process_name(process: Option<&LockingProcess>) -> String {
    process.map_or("another process".to_owned(), LockingProcess::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_that_has_locked_a_file_is_found_in_proc_locks() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 fe:00:12 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 8 fe:00:1 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 9 fe:00:12 0 EOF\n\
                     3: -> FLOCK  ADVISORY  WRITE 10 fe:00:12 0 EOF\n\
                     4: FLOCK  ADVISORY  WRITE 0 fe:00:13 0 EOF\n";
        assert_eq!(locking_pid(locks, "fe:00:12"), Some(9));
        assert_eq!(locking_pid(locks, "fe:00:13"), None, "a process in another PID namespace should not be found");
        assert_eq!(locking_pid(locks, "fe:00:14"), None);
    }

    #[test]
    fn the_process_that_has_locked_an_open_file_is_found() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(LockingProcess::of(&file), None);
        file.lock().unwrap();
        assert_eq!(LockingProcess::of(&file).map(|process| process.pid), Some(std::process::id() as i32));
    }
}
