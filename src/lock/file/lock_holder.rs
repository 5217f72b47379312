//! The process that keeps a file locked, for messages.

use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Mutex;

use super::access;
use crate::lock::{LockError, LockErrorKind};
use crate::telemetry::log::printable;

/// A description of what a write waits for, if that takes long. The election reads it while another thread waits.
#[derive(Debug, Default)]
pub struct Awaited(Mutex<Option<String>>);

impl Awaited {
    pub fn get(&self) -> Option<String> {
        self.0.lock().expect("no thread panics while it holds this lock").clone()
    }

    pub fn set(&self, awaited: Option<String>) {
        *self.0.lock().expect("no thread panics while it holds this lock") = awaited;
    }
}

/// A process that has locked a file.
#[derive(Debug, PartialEq, Eq)]
pub struct LockHolder {
    pid: i32,
    name: String,
}

impl LockHolder {
    /// Returns the process that has locked an open file, if that is known. The kernel does not name a process of
    /// another PID namespace. If a process has passed the descriptor to another one and died, the kernel still names
    /// the dead one, and this returns `None`.
    pub fn of(file: &File) -> Option<Self> {
        let metadata = file.metadata().ok()?;
        let (major, minor) = (libc::major(metadata.dev()), libc::minor(metadata.dev()));
        let pid =
            locker(&fs::read_to_string("/proc/locks").ok()?, &format!("{major:02x}:{minor:02x}:{}", metadata.ino()))?;
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        Some(Self { pid, name: printable(name.trim_end()) })
    }
}

impl fmt::Display for LockHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.pid, self.name)
    }
}

/// Returns the pid in the line of /proc/locks about a lock by flock(2) on this file.
fn locker(locks: &str, file: &str) -> Option<i32> {
    locks.lines().find_map(|line| {
        // Lines with `->` are about processes that wait for the lock.
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let &[_, "FLOCK", _, _, pid, id, ..] = &words[..] else { return None };
        pid.parse().ok().filter(|pid| id == file && *pid > 0)
    })
}

/// Returns what a write waits for: the file, and who keeps it locked.
pub fn description(path: &Path, holder: Option<&LockHolder>) -> String {
    format!("{}, which {} keeps locked", path.display(), named(holder))
}

/// Returns the error of a write that has waited for too long.
pub fn locked_by_another(path: &Path, holder: Option<&LockHolder>) -> LockError {
    let remedy = match holder {
        Some(LockHolder { pid, .. }) => format!("ps -fp {pid} to see what it does"),
        None => format!("fuser -v {} to see which", access::quoted(path)),
    };
    let message = format!("cannot lock {}: {} keeps it locked; try {remedy}", path.display(), named(holder));
    LockError::new(LockErrorKind::Refused, message)
}

fn named(holder: Option<&LockHolder>) -> String {
    holder.map_or("another process".to_owned(), LockHolder::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_names_the_process_that_has_locked_a_file() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 fe:00:12 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 8 fe:00:1 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 9 fe:00:12 0 EOF\n\
                     3: -> FLOCK  ADVISORY  WRITE 10 fe:00:12 0 EOF\n\
                     4: FLOCK  ADVISORY  WRITE 0 fe:00:13 0 EOF\n";
        assert_eq!(locker(locks, "fe:00:12"), Some(9));
        assert_eq!(locker(locks, "fe:00:13"), None, "the process is in another PID namespace");
        assert_eq!(locker(locks, "fe:00:14"), None);
    }

    #[test]
    fn a_locked_file_names_this_process() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(LockHolder::of(&file), None);
        file.lock().unwrap();
        assert_eq!(LockHolder::of(&file).map(|holder| holder.pid), Some(std::process::id() as i32));
    }
}
