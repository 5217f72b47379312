//! The API server's store of one object, with compare-and-swap and a history for watches.

use std::collections::VecDeque;

use leaderrun_core::election::{Reply, Request, WatchEvent};
use leaderrun_core::record::{MarkState, Record, Stored, Version};

use crate::mutation::Mutation;

/// The number of changes that are kept. A watch can resume after any of them.
const HISTORY: usize = 16;

#[derive(Debug, Default)]
pub struct Store {
    object: Option<Stored>,
    revision: u64,
    /// The number of objects that were created.
    uids: u64,
    /// The last changes: the revision of each, and the object after it.
    history: VecDeque<(u64, Option<Stored>)>,
    /// The revision of the last change that is no longer in the history.
    compacted: u64,
    /// The revisions in which the object was deleted.
    deletions: Vec<u64>,
}

impl Store {
    pub fn new() -> Self {
        // Other objects were written earlier, so the revisions of this one do not start at zero.
        Self { revision: 100, ..Self::default() }
    }

    pub fn object(&self) -> Option<&Stored> {
        self.object.as_ref()
    }

    pub fn record(&self) -> Option<&Record> {
        self.object.as_ref().map(|stored| &stored.record)
    }

    /// Carries out a request.
    pub fn handle(&mut self, request: Request, mutation: Mutation) -> Reply {
        match request {
            Request::Get => Reply::Read(self.object.clone()),
            Request::Create(_) if self.object.is_some() => Reply::Conflict,
            Request::Create(record) => Reply::Written(self.write(record)),
            Request::Update(version, record) => self.update(&version, record, mutation),
        }
    }

    fn update(&mut self, version: &Version, record: Record, mutation: Mutation) -> Reply {
        let Some(current) = &self.object else { return Reply::Conflict };
        let is_release = record.run.as_ref().is_some_and(|mark| mark.state == MarkState::Released);
        let unchecked = match mutation {
            Mutation::NoCompareAndSwap => true,
            Mutation::UncheckedRelease => is_release,
            Mutation::AcceptUnchangedRenewals => {
                let run = |record: &Record| record.run.as_ref().map(|mark| mark.run.clone());
                let is_own = run(&current.record) == run(&record);
                if is_own && !is_release {
                    // The reply names another version although nothing was written, so the candidate assumes a renewal.
                    let resource_version = format!("{}0", current.version.resource_version);
                    return Reply::Written(Stored { record, version: Version { resource_version, ..version.clone() } });
                }
                // The holder knows only versions that do not exist, so its release cannot be checked.
                is_own
            }
            _ => false,
        };
        if current.version != *version && !unchecked {
            return Reply::Conflict;
        }
        Reply::Written(self.write(record))
    }

    /// Writes the record without checking the version, and creates the object if there is none. Writing an equal
    /// record changes nothing.
    pub fn write(&mut self, record: Record) -> Stored {
        if let Some(current) = self.object.as_ref().filter(|current| current.record == record) {
            return current.clone();
        }
        let uid = match &self.object {
            Some(current) => current.version.uid.clone(),
            None => {
                self.uids += 1;
                self.uids.to_string()
            }
        };
        self.revision += 1;
        let stored = Stored { record, version: Version { uid, resource_version: self.revision.to_string() } };
        self.put(Some(stored.clone()));
        stored
    }

    /// Changes a part of the object that is not the record, such as a label.
    pub fn touch(&mut self) {
        if let Some(mut touched) = self.object.clone() {
            self.revision += 1;
            touched.version.resource_version = self.revision.to_string();
            self.put(Some(touched));
        }
    }

    pub fn delete(&mut self) {
        self.revision += 1;
        self.deletions.push(self.revision);
        self.put(None);
    }

    fn put(&mut self, object: Option<Stored>) {
        self.history.push_back((self.revision, object.clone()));
        if self.history.len() > HISTORY {
            self.compact(1);
        }
        self.object = object;
    }

    /// Drops the history except the last change.
    pub fn compact_all(&mut self) {
        self.compact(self.history.len().saturating_sub(1));
    }

    fn compact(&mut self, changes: usize) {
        for (revision, _) in self.history.drain(..changes) {
            self.compacted = revision;
        }
    }

    /// Returns the revision of the first deletion after `revision`, which a watch delivers next; the current revision
    /// if there was no such deletion.
    pub fn deleted_after(&self, revision: u64) -> u64 {
        self.deletions.iter().copied().find(|deleted| *deleted > revision).unwrap_or(self.revision)
    }

    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Returns the first events of a watch from this version, or `None` if the version is too old.
    pub fn events_since(&self, from: Option<&Version>) -> Option<Vec<WatchEvent>> {
        let Some(from) = from else {
            return Some(self.object.iter().cloned().map(WatchEvent::Changed).collect());
        };
        let from: u64 = from.resource_version.parse().unwrap_or_default();
        if from < self.compacted {
            return None;
        }
        let later = self.history.iter().filter(|(revision, _)| *revision > from);
        Some(later.map(|(_, object)| event(object.as_ref())).collect())
    }

    /// Returns the watch event of the last change.
    pub fn last_event(&self) -> WatchEvent {
        event(self.object.as_ref())
    }
}

fn event(object: Option<&Stored>) -> WatchEvent {
    object.cloned().map_or(WatchEvent::Deleted, WatchEvent::Changed)
}
