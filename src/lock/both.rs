//! The record in two objects at once, for moving a running system from one kind of lock to another:
//! client-go's multilock.
//!
//! Who holds the lock holds both; candidates that know only one of the two see it held there. What both
//! make together is in [`leaderrun_core::pair`].

use std::sync::Mutex;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready, try_join};
use futures_util::stream::{self, BoxStream, StreamExt};
use leaderrun_core::election::WatchEvent;
use leaderrun_core::pair::{Member, Pair};
use leaderrun_core::record::{Record, RunId, Stored, Version};

use super::{Lock, LockError, LockErrorKind, ObjectLock};

/// A record in two objects.
pub struct BothLocks {
    first: ObjectLock,
    second: ObjectLock,
    run: RunId,
    seen: Mutex<Pair>,
}

impl BothLocks {
    /// The records in `first`, where the present candidates look, and `second`, where the future ones
    /// will. `run` is whose writes are ours.
    pub fn new(first: ObjectLock, second: ObjectLock, run: RunId) -> Self {
        Self { first, second, run, seen: Mutex::default() }
    }

    async fn read(&self) -> Result<Option<Stored>, LockError> {
        let (first, second) = try_join(self.first.get(), self.second.get()).await?;
        Ok(self.note(|seen| *seen = Pair::new(first, second)))
    }

    async fn write(&self, expected: Option<Version>, record: Record) -> Result<Stored, LockError> {
        let conflict = || LockError::new(LockErrorKind::Conflict, "the objects have changed");
        let before = self.seen();
        let [(_, first), (_, second)] = before.writes(expected.as_ref()).ok_or_else(conflict)?;
        let written = put(&self.first, first, record.clone()).await?;
        let version = written.version.clone();
        self.note(|seen| seen.note(Member::First, Some(written)));
        let claims = before.is_first_claim(&record, &self.run);
        let taken_back = record.clone().taken_back(&self.run);
        let refusal = match put(&self.second, second, record).await {
            Ok(written) => {
                let both = self.note(|seen| seen.note(Member::Second, Some(written)));
                return both.ok_or_else(|| LockError::new(LockErrorKind::Unknown, "written and gone"));
            }
            Err(refusal) => refusal,
        };
        // A claim that certainly does not get both keeps nobody out of the first.
        if claims && refusal.kind != LockErrorKind::Unknown {
            let free = self.first.update(version, taken_back).await?;
            self.note(|seen| seen.note(Member::First, Some(free)));
        }
        Err(refusal)
    }

    fn object(&self, member: Member) -> &ObjectLock {
        match member {
            Member::First => &self.first,
            Member::Second => &self.second,
        }
    }

    fn seen(&self) -> Pair {
        self.seen.lock().expect("nothing panics while it is held").clone()
    }

    /// Takes in what one object has, and returns what both make together.
    fn note(&self, change: impl FnOnce(&mut Pair)) -> Option<Stored> {
        let mut seen = self.seen.lock().expect("nothing panics while it is held");
        change(&mut seen);
        seen.stored(&self.run)
    }

    fn changes(&self, member: Member) -> BoxStream<'_, Result<WatchEvent, LockError>> {
        let from = self.seen().of(member).map(|stored| stored.version.clone());
        let events = self.object(member).watch(from);
        let events = events.filter_map(move |event| {
            let stored = match event {
                Ok(WatchEvent::Changed(stored)) => Some(stored),
                Ok(WatchEvent::Deleted) => None,
                other => return ready(Some(other)),
            };
            let both = self.note(|seen| seen.note(member, stored));
            let is_news = !self.seen().is_half_claimed(member, &self.run);
            ready(is_news.then(|| Ok(both.map_or(WatchEvent::Deleted, WatchEvent::Changed))))
        });
        // One of the two ending cleanly ends both: the election takes them up again together.
        events.chain(stream::iter([Ok(WatchEvent::Ended)])).boxed()
    }
}

async fn put(lock: &ObjectLock, replaced: Option<Version>, record: Record) -> Result<Stored, LockError> {
    match replaced {
        Some(version) => lock.update(version, record).await,
        None => lock.create(record).await,
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
        stream::select(self.changes(Member::First), self.changes(Member::Second)).boxed()
    }

    /// That of the second object: the kind that stays when the move is over.
    fn fencing_token(&self, resource_version: &str) -> String {
        Pair::second_resource_version(resource_version).to_owned()
    }

    fn uids(&self, uid: &str) -> Vec<String> {
        Pair::uids(uid).map(str::to_owned).collect()
    }
}
