//! The connections of one client: one that is idle, and those that are being made.
//!
//! A connection is made by a task of its own, which goes on when the request that wanted it is given up; the next
//! request takes what has become of it. A request that is given up closes the connection that it was sent on, so the
//! next one is sent on another.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::select_all;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::super::credentials::Access;
use super::connect::{self, ConnectError, connect};
use super::connection::Connection;
use super::resolver::Resolver;

/// How many connections are made at a time.
const MAX_PENDING: usize = 2;

/// How long the making of a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// The connections of one client.
pub struct Pool {
    resolver: Resolver,
    /// How long one request waits.
    attempt: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// No more than one: when the network breaks, all of them are dead, and each costs an attempt.
    idle: Option<Connection>,
    /// The oldest first.
    pending: Vec<PendingConnection>,
}

/// A connection that is being made.
struct PendingConnection {
    access: Arc<Access>,
    began: Instant,
    ended: watch::Receiver<Option<Result<(), ConnectError>>>,
    task: JoinHandle<()>,
}

impl Pool {
    /// Returns an empty pool. `attempt` is how long one request waits.
    pub fn new(resolver: Resolver, attempt: Duration) -> Self {
        Self { resolver, attempt, state: Mutex::default() }
    }

    /// Takes a connection on which a request can be sent.
    pub fn put(&self, connection: Connection) {
        let replaced = self.state().idle.replace(connection);
        drop(replaced);
    }

    /// Returns a connection for a request: the idle one, or whichever is made first.
    ///
    /// # Errors
    /// When none can be made.
    pub async fn connection(self: &Arc<Self>, access: &Arc<Access>) -> Result<Connection, ConnectError> {
        loop {
            let pending = {
                let mut state = self.state();
                if let Some(idle) = state.idle.take().filter(|idle| idle.is_usable(access)) {
                    return Ok(idle);
                }
                self.begin(&mut state, access);
                state.pending.iter().map(|pending| pending.ended.clone()).collect::<Vec<_>>()
            };
            let ended = pending
                .into_iter()
                .map(|mut ended| async move { ended.wait_for(Option::is_some).await.ok()?.clone() }.boxed());
            // One that was made for this request may be taken by another one, or dropped for a newer one.
            if let (Some(Err(error)), ..) = select_all(ended).await {
                return Err(error);
            }
        }
    }

    /// Returns to what a connection is being made that takes longer than `limit` already.
    pub fn pending(&self, limit: Duration) -> Option<String> {
        let state = self.state();
        let is_slow = |pending: &&PendingConnection| !pending.task.is_finished() && pending.began.elapsed() >= limit;
        state.pending.iter().find(is_slow).map(|pending| connect::target(&pending.access))
    }

    /// Begins to make a connection, unless one is being made that this request has not waited for in vain.
    fn begin(self: &Arc<Self>, state: &mut State, access: &Arc<Access>) {
        state.pending.retain(|pending| pending.access.shares_connections_with(access) && !pending.task.is_finished());
        // One that a request was given up for was begun an attempt ago.
        let is_recent = |pending: &PendingConnection| pending.began.elapsed() < self.attempt * 9 / 10;
        if state.pending.last().is_some_and(is_recent) {
            return;
        }
        // The oldest one may be slow rather than dead, and goes on.
        state.pending.truncate(MAX_PENDING - 1);
        let (sender, ended) = watch::channel(None);
        let (pool, pending_access) = (Arc::clone(self), Arc::clone(access));
        let task = tokio::spawn(async move {
            let connecting = connect(Arc::clone(&pending_access), pool.resolver.clone());
            let made = timeout(CONNECT_TIMEOUT, connecting).await;
            let made = made.unwrap_or_else(|_| Err(ConnectError::timed_out(&pending_access, CONNECT_TIMEOUT)));
            sender.send_replace(Some(made.map(|connection| pool.put(connection))));
        });
        state.pending.push(PendingConnection { access: Arc::clone(access), began: Instant::now(), ended, task });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it is held")
    }
}

impl Drop for PendingConnection {
    fn drop(&mut self) {
        self.task.abort();
    }
}
