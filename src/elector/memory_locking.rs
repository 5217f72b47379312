//! The thread that locks leaderrun's code in memory while the election waits for its first responses.

use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;

use leaderrun_core::updates::Update;

use super::log_notices;
use crate::process::memory::FileMappings;
use crate::process::runtime_thread;
use crate::telemetry::observer::Observer;

/// The locking of leaderrun's code in memory. It begins when the lock is open, because until then other threads need
/// the CPUs.
#[derive(Debug)]
pub struct MemoryLocking {
    /// The thread; `None` if it could not be started.
    thread: Option<JoinHandle<()>>,
}

impl MemoryLocking {
    /// Starts the thread that locks these mappings as soon as there is a message in `lock_opened`. If the thread cannot
    /// be started, locks them now.
    pub fn start(mappings: FileMappings, lock_opened: Receiver<()>) -> Self {
        let for_thread = mappings.clone();
        let thread = runtime_thread::start("memory", move || {
            if lock_opened.recv().is_ok() {
                log_notices::memory(for_thread.lock());
            }
        });
        if thread.is_err() {
            log_notices::memory(mappings.lock());
        }
        Self { thread: thread.ok() }
    }

    /// Waits until leaderrun's code is locked in memory, as far as that is permitted. The lock must be open.
    pub fn wait(self) {
        self.thread.map(JoinHandle::join);
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
