//! The store of all objects. They share one revision counter, and watches read their recent changes.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};

use kube::core::Status;
use serde_json::Value;
use tokio::sync::watch;

use super::status::{self, Result};

/// The revision of an empty store. It is just below a power of ten, so code that compares versions as text fails after
/// a few writes.
const FIRST_REVISION: u64 = 9_970;

/// The number of changes of each collection that are kept for running watches, some of which may lag behind.
const HISTORY_SIZE: usize = 10_000;

/// The number of changes of each collection in the watch cache, from which new watches can start. The cache of a real
/// server holds 100 changes at first, and grows while all of them are younger than 75 seconds.
const WATCH_CACHE_SIZE: usize = 1_000;

/// The key of an object. API groups that serve the same objects share a collection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub collection: &'static str,
    /// Empty for objects that do not belong to a namespace.
    pub namespace: String,
    pub name: String,
}

/// The write that [`Store::update`] carries out.
pub enum Write {
    Put(Value),
    /// Removes the object. The value is its last state, for watches.
    Delete(Value),
    /// Writes nothing, so watches get no event.
    Keep,
}

/// A write that was carried out, as recorded for watches.
#[derive(Clone)]
pub struct Change {
    pub revision: u64,
    pub key: Key,
    /// The object before the write, if it existed.
    pub before: Option<Arc<Value>>,
    /// The object after the write. After a deletion, this is its last state, with the revision of the deletion.
    pub object: Arc<Value>,
    /// `true` if the write was a deletion.
    pub deleted: bool,
}

/// The objects of one API server, and their recent changes.
pub struct Store {
    state: Mutex<State>,
    revision: watch::Sender<u64>,
}

struct State {
    revision: u64,
    objects: BTreeMap<Key, Arc<Value>>,
    histories: BTreeMap<&'static str, History>,
    watch_cache_size: usize,
    /// The revision before which no watch can start, in any collection.
    min_watchable: u64,
}

/// The recent changes of one collection, oldest first.
#[derive(Default)]
struct History {
    changes: VecDeque<Change>,
    /// The revision of the last change that was dropped; 0 if none was dropped.
    dropped: u64,
}

impl Store {
    pub fn new() -> Store {
        Store {
            state: Mutex::new(State {
                revision: FIRST_REVISION,
                objects: BTreeMap::new(),
                histories: BTreeMap::new(),
                watch_cache_size: WATCH_CACHE_SIZE,
                min_watchable: 0,
            }),
            revision: watch::Sender::new(FIRST_REVISION),
        }
    }

    pub fn get(&self, key: &Key) -> Option<Arc<Value>> {
        self.state().objects.get(key).cloned()
    }

    /// Returns the objects of a collection, in one namespace or in all, and the revision at which they were read.
    pub fn list(&self, collection: &'static str, namespace: Option<&str>) -> (Vec<Arc<Value>>, u64) {
        let state = self.state();
        let first = Key { collection, namespace: namespace.unwrap_or_default().to_owned(), name: String::new() };
        let objects = state
            .objects
            .range((Bound::Included(first), Bound::Unbounded))
            .take_while(|(key, _)| {
                key.collection == collection && namespace.is_none_or(|wanted| key.namespace == wanted)
            })
            .map(|(_, object)| Arc::clone(object))
            .collect();
        (objects, state.revision)
    }

    /// Reads an object, and carries out the write that `decide` returns, in one atomic step.
    ///
    /// Returns the object after the write. After a deletion, this is its last state. If nothing was written and no
    /// object exists, this is JSON null.
    pub fn update(&self, key: &Key, decide: impl FnOnce(Option<&Value>) -> Result<Write>) -> Result<Arc<Value>> {
        let mut state = self.state();
        let before = state.objects.get(key).cloned();
        let object = match decide(before.as_deref())? {
            Write::Put(object) => state.write(key, object, false),
            Write::Delete(last) => state.write(key, last, true),
            Write::Keep => before.unwrap_or_default(),
        };
        self.revision.send_replace(state.revision);
        Ok(object)
    }

    /// Deletes all objects in a namespace.
    pub fn delete_all_in_namespace(&self, namespace: &str) {
        let mut state = self.state();
        let objects = state.objects.iter().filter(|(key, _)| key.namespace == namespace);
        let objects: Vec<(Key, Arc<Value>)> = objects.map(|(key, object)| (key.clone(), Arc::clone(object))).collect();
        for (key, object) in objects {
            state.write(&key, Value::clone(&object), true);
        }
        self.revision.send_replace(state.revision);
    }

    pub fn revision(&self) -> u64 {
        self.state().revision
    }

    /// Fails if a watch of this collection can no longer start from `revision`, because later changes have been dropped
    /// from the watch cache.
    pub fn check_watchable(&self, collection: &'static str, revision: u64) -> Result<()> {
        let state = self.state();
        let oldest = state.oldest_watchable(collection);
        if revision < oldest {
            return Err(too_old(revision, oldest));
        }
        Ok(())
    }

    /// Returns the changes of a collection after `revision`, and the revision up to which they are complete.
    pub fn changes_after(&self, collection: &'static str, revision: u64) -> Result<(Vec<Change>, u64)> {
        let state = self.state();
        let Some(history) = state.histories.get(collection) else {
            return Ok((Vec::new(), state.revision));
        };
        if revision < history.dropped {
            return Err(too_old(revision, history.dropped));
        }
        let start = history.changes.partition_point(|change| change.revision <= revision);
        Ok((history.changes.range(start..).cloned().collect(), state.revision))
    }

    /// Returns a receiver that is notified of new revisions.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// Empties the watch cache, so no watch can start from a revision before the current one.
    pub fn forget_changes(&self) {
        let mut state = self.state();
        state.min_watchable = state.revision;
    }

    /// Sets how many changes of each collection the watch cache holds.
    pub fn set_watch_cache_size(&self, changes: usize) {
        assert!(
            (1..=HISTORY_SIZE).contains(&changes),
            "a watch cache holds 1 to {HISTORY_SIZE} changes, not {changes}"
        );
        self.state().watch_cache_size = changes;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics while it holds this lock")
    }
}

impl State {
    /// Writes an object at the next revision, or deletes it if `deleted` is `true`, and records the change.
    fn write(&mut self, key: &Key, mut object: Value, deleted: bool) -> Arc<Value> {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = self.revision.to_string().into();
        let object = Arc::new(object);
        let before =
            if deleted { self.objects.remove(key) } else { self.objects.insert(key.clone(), Arc::clone(&object)) };
        let change = Change { revision: self.revision, key: key.clone(), before, object: Arc::clone(&object), deleted };
        let history = self.histories.entry(key.collection).or_default();
        history.changes.push_back(change);
        if history.changes.len() > HISTORY_SIZE
            && let Some(oldest) = history.changes.pop_front()
        {
            history.dropped = oldest.revision;
        }
        object
    }

    /// Returns the oldest revision that a watch of this collection can start from: the one just before the oldest
    /// change in the collection's watch cache.
    fn oldest_watchable(&self, collection: &'static str) -> u64 {
        let changes = self.histories.get(collection).map(|history| &history.changes);
        let evicted_changes = changes.and_then(|changes| changes.len().checked_sub(self.watch_cache_size)).unwrap_or(0);
        match changes {
            Some(changes) if evicted_changes > 0 => self.min_watchable.max(changes[evicted_changes].revision - 1),
            _ => self.min_watchable,
        }
    }
}

fn too_old(revision: u64, oldest: u64) -> Box<Status> {
    status::expired(format_args!("too old resource version: {revision} ({oldest})"))
}
