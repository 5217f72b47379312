//! Where the record lives: one small file a kind, all behind one trait.

mod annotation;
mod file;
mod lease;
mod name;
mod object;
mod open;
mod two_objects;

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use leaderrun_core::election::{Reply, WatchEvent};
use leaderrun_core::record::{Record, Stored, Version};

pub use self::file::FileLock;
pub use self::name::{Kind, LockName, SlotCount, check_label, check_name};
pub use self::object::{ObjectLock, rules};
pub use self::open::{OPEN, open, open_slots};
pub use self::two_objects::TwoObjectLock;

/// A place where a record is stored, with compare-and-swap and change notification.
///
/// One request at a time; dropping its future gives the request up, and the connection it was on. It may be
/// carried out all the same, and later.
pub trait Lock: Send + Sync {
    /// Reads the record, consistently: what was written before is seen.
    fn get(&self) -> BoxFuture<'_, Result<Option<Stored>, LockError>>;

    /// Writes the record where there is none.
    fn create(&self, record: Record) -> BoxFuture<'_, Result<Stored, LockError>>;

    /// Replaces the record that has this version, and no other.
    fn update(&self, version: Version, record: Record) -> BoxFuture<'_, Result<Stored, LockError>>;

    /// Changes from a version on, or from the present state on. Ends when it can be taken up again
    /// from what was seen last.
    fn watch(&self, from: Option<Version>) -> BoxStream<'_, Result<WatchEvent, LockError>>;

    /// Returns what requests wait for before they can be sent, if that takes long at present.
    fn pending(&self) -> Option<String> {
        None
    }

    /// The fencing token of the write that made this resourceVersion.
    fn fencing_token(&self, resource_version: &str) -> String {
        resource_version.to_owned()
    }

    /// The uids of the objects that a record with this uid is in.
    fn uids(&self, uid: &str) -> Vec<String> {
        vec![uid.to_owned()]
    }
}

/// Why a request failed.
#[derive(Debug)]
pub struct LockError {
    pub kind: LockErrorKind,
    /// For people.
    pub message: String,
    /// When the other side wants to be asked again.
    pub retry_after: Option<Duration>,
    /// As YAML, the Role that allows it, where that is what is missing.
    pub role: Option<String>,
}

/// What a failed request means for the election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockErrorKind {
    /// A write that is not based on the present state.
    Conflict,
    /// Not allowed; certainly not carried out.
    Forbidden,
    /// Certainly not carried out.
    Refused,
    /// No telling whether it was carried out.
    Unknown,
}

impl LockError {
    fn new(kind: LockErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: None, role: None }
    }

    /// Returns what the election is told.
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
