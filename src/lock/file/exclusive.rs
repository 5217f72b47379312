//! Mutual exclusion between the writers of a record file.
//!
//! Two advisory locks are held during the write itself: on the record file, if it exists, and on its companion,
//! `PATH.lock`. Older releases of leaderrun only use the lock on the companion. The companion may be deleted at any
//! time, because the safety of a write does not depend on it: a write only replaces the file that it has checked.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use leaderrun_core::instant::Instant;
use leaderrun_core::timing::ATTEMPTS;
use nix::errno::Errno;
use nix::sys::signal::{SigEvent, SigevNotify, Signal};
use nix::sys::stat::futimens;
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;

use super::file_error::{self, FileOperation};
use super::file_id::FileId;
use super::locking_process::{self, LockingProcess, WaitReason};
use super::{SAFE_OPEN_FLAGS, record_file};
use crate::lock::LockError;
use crate::process::clock;

/// The first pause between attempts to lock a file that another process has locked. It doubles with each attempt.
const MIN_PAUSE: Duration = Duration::from_millis(1);

/// The longest pause between attempts to lock a file.
const MAX_PAUSE: Duration = Duration::from_millis(16);

/// The limit on how long the locks may be held, as a multiple of the request timeout. It is twice the time from a
/// leader's first failed renewal to its renew deadline.
const TIME_LIMIT_FACTOR: u32 = 2 * ATTEMPTS;

/// The lower bound of the limit on how long the locks may be held, so that a busy process is not mistaken for a frozen
/// process.
const MIN_TIME_LIMIT: Duration = Duration::from_secs(5);

/// The locks that are held during a write. They are released when the value is dropped.
#[derive(Debug)]
pub struct Exclusive {
    /// The record file, if it exists.
    record_file: Option<File>,
    /// `PATH.lock`; `None` if it neither exists nor can be created.
    companion: Option<File>,
    /// The limit on how long the locks are held; `None` if the kernel had no timer left.
    time_limit: Option<TimeLimit>,
}

impl Exclusive {
    /// Locks `companion`, which is `PATH.lock`, and the record file at `path` if it exists. During a long wait,
    /// `wait_reason` names the process that keeps a file locked.
    ///
    /// # Errors
    /// Fails if another process keeps a file locked for most of `request_timeout`, or if a file cannot be opened or
    /// locked.
    pub fn acquire(
        path: &Path,
        companion: &Path,
        request_timeout: Duration,
        wait_reason: &WaitReason,
    ) -> Result<Self, LockError> {
        let time_limit = MIN_TIME_LIMIT.max(request_timeout * TIME_LIMIT_FACTOR);
        Self::acquire_for(path, companion, request_timeout, time_limit, wait_reason)
    }

    fn acquire_for(
        path: &Path,
        companion: &Path,
        request_timeout: Duration,
        time_limit: Duration,
        wait_reason: &WaitReason,
    ) -> Result<Self, LockError> {
        // The wait ends before the timeout of the whole request, because the error of that timeout would not name the
        // process that keeps the file locked.
        let give_up_at = clock::now() + request_timeout * 3 / 4;
        let time_limit = TimeLimit::start(time_limit);
        let companion = lock_at_path(companion, give_up_at, wait_reason, open_companion)?;
        let mut exclusive = Self { record_file: None, companion, time_limit };
        exclusive.record_file = lock_at_path(path, give_up_at, wait_reason, record_file::open)?;
        Ok(exclusive)
    }

    /// Returns the locked record file.
    pub fn record_file(&self) -> Option<&File> {
        self.record_file.as_ref()
    }

    /// Releases the locks, and updates the times of `PATH.lock`, so that systemd-tmpfiles and tmpreaper do not delete
    /// it as unused.
    pub fn release(mut self) {
        self.unlock();
        self.time_limit = None;
        let Some(mut companion) = self.companion.take() else { return };
        if futimens(&companion, &TimeSpec::UTIME_NOW, &TimeSpec::UTIME_NOW).is_err() {
            // The file belongs to another user. Reading it updates at least its access time.
            let _ = companion.read(&mut [0]);
        }
    }

