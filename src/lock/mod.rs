//! The locks of all kinds, which implement the trait [`Lock`].

mod annotation;
mod file;
mod kind;
mod kinds;
mod lease;
pub mod log_events;
#[cfg(test)]
mod memory;
mod name;
mod object;
mod open;
mod owner;
mod record_time;
mod two_objects;

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use leaderrun_core::election::{Reply, WatchEvent};
use leaderrun_core::record::{Record, Stored, Version};

pub use self::file::OPEN_TIMEOUT;
pub use self::kind::{Finding, LockKind, Store};
pub use self::kinds::{KINDS, default_kind};
pub use self::name::{LockName, SlotCount, check_label, check_name};
pub use self::object::{ObjectLock, RecordFormat, rules};
pub use self::open::{LockConfig, open, open_slots};
pub use self::owner::{OwnerConfig, OwnerName};
pub use self::two_objects::TwoObjectLock;

/// A store of one record, with compare-and-swap and change notification.
///
/// Callers send only one request at a time, apart from a watch and the writes that [`allows_late_writes`] permits. If
/// the future of a request is dropped, the request may still be carried out later.
///
/// [`allows_late_writes`]: Self::allows_late_writes
pub trait Lock: Send + Sync {
    /// Reads the record with a consistent read, which reflects all earlier writes.
    fn get(&self) -> BoxFuture<'_, Result<Option<Stored>, LockError>>;

    /// Creates the record if there is none.
    fn create(&self, record: Record) -> BoxFuture<'_, Result<Stored, LockError>>;

    /// Replaces the record if it has this version.
    fn update(&self, version: Version, record: Record) -> BoxFuture<'_, Result<Stored, LockError>>;

    /// Watches the record for changes since the version `from`. Without a version, the watch begins with the current
    /// record, if there is one; some kinds of lock always begin with it. When the stream ends without an error, the
    /// watch can be resumed from the last version that was seen.
    fn watch(&self, from: Option<Version>) -> BoxStream<'_, Result<WatchEvent, LockError>>;

    /// Returns what requests are waiting for, as a phrase to follow "still waiting for", if they have been waiting for
    /// an unusually long time.
    fn waiting_for(&self) -> Option<String> {
        None
    }

    /// Returns whether a write may continue while the next request is sent. If so, the write's late reply is used.
    fn allows_late_writes(&self) -> bool {
        false
    }

    /// Returns the fencing token of the write that produced this resourceVersion.
    fn fencing_token(&self, resource_version: &str) -> String {
        resource_version.to_owned()
    }

    /// Returns the uids of the objects that contain the record. `uid` is the uid in the record's version. If there are
    /// two objects, it combines their uids.
    fn uids(&self, uid: &str) -> Vec<String> {
        vec![uid.to_owned()]
    }
}

/// The error from a request to a lock.
#[derive(Debug)]
pub struct LockError {
    pub kind: LockErrorKind,
    /// The message for the log.
    pub message: String,
    /// The pause before the next request, if the server requests one.
    pub retry_after: Option<Duration>,
    /// The Role that would permit the request, as YAML, if a permission is missing.
    pub role: Option<String>,
}

/// The kind of an error, which says whether the request may have acquired or renewed the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockErrorKind {
    /// The write did not succeed, because it is not based on the current record.
    Conflict,
    /// The request is known not to have been carried out, and usually keeps failing until somebody grants a permission
    /// or repairs a file.
    Forbidden,
    /// The request is known not to have acquired or renewed the lock. Either it was not carried out, or the API server
    /// stored a different record than the one that was sent.
    Refused,
    /// The request may or may not have been carried out.
    Unknown,
}

impl LockError {
    fn new(kind: LockErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: None, role: None }
    }

    /// Returns the reply for the election.
    pub fn to_reply(&self) -> Reply {
        let retry_after = self.retry_after;
        match self.kind {
            LockErrorKind::Conflict => Reply::Conflict,
            LockErrorKind::Forbidden | LockErrorKind::Refused => Reply::Refused { retry_after },
            LockErrorKind::Unknown => Reply::Unknown { retry_after },
        }
    }
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for LockError {}
