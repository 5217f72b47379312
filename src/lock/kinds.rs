//! The table of the kinds of lock.

use super::annotation::{CONFIGMAP, ENDPOINTS};
use super::file::FileStore;
use super::kind::{LockKind, Store};
use super::lease::LEASE;
#[cfg(test)]
use super::memory::MemoryStore;

/// The kinds of lock. The first one is the default.
pub static KINDS: &[LockKind] = &[
    LockKind { word: "lease", store: Store::Objects(&LEASE, None) },
    LockKind { word: "endpoints", store: Store::Objects(&ENDPOINTS, None) },
    LockKind { word: "configmap", store: Store::Objects(&CONFIGMAP, None) },
    LockKind { word: "endpoints+lease", store: Store::Objects(&ENDPOINTS, Some(&LEASE)) },
    LockKind { word: "configmap+lease", store: Store::Objects(&CONFIGMAP, Some(&LEASE)) },
    LockKind { word: "file", store: Store::Local(&FileStore) },
    #[cfg(test)]
    LockKind { word: "memory", store: Store::Local(&MemoryStore) },
];

/// Returns the kind of a lock whose name does not contain a kind.
pub fn default_kind() -> &'static LockKind {
    &KINDS[0]
}
