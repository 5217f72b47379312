//! A lock whose record is in two objects, for migrating a running system from one kind of lock to another.
//!
//! The holder of such a lock holds both objects, so candidates that use only one of them see that the lock is held.
//! [`leaderrun_core::pair`] combines the two records and orders the writes.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready, try_join};
use futures_util::stream::{self, BoxStream, StreamExt};
use leaderrun_core::election::{Reply, Request, WatchEvent};
use leaderrun_core::pair::{Member, Pair, PairRequests, PairStep};
use leaderrun_core::record::{Record, RunId, Stored, Version};
use tokio::time::{Instant, timeout_at};

use super::{Lock, LockError, LockErrorKind};

/// A lock whose record is in two objects.
pub struct TwoObjectLock {
    first: Box<dyn Lock>,
    second: Box<dyn Lock>,
    requests: Mutex<PairRequests>,
    request_timeout: Duration,
}

impl TwoObjectLock {
    /// Creates a lock over `first`, which candidates use before the migration, and `second`, which they use after it.
    /// `run` identifies the writes of this candidate.
    pub fn new(first: Box<dyn Lock>, second: Box<dyn Lock>, run: RunId, request_timeout: Duration) -> Self {
        Self { first, second, requests: Mutex::new(PairRequests::new(run, request_timeout)), request_timeout }
    }

    async fn carry_out(&self, request: Request) -> Result<Reply, LockError> {
        let started = Instant::now();
        let mut failure = None;
        let mut step = self.requests().begin(request);
        loop {
            let is_half_claimed = self.requests().is_half_claimed();
            step = match step {
                PairStep::Reply(reply) => return to_result(reply, failure),
                PairStep::ReadBoth => {
                    let read = try_join(self.first.get(), self.second.get()).map(|read| read.map(Pair::from));
                    // A claim that reached only one object can be rolled back without the result of this read, so the
                    // read must leave time for that.
                    let read = if is_half_claimed {
                        finish_by(started + self.request_timeout * 5 / 6, read).await
                    } else {
                        read.await
                    };
                    let read = read.map_err(|error| to_reply(error, &mut failure));
                    self.requests().handle_read(read)
                }
                PairStep::Write(member, request) => {
                    let written = write(self.member(member), request);
                    // If this write gets no response, both objects are read again and the claim may be rolled back, so
                    // the write must leave time for that.
                    let written = if is_half_claimed && member == Member::Second {
                        finish_by(started + self.request_timeout * 2 / 3, written).await
                    } else {
                        written.await
                    };
                    let reply = written.map_or_else(|error| to_reply(error, &mut failure), Reply::Written);
                    self.requests().handle_reply(reply)
                }
            };
        }
    }

    async fn read(&self) -> Result<Option<Stored>, LockError> {
        match self.carry_out(Request::Get).await? {
            Reply::Read(stored) => Ok(stored),
            reply => Err(unexpected(&reply)),
        }
    }

    async fn write(&self, request: Request) -> Result<Stored, LockError> {
        match self.carry_out(request).await? {
            Reply::Written(stored) => Ok(stored),
            reply => Err(unexpected(&reply)),
        }
    }

    fn member(&self, member: Member) -> &dyn Lock {
        match member {
            Member::First => &*self.first,
            Member::Second => &*self.second,
        }
    }

    fn requests(&self) -> MutexGuard<'_, PairRequests> {
        self.requests.lock().expect("no thread panics while it holds this lock")
    }

    fn changes(&self, member: Member) -> BoxStream<'_, Result<WatchEvent, LockError>> {
        let from = self.requests().seen().member(member).map(|stored| stored.version.clone());
        let events = self.member(member).watch(from);
        let events = events.filter_map(move |event| {
            let stored = match event {
                Ok(WatchEvent::Changed(stored)) => Some(stored),
                Ok(WatchEvent::Deleted) => None,
                other => return ready(Some(other)),
            };
            let mut requests = self.requests();
            let is_change = requests.handle_watch(member, stored);
            let event = requests.stored().map_or(WatchEvent::Deleted, WatchEvent::Changed);
            ready(is_change.then_some(Ok(event)))
        });
        // When one watch ends, the election resumes both.
        events.chain(stream::iter([Ok(WatchEvent::Ended)])).boxed()
    }
}

/// Waits for the result of a request until `deadline`.
async fn finish_by<T>(deadline: Instant, request: impl Future<Output = Result<T, LockError>>) -> Result<T, LockError> {
    let timeout_error =
        |_| LockError::new(LockErrorKind::Unknown, "a request to one of the two objects got no response in time");
    timeout_at(deadline, request).await.unwrap_or_else(|elapsed| Err(timeout_error(elapsed)))
}

async fn write(lock: &dyn Lock, request: Request) -> Result<Stored, LockError> {
    match request {
        Request::Create(record) => lock.create(record).await,
        Request::Update(version, record) => lock.update(version, record).await,
        Request::Get => unreachable!("reads go to both objects"),
    }
}

/// Converts an error into a reply. The first error is stored in `failure`, for the log.
fn to_reply(error: LockError, failure: &mut Option<LockError>) -> Reply {
    let reply = error.to_reply();
    failure.get_or_insert(error);
    reply
}

/// Converts the reply of the pair, with the first error from a request as the reason.
fn to_result(reply: Reply, failure: Option<LockError>) -> Result<Reply, LockError> {
    let (kind, retry_after) = match reply {
        Reply::Read(_) | Reply::Written(_) => return Ok(reply),
        Reply::Conflict => (LockErrorKind::Conflict, None),
        Reply::Refused { retry_after } => (LockErrorKind::Refused, retry_after),
        Reply::Unknown { retry_after } => (LockErrorKind::Unknown, retry_after),
    };
    Err(match failure {
        // A forbidden request is refused as well, and its error is more specific.
        Some(failure) if kind == LockErrorKind::Refused && failure.kind == LockErrorKind::Forbidden => {
            LockError { retry_after, ..failure }
        }
        Some(failure) => LockError { kind, retry_after, ..failure },
        None if kind == LockErrorKind::Conflict => LockError::new(kind, "the objects have changed"),
        None => {
            let message = "a claim that reached only one of the two objects was rolled back";
            LockError { retry_after, ..LockError::new(kind, message) }
        }
    })
}

fn unexpected(reply: &Reply) -> LockError {
    LockError::new(LockErrorKind::Unknown, format!("unexpected reply from the two objects: {reply:?}"))
}

impl Lock for TwoObjectLock {
    fn get(&self) -> BoxFuture<'_, Result<Option<Stored>, LockError>> {
        self.read().boxed()
    }

    fn create(&self, record: Record) -> BoxFuture<'_, Result<Stored, LockError>> {
        self.write(Request::Create(record)).boxed()
    }

    fn update(&self, version: Version, record: Record) -> BoxFuture<'_, Result<Stored, LockError>> {
        self.write(Request::Update(version, record)).boxed()
    }

    fn waiting_for(&self) -> Option<String> {
        self.first.waiting_for()
    }

    fn watch(&self, _from: Option<Version>) -> BoxStream<'_, Result<WatchEvent, LockError>> {
        stream::select(self.changes(Member::First), self.changes(Member::Second)).boxed()
    }

    /// Returns the token of the second object, because candidates use that object after the migration.
    fn fencing_token(&self, resource_version: &str) -> String {
        Pair::second_resource_version(resource_version).to_owned()
    }

    fn uids(&self, uid: &str) -> Vec<String> {
        Pair::uids(uid).map(str::to_owned).collect()
    }
}
