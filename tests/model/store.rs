//! The API server's store of one object, with compare-and-swap on uid and resourceVersion, and its last changes.

use leaderrun_core::election::{Reply, Request, WatchEvent};
use leaderrun_core::record::{Record, Stored, Version};

use crate::setting::Rule;

/// The number of changes that are kept. A watch can resume after any of them.
const HISTORY: usize = 3;

#[derive(Clone, Debug, Default, Hash)]
pub struct Store {
    object: Option<Stored>,
    revision: u64,
    /// The number of objects that were created.
    uids: u64,
    /// The last changes: the revision of each, and the object after it.
    history: Vec<(u64, Option<Stored>)>,
}

impl Store {
    pub fn record(&self) -> Option<&Record> {
        self.object.as_ref().map(|stored| &stored.record)
    }

    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Carries out a request.
    pub fn handle(&mut self, request: Request, disabled_rule: Option<Rule>) -> Reply {
        match (request, &self.object) {
            (Request::Get, current) => Reply::Read(current.clone()),
            (Request::Create(record), None) => Reply::Written(self.write(record)),
            (Request::Create(_), Some(_)) => Reply::Conflict,
            // Without the uid check, an update of a deleted object creates it again, with the uid in the update.
            (Request::Update(version, record), None) if disabled_rule == Some(Rule::UidCheck) => {
                Reply::Written(self.write_as(version.uid, record))
            }
            (Request::Update(_, _), None) => Reply::Conflict,
            (Request::Update(version, record), Some(current)) => {
                if current.version == version || disabled_rule == Some(Rule::CompareAndSwap) {
                    Reply::Written(self.write(record))
                } else {
                    Reply::Conflict
                }
            }
        }
    }

    /// Writes the record, unless it is unchanged, without checking the version. Creates the object if there is none.
    pub fn write(&mut self, record: Record) -> Stored {
        if let Some(current) = self.object.as_ref().filter(|current| current.record == record) {
            return current.clone();
        }
        let uid = self.object.as_ref().map(|current| current.version.uid.clone()).unwrap_or_else(|| {
            self.uids += 1;
            self.uids.to_string()
        });
        self.write_as(uid, record)
    }

    fn write_as(&mut self, uid: String, record: Record) -> Stored {
        let resource_version = (self.revision + 1).to_string();
        let stored = Stored { record, version: Version { uid, resource_version } };
        self.put(Some(stored.clone()));
        stored
    }

    /// Replaces the object, or deletes it.
    pub fn put(&mut self, object: Option<Stored>) {
        self.revision += 1;
        self.history.push((self.revision, object.clone()));
        if self.history.len() > HISTORY {
            self.history.remove(0);
        }
        self.object = object;
    }

    /// Returns the first events of a watch: the changes after this version, or [`WatchEvent::Broken`] if the version is
    /// too old. Without a version, the only event is the current object, if there is one.
    pub fn events_since(&self, from: Option<&Version>) -> Vec<WatchEvent> {
        let Some(from) = from else {
            return self.object.iter().cloned().map(WatchEvent::Changed).collect();
        };
        let from: u64 = from.resource_version.parse().unwrap_or_default();
        if from + (self.history.len() as u64) < self.revision {
            return vec![WatchEvent::Broken];
        }
        self.history.iter().filter(|(revision, _)| *revision > from).map(|(_, object)| event(object)).collect()
    }

    /// Returns the watch event of the last change.
    pub fn last_event(&self) -> WatchEvent {
        event(&self.object)
    }
}

fn event(object: &Option<Stored>) -> WatchEvent {
    object.clone().map_or(WatchEvent::Deleted, WatchEvent::Changed)
}
