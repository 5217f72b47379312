//! A thread with an asynchronous runtime of its own.

use std::future::Future;
use std::io;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use super::system_call::SystemCallError;

/// A thread for blocking calls stays once it is there: later there may be none to be had.
const KEEP_ALIVE: Duration = Duration::from_secs(365 * 24 * 3600);

/// Builds a runtime for the present thread, with one more thread for blocking calls such as name look-ups.
///
/// That thread is started at once: tokio panics when it cannot start the first one, as when the command has used up the
/// process limit. With one there, further calls wait for it.
///
/// # Errors
/// When there is no thread or no descriptor to be had.
pub fn runtime() -> io::Result<Runtime> {
    let runtime = Builder::new_current_thread().enable_all().thread_keep_alive(KEEP_ALIVE).build();
    let runtime = runtime.map_err(SystemCallError::of("epoll_create1"))?;
    // A thread that ends at once, to learn whether there is any.
    let _ = thread::Builder::new().spawn(|| {}).map_err(SystemCallError::of("clone3"))?.join();
    drop(runtime.spawn_blocking(|| {}));
    Ok(runtime)
}

/// Runs `work` to its end on a new thread of that name. Its result arrives by the receiver.
///
/// # Errors
/// When there is no thread to be had.
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
            // Dropping the runtime would wait for whatever still runs in it.
            runtime.shutdown_background();
            result
        });
        let _ = sender.send(result);
    })?;
    Ok(ended)
}