    /// Unlocks both files. Closing them would not be enough: a process that another thread has forked in the meantime
    /// has copies of the descriptors.
    fn unlock(&self) {
        for file in [&self.record_file, &self.companion].into_iter().flatten() {
            let _ = file.unlock();
        }
    }
}

impl Drop for Exclusive {
    fn drop(&mut self) {
        self.unlock();
    }
}

/// Locks the file at a path. If the file is replaced during the wait for its lock, the new file is locked. Returns
/// `None` if there is no file.
fn lock_at_path(
    path: &Path,
    give_up_at: Instant,
    wait_reason: &WaitReason,
    open: impl Fn(&Path) -> Result<Option<File>, LockError>,
) -> Result<Option<File>, LockError> {
    loop {
        let Some(file) = open(path)? else { return Ok(None) };
        let file = lock(file, path, give_up_at, wait_reason);
        wait_reason.set(None);
        let file = file?;
        let is_at_path = match (FileId::of(&file), FileId::at(path)) {
            (Ok(locked), Ok(current)) => locked == current,
            _ => false,
        };
        if is_at_path {
            return Ok(Some(file));
        }
        if clock::now() >= give_up_at {
            return Err(locking_process::locked_by_another(path, None));
        }
    }
}

/// Opens `PATH.lock`, and creates it if it is missing. Returns `None` if it cannot be created. The lock on the record
/// file is then enough, because older releases that run as the same user cannot create `PATH.lock` either, and do not
/// write without it.
fn open_companion(path: &Path) -> Result<Option<File>, LockError> {
    loop {
        if let Some(file) = record_file::open(path)? {
            return Ok(Some(file));
        }
        // O_CREAT without O_EXCL would fail for an existing file of another user in a sticky directory such as /tmp,
        // even for root, because of fs.protected_regular.
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).custom_flags(SAFE_OPEN_FLAGS);
        match options.open(path) {
            Ok(file) => return Ok(Some(file)),
            Err(failure) if failure.kind() == ErrorKind::AlreadyExists => {}
            Err(_) => return Ok(None),
        }
    }
}

/// Locks an open file and returns it. On NFS, the returned file was opened again, for writing.
fn lock(mut file: File, path: &Path, give_up_at: Instant, wait_reason: &WaitReason) -> Result<File, LockError> {
    let mut pause = MIN_PAUSE;
    let mut is_writable = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if clock::now() < give_up_at => {
                thread::sleep(pause);
                if pause < MAX_PAUSE {
                    pause *= 2;
                } else if wait_reason.get().is_none() {
                    wait_reason.set(Some(locking_process::wait_reason(path, LockingProcess::of(&file).as_ref())));
                }
            }
            Err(TryLockError::WouldBlock) => {
                return Err(locking_process::locked_by_another(path, LockingProcess::of(&file).as_ref()));
            }
            // NFS can only lock files that are open for writing.
            Err(TryLockError::Error(failure)) if is_bad_descriptor(&failure) && !is_writable => {
                file = record_file::open_for_writing(path)
                    .map_err(|failure| file_error::failed(FileOperation::Write, path, &failure))?;
                is_writable = true;
            }
            Err(TryLockError::Error(failure)) => return Err(file_error::failed(FileOperation::Lock, path, &failure)),
        }
    }
}

fn is_bad_descriptor(failure: &io::Error) -> bool {
    failure.raw_os_error() == Some(Errno::EBADF as i32)
}

