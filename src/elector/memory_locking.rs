//! The thread that locks leaderrun's code in memory while the election waits for its first responses.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

use leaderrun_core::instant::Instant;
use leaderrun_core::updates::Update;

use super::log_notices;
use crate::process::memory::FileMappings;
use crate::process::{clock, runtime_thread};
use crate::telemetry::observer::Observer;

/// The locking of leaderrun's code in memory. It begins when the lock is open, because until then other threads need
/// the CPUs.
#[derive(Debug)]
pub struct MemoryLocking {
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
}

impl MemoryLocking {
    /// Starts the thread that locks these mappings as soon as there is a message in `lock_opened`. If the thread cannot
    /// be started, locks them now.
    pub fn start(mappings: FileMappings, lock_opened: Receiver<()>) -> Self {
        let for_thread = mappings.clone();
        let (end, ended) = channel();
        let thread = runtime_thread::start("memory", move || {
            if lock_opened.recv().is_ok() {
                log_notices::memory(for_thread.lock());
            }
            drop(end);
        });
        if thread.is_err() {
            log_notices::memory(mappings.lock());
        }
        Self { ended }
    }

    /// Waits until leaderrun's code is locked in memory, as far as that is permitted. The lock must be open. Returns false
    /// if that is not the case at the instant `until`, because the file system with the program does not respond.
    pub fn wait(self, until: Instant) -> bool {
        self.ended.recv_timeout(until.since(clock::now())) == Err(RecvTimeoutError::Disconnected)
    }
}

/// Returns an observer, and the receiver of the message that it sends when the lock is open.
pub fn lock_opened() -> (Observer, Receiver<()>) {
    let (sender, receiver) = channel();
    let observer = Observer::new(move |update| {
        if let Update::Lock(_) = update {
            let _ = sender.send(());
        }
    });
    (observer, receiver)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_wait_ends_when_the_code_is_locked_or_at_the_given_instant() {
        let (observer, lock_opened) = lock_opened();
        let locking = MemoryLocking::start(FileMappings::default(), lock_opened);
        observer.notify(Update::Lock("default/job".to_owned()));
        assert!(locking.wait(clock::now() + Duration::from_secs(60)));
        let (_not_notified, lock_opened) = self::lock_opened();
        let locking = MemoryLocking::start(FileMappings::default(), lock_opened);
        assert!(!locking.wait(clock::now()));
    }
}
