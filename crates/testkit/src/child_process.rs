//! Child processes that do not outlive this process, even if it is killed.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{self, Child, Command};
use std::sync::mpsc::{self, Sender, SyncSender};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread;

use crate::scratch;

/// A child process that is killed when this handle is dropped, or when the test process ends or is killed.
pub struct ChildProcess(Arc<Mutex<Child>>);

impl ChildProcess {
    /// Starts `command`.
    pub fn spawn(command: Command) -> io::Result<ChildProcess> {
        let child = Arc::new(Mutex::new(spawn_from_permanent_thread(command)?));
        let at_exit = Arc::downgrade(&child);
        scratch::at_exit(move || {
            if let Some(child) = at_exit.upgrade() {
                kill_and_reap(&child);
            }
        });
        Ok(ChildProcess(child))
    }

    /// Returns whether the process is running.
    pub fn is_alive(&self) -> bool {
        let mut child = self.0.lock().expect("no thread panics while it holds this lock");
        matches!(child.try_wait(), Ok(None))
    }

    /// Kills the process, and waits until it has ended.
    pub fn kill(&self) {
        kill_and_reap(&self.0);
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        kill_and_reap(&self.0);
    }
}

fn kill_and_reap(child: &Mutex<Child>) {
    if let Ok(mut child) = child.lock() {
        // Both calls succeed if the process has already ended.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Spawns a child from a thread that never ends. The kernel sends the parent-death signal when the *thread* that
/// spawned the child ends, so a child that a test's thread spawned would be killed at the end of that test.
fn spawn_from_permanent_thread(mut command: Command) -> io::Result<Child> {
    static SPAWNER: LazyLock<Sender<(Command, SyncSender<io::Result<Child>>)>> = LazyLock::new(|| {
        let (send, receive) = mpsc::channel::<(Command, SyncSender<io::Result<Child>>)>();
        let spawn = move || {
            for (mut command, reply) in receive {
                let _ = reply.send(command.spawn());
            }
        };
        thread::Builder::new().name("spawner".to_owned()).spawn(spawn).expect("a thread can be started");
        send
    });
    let parent = process::id();
    // SAFETY: prctl and getppid are async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            // If the parent died before the call, the signal is never sent.
            if libc::getppid().cast_unsigned() != parent {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            Ok(())
        });
    }
    let (reply, spawned) = mpsc::sync_channel(1);
    SPAWNER.send((command, reply)).expect("the spawner never ends");
    spawned.recv().expect("the spawner answers each request")
}
