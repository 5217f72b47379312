//! The record in two objects at once, for moving a running system from one kind of lock to another:
//! client-go's multilock.
//!
//! Who holds the lock holds both; candidates that know only one of the two see it held there. What is
//! read is made of both records so that whatever keeps somebody alive in either of them counts:
//!
//! - Both bear the same write of one run, or another run is in between its two writes: that is the record.
//! - One is held and the other is not: the held one.
//! - Both are held, and not by one write: held by somebody unknown, for the longer of the two durations.

use std::sync::Mutex;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt};

use super::{Lock, LockError, LockErrorKind, ObjectLock};
use crate::election::WatchEvent;
use crate::election::record::{Record, RunId, Stored, Version};

/// What client-go calls a holder when the two records name different ones.
const UNKNOWN_HOLDER: &str = "leaderelection.k8s.io/unknown";

/// Between the parts of a version. In neither a uid nor a resourceVersion.
const SEPARATOR: char = '+';

/// A record in two objects.
pub struct BothLocks {
    first: ObjectLock,
    second: ObjectLock,
    run: RunId,
    seen: Mutex<Seen>,
}

/// What each object was last seen to have.
#[derive(Clone, Debug, Default)]
struct Seen {
    first: Option<Stored>,
    second: Option<Stored>,
}

impl BothLocks {
    /// The records in `first`, where the present candidates look, and `second`, where the future ones
    /// will. `run` is whose writes are ours.
    pub fn new(first: ObjectLock, second: ObjectLock, run: RunId) -> Self {
        Self { first, second, run, seen: Mutex::default() }
    }

    async fn read(&self) -> Result<Option<Stored>, LockError> {
        let seen = Seen { first: self.first.get().await?, second: self.second.get().await? };
        Ok(self.note(|noted| *noted = seen))
    }

    async fn write(&self, expected: Option<Version>, record: Record) -> Result<Stored, LockError> {
        let seen = self.seen();
        if seen.version() != expected {
            return Err(LockError::new(LockErrorKind::Conflict, "the objects have changed"));
        }
        let first = put(&self.first, seen.first, record.clone()).await?;
        self.note(|noted| noted.first = Some(first));
        let second = put(&self.second, seen.second, record).await?;
        let stored = self.note(|noted| noted.second = Some(second));
        stored.ok_or_else(|| LockError::new(LockErrorKind::Unknown, "written and gone"))
    }

    fn seen(&self) -> Seen {
        self.seen.lock().expect("nothing panics while it is held").clone()
    }

    /// Takes in what one object has, and returns what both make together.
    fn note(&self, change: impl FnOnce(&mut Seen)) -> Option<Stored> {
        let mut seen = self.seen.lock().expect("nothing panics while it is held");
        change(&mut seen);
        Some(Stored { version: seen.version()?, record: seen.record(&self.run) })
    }

    fn changes<'a>(
        &'a self,
        lock: &'a ObjectLock,
        from: Option<Stored>,
        place: fn(&mut Seen) -> &mut Option<Stored>,
    ) -> BoxStream<'a, Result<WatchEvent, LockError>> {
        let events = lock.watch(from.map(|stored| stored.version));
        let events = events.map(move |event| {
            let stored = match event? {
                WatchEvent::Changed(stored) => Some(stored),
                WatchEvent::Deleted => None,
                other => return Ok(other),
            };
            let both = self.note(|seen| *place(seen) = stored);
            Ok(both.map_or(WatchEvent::Deleted, WatchEvent::Changed))
        });
        // One of the two ending in good order ends both: the election takes them up again together.
        events.chain(stream::iter([Ok(WatchEvent::Ended)])).boxed()
    }
}

async fn put(lock: &ObjectLock, seen: Option<Stored>, record: Record) -> Result<Stored, LockError> {
    match seen {
        Some(stored) => lock.update(stored.version, record).await,
        None => lock.create(record).await,
    }
}

impl Seen {
    fn version(&self) -> Option<Version> {
        let part = |part: fn(&Version) -> &str| {
            let of = |stored: &Option<Stored>| stored.as_ref().map_or("", |stored| part(&stored.version)).to_owned();
            format!("{}{SEPARATOR}{}", of(&self.first), of(&self.second))
        };
        let anything = self.first.is_some() || self.second.is_some();
        anything.then(|| Version {
            uid: part(|version| &version.uid),
            resource_version: part(|version| &version.resource_version),
        })
    }

    fn record(&self, run: &RunId) -> Record {
        let of = |stored: &Option<Stored>| stored.as_ref().map(|stored| stored.record.clone()).unwrap_or_default();
        let (first, second) = (of(&self.first), of(&self.second));
        if first.mark().is_some() && first.mark() == second.mark() && first.holder_identity == second.holder_identity {
            return first;
        }
        if let (Some(one), Some(other)) = (first.mark(), second.mark())
            && (one.run == other.run && one.run != *run)
        {
            // In between the two writes of another run.
            return if first.is_held() { first } else { second };
        }
        // A write of ours that reached only one of the two keeps nobody alive.
        let held = |record: &Record| record.is_held() && record.mark().is_none_or(|mark| mark.run != *run);
        match (held(&first), held(&second)) {
            (true, false) => first,
            (false, true) => second,
            (false, false) => Record { holder_identity: String::new(), run: None, ..first },
            (true, true) => Record {
                holder_identity: UNKNOWN_HOLDER.to_owned(),
                lease_duration_seconds: first.lease_duration_seconds.max(second.lease_duration_seconds),
                // Both times are in it: a change of either is a change.
                acquire_time: second.renew_time,
                renew_time: first.renew_time,
                lease_transitions: first.lease_transitions.max(second.lease_transitions),
                ..Record::default()
            },
        }
    }
}

impl Lock for BothLocks {
    fn get(&self) -> BoxFuture<'_, Result<Option<Stored>, LockError>> {
        self.read().boxed()
    }

    fn create(&self, record: Record) -> BoxFuture<'_, Result<Stored, LockError>> {
        self.write(None, record).boxed()
    }

    fn update(&self, version: Version, record: Record) -> BoxFuture<'_, Result<Stored, LockError>> {
        self.write(Some(version), record).boxed()
    }

    fn watch(&self, _from: Option<Version>) -> BoxStream<'_, Result<WatchEvent, LockError>> {
        let Seen { first, second } = self.seen();
        let first = self.changes(&self.first, first, |seen| &mut seen.first);
        let second = self.changes(&self.second, second, |seen| &mut seen.second);
        stream::select(first, second).boxed()
    }

    /// That of the second object: the kind that stays when the move is over.
    fn fencing_token(&self, resource_version: &str) -> String {
        resource_version.rsplit(SEPARATOR).next().unwrap_or_default().to_owned()
    }

    fn uids(&self, uid: &str) -> Vec<String> {
        uid.split(SEPARATOR).map(str::to_owned).collect()
    }
}
