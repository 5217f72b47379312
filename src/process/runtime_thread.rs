//! Threads with their own asynchronous runtimes.

use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::unistd::gettid;
use tokio::runtime::{Builder, Runtime};
use tokio::task::spawn_blocking;

use super::system_call::SystemCallError;

/// How long an idle thread for blocking calls is kept. In effect, the thread is kept forever, because it may not be
/// possible to start a new one later.
const KEEP_ALIVE: Duration = Duration::from_secs(365 * 24 * 3600);

/// Held while this process starts a thread.
static START: Mutex<()> = Mutex::new(());

/// Builds a runtime for the current thread. Blocking calls need [`start_blocking_thread`].
///
/// # Errors
/// Fails if the kernel refuses to create a descriptor.
pub fn runtime() -> io::Result<Runtime> {
    let runtime = Builder::new_current_thread().enable_all().thread_keep_alive(KEEP_ALIVE).build();
    Ok(runtime.map_err(SystemCallError::of("epoll_create1"))?)
}

/// Starts a thread for the blocking calls of the current runtime. It must be called before the first blocking call,
/// that is, before anything else calls [`spawn_blocking`].
///
/// tokio panics if it cannot start the first thread when a blocking call needs it, for example because the command has
/// used up the process limit. Once there is one thread, blocking calls wait for it instead.
///
/// # Errors
/// Fails if the kernel refuses to create a thread.
pub fn start_blocking_thread() -> io::Result<()> {
    // Without this lock, another thread of this process could start a thread after the check and so reach the limit.
    let _other_threads_wait = START.lock().expect("no thread panics while it holds this lock");
    check_thread_can_start()?;
    drop(spawn_blocking(|| {}));
    Ok(())
}

/// Starts a thread that ends at once, and waits until the kernel no longer counts it.
fn check_thread_can_start() -> io::Result<()> {
    let thread = thread::Builder::new().spawn(gettid).map_err(SystemCallError::of_thread)?;
    let Ok(thread) = thread.join() else { return Ok(()) };
    // A thread that was joined still counts towards the process limits until the kernel has released it.
    let counted = format!("/proc/self/task/{thread}");
    while Path::new(&counted).exists() {
        thread::yield_now();
    }
    Ok(())
}

/// Starts a thread with this name.
///
/// # Errors
/// Fails if the kernel refuses to create a thread.
pub fn start(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, SystemCallError> {
    let _other_threads_wait = START.lock().expect("no thread panics while it holds this lock");
    thread::Builder::new().name(name.to_owned()).spawn(work).map_err(SystemCallError::of_thread)
}

/// Runs `work` to completion on a new thread with this name. The returned receiver delivers its result.
///
/// # Errors
/// Fails if the kernel refuses to create a thread.
pub fn spawn<T, W>(name: &str, work: impl FnOnce() -> W + Send + 'static) -> io::Result<Receiver<io::Result<T>>>
where
    T: Send + 'static,
    W: Future<Output = io::Result<T>>,
{
    let (sender, ended) = sync_channel(1);
    start(name, move || {
        let runtime = runtime();
        let result = runtime.and_then(|runtime| {
            let result = runtime.block_on(work());
            // Without this call, dropping the runtime would wait for its blocking calls.
            runtime.shutdown_background();
            result
        });
        let _ = sender.send(result);
    })?;
    Ok(ended)
}
