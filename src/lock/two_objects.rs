//! The record in two objects at once, for moving a running system from one kind of lock to another.
//!
//! The holder of such a lock holds both objects; candidates that know only one of them see it held there. What both say
//! together, and in which order they are written, is in [`leaderrun_core::pair`].

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

/// A record in two objects.
pub struct TwoObjectLock {
    first: Box<dyn Lock>,
    second: Box<dyn Lock>,
    requests: Mutex<PairRequests>,
    attempt: Duration,
}

impl TwoObjectLock {
    /// The record in `first`, which the present candidates use, and `second`, which future ones will. `run` is the run
    /// that writes, and `attempt` how long one request may take.
    pub fn new(first: Box<dyn Lock>, second: Box<dyn Lock>, run: RunId, attempt: Duration) -> Self {
        Self { first, second, requests: Mutex::new(PairRequests::new(run, attempt)), attempt }
    }

    async fn carry_out(&self, request: Request) -> Result<Reply, LockError> {
        let started = Instant::now();
        let mut failure = None;
        let mut step = self.requests().begin(request);
        loop {
            let is_half_claimed = self.requests().is_half_claimed();
            step = match step {
                PairStep::Answer(reply) => return answer(reply, failure),
                PairStep::ReadBoth => {
                    let read = try_join(self.first.get(), self.second.get()).map(|read| read.map(Pair::from));
                    // Half a claim can be given back without knowing more, if there is time for that.
                    let read = match is_half_claimed {
                        true => answered_by(started + self.attempt * 5 / 6, read).await,
                        false => read.await,
                    };
                    let read = read.map_err(|error| note(&mut failure, error));
                    self.requests().handle_read(read)
                }
                PairStep::Write(member, request) => {
                    let written = write(self.member(member), request);
                    let written = match is_half_claimed && member == Member::Second {
                        true => answered_by(started + self.attempt * 2 / 3, written).await,
                        false => written.await,
                    };
                    let reply = written.map_or_else(|error| note(&mut failure, error), Reply::Written);
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
        self.requests.lock().expect("nothing panics while it is held")
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
            let is_news = requests.handle_watch(member, stored);
            let both = requests.stored().map_or(WatchEvent::Deleted, WatchEvent::Changed);
            ready(is_news.then_some(Ok(both)))
        });
        // When one watch ends, the election takes up both again.
        events.chain(stream::iter([Ok(WatchEvent::Ended)])).boxed()
    }
}

/// Waits for an answer until a moment at which there is still time for another request.
async fn answered_by<T>(limit: Instant, answer: impl Future<Output = Result<T, LockError>>) -> Result<T, LockError> {
    let late = |_| LockError::new(LockErrorKind::Unknown, "one of the two objects does not answer");
    timeout_at(limit, answer).await.unwrap_or_else(|elapsed| Err(late(elapsed)))
}

async fn write(lock: &dyn Lock, request: Request) -> Result<Stored, LockError> {
    match request {
        Request::Create(record) => lock.create(record).await,
        Request::Update(version, record) => lock.update(version, record).await,
        Request::Get => unreachable!("both objects are read at once"),
    }
}

/// Keeps the first error for the log, and returns what it means.
fn note(failure: &mut Option<LockError>, error: LockError) -> Reply {
    let reply = error.to_reply();
    failure.get_or_insert(error);
    reply
}

fn answer(reply: Reply, failure: Option<LockError>) -> Result<Reply, LockError> {
    let (kind, retry_after) = match reply {
        Reply::Read(_) | Reply::Written(_) => return Ok(reply),
        Reply::Conflict => (LockErrorKind::Conflict, None),
        Reply::Refused { retry_after } => (LockErrorKind::Refused, retry_after),
        Reply::Unknown { retry_after } => (LockErrorKind::Unknown, retry_after),
    };
    Err(match failure {
        // Not allowed is refused, too, and says more.
        Some(failure) if kind == LockErrorKind::Refused && failure.kind == LockErrorKind::Forbidden => {
            LockError { retry_after, ..failure }
        }
        Some(failure) => LockError { kind, retry_after, ..failure },
        None if kind == LockErrorKind::Conflict => LockError::new(kind, "the objects have changed"),
        None => {
            let message = "a claim that reached only one of the two objects was given back";
            LockError { retry_after, ..LockError::new(kind, message) }
        }
    })
}

fn unexpected(reply: &Reply) -> LockError {
    LockError::new(LockErrorKind::Unknown, format!("the two objects answered {reply:?}"))
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

    fn pending(&self) -> Option<String> {
        self.first.pending()
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