/// A timer that makes the kernel kill this process, unless the timer is dropped in time.
///
/// A process that is frozen while it holds a lock, for example by SIGSTOP, blocks all other writers. They must not
/// ignore its lock, because the process may continue at any time and carry out an outdated write. Therefore the kernel
/// kills it. Process 1 of a container cannot be killed in this way.
#[derive(Debug)]
struct TimeLimit(#[expect(dead_code, reason = "the timer is deleted when it is dropped")] Timer);

impl TimeLimit {
    /// Starts the timer. Returns `None` if the kernel has no timer left for this user. The locks are then held without
    /// a time limit.
    fn start(limit: Duration) -> Option<Self> {
        let kill = SigEvent::new(SigevNotify::SigevSignal { signal: Signal::SIGKILL, si_value: 0 });
        // This clock stops while the machine is suspended. During that time, this process does not block any other.
        let mut timer = Timer::new(ClockId::CLOCK_MONOTONIC, kill).ok()?;
        timer.set(Expiration::OneShot(TimeSpec::from(limit)), TimerSetTimeFlags::empty()).ok()?;
        Some(Self(timer))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    use nix::sys::signal::{kill, raise};
    use nix::sys::wait::waitpid;
    use nix::unistd::{ForkResult, fork, pause};

    use super::*;

    /// The environment variable that tells the test, when it runs itself again as a child process, to be the process
    /// that freezes. Its value is the directory of the record file and its companion.
    const FREEZE_DIRECTORY: &str = "LEADERRUN_TEST_FREEZE_DIRECTORY";

    #[test]
    fn a_process_that_is_frozen_while_it_holds_the_locks_is_killed() {
        if let Some(directory) = std::env::var_os(FREEZE_DIRECTORY) {
            let (path, companion) = (Path::new(&directory).join("job"), Path::new(&directory).join("job.lock"));
            let limit = Duration::from_secs(1);
            let _exclusive = Exclusive::acquire_for(&path, &companion, limit, limit, &WaitReason::default()).unwrap();
            raise(Signal::SIGSTOP).unwrap();
            unreachable!("this process is killed while it is stopped");
        }
        let directory = tempfile::tempdir().unwrap();
        let (path, companion) = (directory.path().join("job"), directory.path().join("job.lock"));
        std::fs::write(&path, "").unwrap();
        let name = "lock::file::exclusive::tests::a_process_that_is_frozen_while_it_holds_the_locks_is_killed";
        let mut frozen = Command::new(std::env::current_exe().unwrap());
        frozen.args(["--exact", name]).env(FREEZE_DIRECTORY, directory.path()).stdout(Stdio::null());
        let mut frozen = frozen.spawn().unwrap();
        while File::open(&companion).is_ok_and(|file| file.try_lock().is_ok()) || !companion.exists() {
            thread::sleep(Duration::from_millis(1));
        }
        let exclusive = Exclusive::acquire(&path, &companion, Duration::from_secs(60), &WaitReason::default()).unwrap();
        assert!(exclusive.record_file().is_some());
        assert_eq!(frozen.wait().unwrap().signal(), Some(libc::SIGKILL));
    }

    #[test]
    fn a_process_that_drops_the_time_limit_in_time_is_not_killed() {
        drop(TimeLimit::start(Duration::from_millis(1)));
        let limit = TimeLimit::start(Duration::from_millis(100)).unwrap();
        drop(limit);
        thread::sleep(Duration::from_millis(200));
    }

    #[test]
    fn files_are_unlocked_although_a_forked_process_has_copies_of_the_descriptors() {
        let directory = tempfile::tempdir().unwrap();
        let (path, companion) = (directory.path().join("job"), directory.path().join("job.lock"));
        std::fs::write(&path, "").unwrap();
        let exclusive = Exclusive::acquire(&path, &companion, Duration::from_secs(60), &WaitReason::default()).unwrap();
        // SAFETY: the child only calls pause(2), which is safe after a fork.
        let ForkResult::Parent { child } = unsafe { fork() }.unwrap() else {
            loop {
                pause();
            }
        };
        exclusive.release();
        let are_free = [&path, &companion].map(|file| File::open(file).unwrap().try_lock().is_ok());
        kill(child, Signal::SIGKILL).unwrap();
        waitpid(child, None).unwrap();
        assert_eq!(are_free, [true, true]);
    }
}
