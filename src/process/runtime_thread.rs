//! A thread with an asynchronous runtime of its own.

use std::future::Future;
use std::io;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

/// Runs `work` to its end on a new thread of that name. Its result arrives by the receiver.
///
/// The runtime has no other threads, so the work may not call what needs some (`spawn_blocking`, tokio's file and name
/// look-up functions): when the command has used up the process limit, they panic.
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
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
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
