//! The objects, their one revision counter, and the recent changes that watches read.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::Value;
use tokio::sync::watch;

use super::status::{self, Result};

/// Close below a power of ten: whoever compares versions as text is caught within the first few writes.
const FIRST_REVISION: u64 = 9_970;

/// How many changes a watch may lag behind before its version is too old.
const HISTORY: usize = 1_000;

/// Where an object is. Two API groups that serve the same objects share a collection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub collection: &'static str,
    /// Empty for objects of the whole cluster.
    pub namespace: String,
    pub name: String,
}

/// What is to happen to an object.
pub enum Write {
    Put(Value),
    /// It goes, and this is the last that is seen of it.
    Delete(Value),
    /// Nothing is written, and no watch hears of it.
    Keep,
}

/// One write, as watches see it.
#[derive(Clone)]
pub struct Change {
    pub revision: u64,
    pub key: Key,
    pub before: Option<Arc<Value>>,
    /// The object after the write; for a deletion the last state, with the version of the deletion.
    pub object: Arc<Value>,
    pub deleted: bool,
}

/// All that a cluster remembers.
pub struct Store {
    state: Mutex<State>,
    revision: watch::Sender<u64>,
}

struct State {
    revision: u64,
    objects: BTreeMap<Key, Arc<Value>>,
    history: VecDeque<Change>,
    /// The changes up to this revision are forgotten.
    compacted: u64,
}

impl Store {
    pub fn new() -> Store {
        Store {
            state: Mutex::new(State {
                revision: FIRST_REVISION,
                objects: BTreeMap::new(),
                history: VecDeque::new(),
                compacted: 0,
            }),
            revision: watch::Sender::new(FIRST_REVISION),
        }
    }

    pub fn get(&self, key: &Key) -> Option<Arc<Value>> {
        self.state().objects.get(key).cloned()
    }

    /// The objects of a collection, in one namespace or in all, and the revision they were read at.
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

    /// Lets `decide` look at the object and say what becomes of it, with nothing in between.
    ///
    /// Returns the object as it is afterwards, or as it last was.
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

    /// Deletes everything that is in a namespace.
    pub fn empty_namespace(&self, namespace: &str) {
        let mut state = self.state();
        let inside = state.objects.iter().filter(|(key, _)| key.namespace == namespace);
        let inside: Vec<(Key, Arc<Value>)> = inside.map(|(key, object)| (key.clone(), Arc::clone(object))).collect();
        for (key, object) in inside {
            state.write(&key, Value::clone(&object), true);
        }
        self.revision.send_replace(state.revision);
    }

    pub fn revision(&self) -> u64 {
        self.state().revision
    }

    /// The changes after `revision`, and the revision up to which they are complete.
    pub fn changes_after(&self, revision: u64) -> Result<(Vec<Change>, u64)> {
        let state = self.state();
        if revision < state.compacted {
            let oldest = state.compacted;
            return Err(status::expired(format_args!("too old resource version: {revision} ({oldest})")));
        }
        let start = state.history.partition_point(|change| change.revision <= revision);
        let changes = state.history.range(start..).cloned().collect();
        Ok((changes, state.revision))
    }

    /// Tells of new revisions.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// Forgets every change so far: older versions are too old to watch from.
    pub fn compact(&self) {
        let mut state = self.state();
        while !state.history.is_empty() {
            state.forget_oldest();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("the state of the API server")
    }
}

impl State {
    /// One write: the next revision, which the object bears and watches hear of.
    fn write(&mut self, key: &Key, mut object: Value, deleted: bool) -> Arc<Value> {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = self.revision.to_string().into();
        let object = Arc::new(object);
        let before = match deleted {
            true => self.objects.remove(key),
            false => self.objects.insert(key.clone(), Arc::clone(&object)),
        };
        let change = Change { revision: self.revision, key: key.clone(), before, object: Arc::clone(&object), deleted };
        self.history.push_back(change);
        if self.history.len() > HISTORY {
            self.forget_oldest();
        }
        object
    }

    fn forget_oldest(&mut self) {
        if let Some(change) = self.history.pop_front() {
            self.compacted = change.revision;
        }
    }
}
