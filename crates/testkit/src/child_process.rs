//! Child processes that do not outlive this one, however it ends.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{self, Child, Command};
use std::sync::mpsc::{self, Sender, SyncSender};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread;

use super::scratch;

/// A child that is killed when this is dropped, when the process ends, or when the process is killed.
pub struct ChildProcess(Arc<Mutex<Child>>);

impl ChildProcess {
    /// Starts `command`.
    pub fn spawn(command: Command) -> io::Result<ChildProcess> {
        let child = Arc::new(Mutex::new(spawn_from_keeper(command)?));
        let at_exit = Arc::downgrade(&child);
        scratch::at_exit(move || {
            if let Some(child) = at_exit.upgrade() {
                end(&child);
            }
        });
        Ok(ChildProcess(child))
    }

    /// Whether it is running.
    pub fn is_alive(&self) -> bool {
        let mut child = self.0.lock().expect("a child process");
        matches!(child.try_wait(), Ok(None))
    }

    /// Kills it, and waits until it is gone.
    pub fn kill(&self) {
        end(&self.0);
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        end(&self.0);
    }
}

fn end(child: &Mutex<Child>) {
    if let Ok(mut child) = child.lock() {
        // Both fail where it has ended already, which is just as well.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Spawns from a thread that lives as long as the process: the kernel sends the parent-death signal
/// when the *thread* ends that spawned, and the threads of tests come and go.
fn spawn_from_keeper(mut command: Command) -> io::Result<Child> {
    static KEEPER: LazyLock<Sender<(Command, SyncSender<io::Result<Child>>)>> = LazyLock::new(|| {
        let (send, receive) = mpsc::channel::<(Command, SyncSender<io::Result<Child>>)>();
        let keep = move || {
            for (mut command, reply) in receive {
                let _ = reply.send(command.spawn());
            }
        };
        thread::Builder::new().name("child-keeper".to_owned()).spawn(keep).expect("a thread");
        send
    });
    let parent = process::id();
    // SAFETY: prctl and getppid are async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            // Had the parent died before, the signal would never come.
            if libc::getppid().cast_unsigned() != parent {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            Ok(())
        });
    }
    let (reply, spawned) = mpsc::sync_channel(1);
    KEEPER.send((command, reply)).expect("the thread that keeps children");
    spawned.recv().expect("the thread that keeps children")
}
