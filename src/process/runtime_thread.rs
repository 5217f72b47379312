//! Threads with their own asynchronous runtimes.

use std::future::Future;
use std::io;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use super::system_call::SystemCallError;

/// How long an idle thread for blocking calls is kept. In effect, the thread is kept forever, because it may not be
/// possible to start a new one later.
const KEEP_ALIVE: Duration = Duration::from_secs(365 * 24 * 3600);

/// Builds a runtime for the current thread, with another thread for blocking calls such as name look-ups.
///
/// That thread is started at once, because tokio panics if it cannot start the first one when a blocking call needs it,
/// for example because the command has used up the process limit. Once there is one thread, blocking calls wait for it
/// instead.
///
/// # Errors
/// Fails if the kernel refuses a thread or a descriptor.
pub fn runtime() -> io::Result<Runtime> {
    let runtime = Builder::new_current_thread().enable_all().thread_keep_alive(KEEP_ALIVE).build();
    let runtime = runtime.map_err(SystemCallError::of("epoll_create1"))?;
    // This thread ends at once. It shows whether a thread can be created.
    let _ = thread::Builder::new().spawn(|| {}).map_err(SystemCallError::of_thread)?.join();
    drop(runtime.spawn_blocking(|| {}));
    Ok(runtime)
}

/// Runs `work` to its end on a new thread with this name. The returned receiver delivers its result.
///
/// # Errors
/// Fails if the kernel refuses a thread.
pub fn spawn<T, W>(name: &str, work: impl FnOnce() -> W + Send + 'static) -> io::Result<Receiver<io::Result<T>>>
where
    T: Send + 'static,
    W: Future<Output = io::Result<T>>,
{
    let (sender, ended) = sync_channel(1);
    thread::Builder::new().name(name.to_owned()).spawn(move || {
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
