//! The connections of one client: an idle connection, and connections that are being opened.
//!
//! A separate task opens each connection. The task continues when the request is dropped, and the next request uses the
//! connection. If a request is dropped after it was sent, its connection is closed, so the next request is sent on
//! another connection.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::select_ok;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::super::credentials::Access;
use super::connect::{self, ConnectError, connect};
use super::connection::Connection;
use super::resolver::Resolver;

/// The maximum number of connections that are opened at the same time.
const MAX_PENDING: usize = 2;

/// The timeout for opening a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// The connections of one client.
pub struct Pool {
    resolver: Resolver,
    request_timeout: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The idle connection. There is only one, because after a network failure each dead idle connection would make a
    /// request fail.
    idle: Option<Connection>,
    /// The connections that are being opened, the oldest first.
    pending: Vec<PendingConnection>,
    /// The number of attempts to open a connection since a request last got a response. Later attempts begin with other
    /// addresses of the server, because an address may accept connections but never respond to a request.
    attempts: usize,
    /// The credentials of the last connection on which a request got a response.
    last_responsive: Option<Arc<Access>>,
}

/// A connection that is being opened.
struct PendingConnection {
    access: Arc<Access>,
    started_at: Instant,
    /// The result, once there is one.
    result: watch::Receiver<Option<Result<(), ConnectError>>>,
    task: JoinHandle<()>,
}

impl Pool {
    /// Creates an empty pool.
    pub fn new(resolver: Resolver, request_timeout: Duration) -> Self {
        Self { resolver, request_timeout, state: Mutex::default() }
    }

    /// Returns the timeout of one request.
    pub fn request_timeout(&self) -> Duration {
        self.request_timeout
    }

    /// Puts back a connection on which a request got a response.
    pub fn put_back(&self, connection: Connection) {
        {
            let mut state = self.state();
            (state.attempts, state.last_responsive) = (0, Some(Arc::clone(connection.access())));
        }
        self.set_idle(connection);
    }

    fn set_idle(&self, connection: Connection) {
        let replaced = self.state().idle.replace(connection);
        // The previous connection is closed while the state is not locked.
        drop(replaced);
    }

    /// Returns a connection for a request: the idle connection, or the first connection that is opened.
    ///
    /// # Errors
    /// Fails if none of the connections that are being opened succeeds.
    pub async fn connection(self: &Arc<Self>, access: &Arc<Access>) -> Result<Connection, ConnectError> {
        loop {
            let results = {
                let mut state = self.state();
                if let Some(idle) = state.idle.take().filter(|idle| idle.is_usable(access)) {
                    return Ok(idle);
                }
                self.start_opening(&mut state, access);
                state.pending.iter().map(|pending| pending.result.clone()).collect::<Vec<_>>()
            };
            let waits = results.into_iter().map(|result| wait_until_ended(result).boxed());
            // The opened connection is idle now. If another request has taken it, the loop waits for the next
            // connection.
            select_ok(waits).await?;
        }
    }

    /// If an attempt to open a connection has lasted for at least `limit`, returns its [target](connect::target).
    pub fn slow_target(&self, limit: Duration) -> Option<String> {
        let state = self.state();
        let is_slow =
            |pending: &&PendingConnection| !pending.task.is_finished() && pending.started_at.elapsed() >= limit;
        state.pending.iter().find(is_slow).map(|pending| connect::target(&pending.access))
    }

    /// Starts opening a connection, unless an attempt that was started recently is still in progress.
    fn start_opening(self: &Arc<Self>, state: &mut State, access: &Arc<Access>) {
        state.pending.retain(|pending| pending.access.has_same_tls(access) && !pending.task.is_finished());
        // After a request has timed out, the next request starts another attempt. The first attempt is then a little
        // younger than the request timeout, because its request first had to obtain credentials.
        let is_recent = |pending: &PendingConnection| pending.started_at.elapsed() < self.request_timeout * 9 / 10;
        if state.pending.last().is_some_and(is_recent) {
            return;
        }
        // The oldest pending connection continues, because it may only be slow.
        state.pending.truncate(MAX_PENDING - 1);
        let (sender, result) = watch::channel(None);
        // If the proxy has changed, the attempts alternate between the new proxy and the previous one.
        let (pending_access, skip) = match state.last_responsive.as_ref().and_then(|last| access.with_proxy_of(last)) {
            Some(previous) if state.attempts % 2 == 1 => (Arc::new(previous), state.attempts / 2),
            Some(_) => (Arc::clone(access), state.attempts / 2),
            None => (Arc::clone(access), state.attempts),
        };
        let (pool, task_access) = (Arc::clone(self), Arc::clone(&pending_access));
        state.attempts = state.attempts.wrapping_add(1);
        let task = tokio::spawn(async move {
            let connecting = connect(Arc::clone(&task_access), pool.resolver.clone(), skip);
            let opened = timeout(CONNECT_TIMEOUT, connecting).await;
            let opened = opened.unwrap_or_else(|_| Err(ConnectError::timed_out(&task_access, CONNECT_TIMEOUT)));
            sender.send_replace(Some(opened.map(|connection| pool.set_idle(connection))));
        });
        state.pending.push(PendingConnection { access: pending_access, started_at: Instant::now(), result, task });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics while it holds this lock")
    }
}

/// Waits until an attempt to open a connection has succeeded, failed or been aborted. An aborted attempt is not an
/// error.
async fn wait_until_ended(mut result: watch::Receiver<Option<Result<(), ConnectError>>>) -> Result<(), ConnectError> {
    let result = result.wait_for(Option::is_some).await.ok().and_then(|result| result.clone());
    result.unwrap_or(Ok(()))
}

impl Drop for PendingConnection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use hyper_util::rt::TokioIo;
    use tokio::io::duplex;

    use super::*;

    /// Adds a connection that is being opened, and returns the sender of its result.
    fn add_pending(pool: &Pool, access: &Arc<Access>) -> watch::Sender<Option<Result<(), ConnectError>>> {
        let (sender, result) = watch::channel(None);
        let task = tokio::spawn(pending());
        let pending = PendingConnection { access: Arc::clone(access), started_at: Instant::now(), result, task };
        pool.state().pending.push(pending);
        sender
    }

    #[test]
    fn a_request_fails_only_after_all_connections_have_failed() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let access = Arc::new(Access::example());
            let refused = || Some(Err(ConnectError::timed_out(&access, CONNECT_TIMEOUT)));
            for failed in 0..MAX_PENDING {
                let pool = Arc::new(Pool::new(Resolver::default(), CONNECT_TIMEOUT));
                let results: Vec<_> = (0..MAX_PENDING).map(|_| add_pending(&pool, &access)).collect();
                let mut request = Box::pin(pool.connection(&access));
                assert!(request.as_mut().now_or_never().is_none());
                results[failed].send_replace(refused());
                assert!(request.as_mut().now_or_never().is_none(), "the request should wait for the other connection");
                let (client, _server) = duplex(1);
                pool.set_idle(Connection::handshake(TokioIo::new(client), Arc::clone(&access)).await.unwrap());
                results[MAX_PENDING - 1 - failed].send_replace(Some(Ok(())));
                assert!(request.await.is_ok());
            }
            let pool = Arc::new(Pool::new(Resolver::default(), CONNECT_TIMEOUT));
            let results: Vec<_> = (0..MAX_PENDING).map(|_| add_pending(&pool, &access)).collect();
            results.iter().for_each(|result| drop(result.send_replace(refused())));
            assert!(pool.connection(&access).await.is_err());
        });
    }
}
