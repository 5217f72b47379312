//! A lock for unit tests, whose record is in the memory of the test process. It shows the minimum that a kind of lock
//! has to implement.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use futures_util::stream::{self, BoxStream, StreamExt};
use leaderrun_core::election::WatchEvent;
use leaderrun_core::record::{Record, Stored, Version};
use tokio::sync::watch;

use super::kind::LocalStore;
use super::{Finding, Lock, LockError, LockErrorKind};

/// The locks in the memory of this process, by name.
static LOCKS: LazyLock<Mutex<HashMap<String, MemoryLock>>> = LazyLock::new(Mutex::default);

/// The store of the locks whose records are in the memory of this process.
pub struct MemoryStore;

impl LocalStore for MemoryStore {
    fn check_name(&self, name: &str) -> Result<(), String> {
        if name.is_empty() { Err("the name is missing; try memory:my-job".into()) } else { Ok(()) }
    }

    fn open<'a>(&'a self, name: &'a str, _request_timeout: Duration) -> BoxFuture<'a, anyhow::Result<Box<dyn Lock>>> {
        let lock = LOCKS
            .lock()
            .expect("no thread panics while it holds this lock")
            .entry(name.to_owned())
            .or_default()
            .clone();
        ready(Ok(Box::new(lock) as _)).boxed()
    }

    fn blocks_while_frozen(&self) -> bool {
        false
    }

    fn examine(&self, _name: &str) -> Vec<Finding> {
        Vec::new()
    }
}

/// A lock whose record is in the memory of this process.
#[derive(Clone, Default)]
struct MemoryLock(Arc<watch::Sender<Option<Stored>>>);

impl MemoryLock {
    /// Writes the record if the current record has the version `expected`, or if `expected` is `None` and there is no
    /// record.
    fn write(&self, expected: Option<&Version>, record: Record) -> Result<Stored, LockError> {
        let mut written = Err(LockError::new(LockErrorKind::Conflict, "the record has changed"));
        self.0.send_if_modified(|stored| {
            let current = stored.as_ref().map(|stored| &stored.version);
            if current != expected {
                return false;
            }
            let next_number = current.map_or(0, |version| version.resource_version.parse().unwrap_or(0)) + 1;
            let version = Version { uid: "memory".to_owned(), resource_version: next_number.to_string() };
            let new = stored.insert(Stored { record, version });
            written = Ok(new.clone());
            true
        });
        written
    }
}

impl Lock for MemoryLock {
    fn get(&self) -> BoxFuture<'_, Result<Option<Stored>, LockError>> {
        ready(Ok(self.0.borrow().clone())).boxed()
    }

    fn create(&self, record: Record) -> BoxFuture<'_, Result<Stored, LockError>> {
        ready(self.write(None, record)).boxed()
    }

    fn update(&self, version: Version, record: Record) -> BoxFuture<'_, Result<Stored, LockError>> {
        ready(self.write(Some(&version), record)).boxed()
    }

    fn watch(&self, _from: Option<Version>) -> BoxStream<'_, Result<WatchEvent, LockError>> {
        let mut receiver = self.0.subscribe();
        receiver.mark_changed();
        let changes = stream::unfold(receiver, async |mut receiver| {
            receiver.changed().await.ok()?;
            let stored = receiver.borrow_and_update().clone();
            Some((Ok(stored.map_or(WatchEvent::Deleted, WatchEvent::Changed)), receiver))
        });
        stream::iter([Ok(WatchEvent::Opened)]).chain(changes).boxed()
    }
}
