//! The kinds of lock: what each can do, and where it keeps its record.

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::Lock;
use super::name::check_name;
use super::object::RecordFormat;
use crate::kubernetes::ObjectName;

/// A kind of lock.
pub struct LockKind {
    /// The kind as written in `--lock`.
    pub word: &'static str,
    pub store: Store,
}

/// The place where the locks of a kind keep their records.
pub enum Store {
    /// A Kubernetes object, or two with the same name. The holder of a lock with two objects must hold both.
    Objects(&'static RecordFormat, Option<&'static RecordFormat>),
    /// A place on this machine.
    Local(&'static dyn LocalStore),
}

/// A store of locks on this machine. They need no cluster, and have no namespace.
pub trait LocalStore: Sync {
    /// Checks the name of a lock, the part of `--lock` after the colon.
    ///
    /// # Errors
    /// Returns what is wrong, and what to use instead.
    fn check_name(&self, name: &str) -> Result<(), String>;

    /// Opens the lock with this name.
    fn open<'a>(&'a self, name: &'a str, request_timeout: Duration) -> BoxFuture<'a, anyhow::Result<Box<dyn Lock>>>;

    /// Returns whether a candidate that is frozen during a write keeps all others from writing.
    fn blocks_while_frozen(&self) -> bool;

    /// Checks whether this machine meets the requirements of the lock with this name, for `leaderrun doctor`.
    fn examine(&self, name: &str) -> Vec<Finding>;
}

/// The result of examining one requirement of a lock.
#[derive(Debug)]
pub struct Finding {
    /// The requirement, in one or two words.
    pub subject: &'static str,
    pub text: String,
    /// What to do about it; `None` if the requirement is met.
    pub remedy: Option<&'static str>,
}

impl LockKind {
    /// Returns whether locks of this kind are in a cluster. Only such locks have a namespace and Events, need RBAC
    /// permissions, and can have traffic routed to their leader.
    pub fn is_in_cluster(&self) -> bool {
        matches!(self.store, Store::Objects(..))
    }

    /// Returns the objects that contain the record of the lock with this name. There are none if locks of this kind are
    /// not in a cluster.
    pub fn objects(&self, namespace: &str, name: &str) -> Vec<ObjectName> {
        let Store::Objects(first, second) = self.store else { return Vec::new() };
        let object = |format: &RecordFormat| ObjectName {
            resource: format.resource,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        [Some(first), second].into_iter().flatten().map(object).collect()
    }

    /// Returns the format of the lock's object, if locks of this kind have exactly one object.
    pub fn object_format(&self) -> Option<&'static RecordFormat> {
        match self.store {
            Store::Objects(format, None) => Some(format),
            Store::Objects(_, Some(_)) | Store::Local(_) => None,
        }
    }

    /// Returns whether a lock of this kind can have slots.
    pub fn can_have_slots(&self) -> bool {
        !matches!(self.store, Store::Objects(_, Some(_)))
    }

    /// Returns whether a candidate that is frozen during a write keeps all others from writing.
    pub fn blocks_while_frozen(&self) -> bool {
        match self.store {
            Store::Objects(..) => false,
            Store::Local(store) => store.blocks_while_frozen(),
        }
    }

    /// Checks the name of a lock, without its namespace.
    ///
    /// # Errors
    /// Returns what is wrong, and what to use instead.
    pub fn check_name(&self, name: &str) -> Result<(), String> {
        match self.store {
            Store::Objects(..) => check_name(name).map_err(|reason| format!("the name {reason}; try default/my-job")),
            Store::Local(store) => store.check_name(name),
        }
    }
}

impl fmt::Debug for LockKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word)
    }
}

impl PartialEq for LockKind {
    fn eq(&self, other: &Self) -> bool {
        self.word == other.word
    }
}

impl Eq for LockKind {}
