//! The tokio runtime of the servers in this test process.

use std::future::Future;
use std::sync::{LazyLock, mpsc};

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("test-servers")
        .enable_all()
        .build()
        .expect("the runtime can be built")
});

/// Starts `future` on the servers' threads.
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    RUNTIME.spawn(future)
}

/// Calls `function` inside the runtime, where it can create sockets.
pub fn enter<T>(function: impl FnOnce() -> T) -> T {
    let _entered = RUNTIME.enter();
    function()
}

/// Runs `future` on the servers' threads and waits for its result.
///
/// Unlike `Runtime::block_on`, this also works inside another runtime.
pub fn wait<F>(future: F) -> F::Output
where
    F: Future<Output: Send> + Send + 'static,
{
    let (send, receive) = mpsc::sync_channel(1);
    RUNTIME.spawn(async move { send.send(future.await) });
    receive.recv().expect("a task of the test servers panicked; see above")
}
