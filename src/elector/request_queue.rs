//! The queue of the requests of all slots, which sends one request at a time. A write that has timed out may continue
//! during the next request, because its reply still counts.
//!
//! All slots share one connection to the API server. If each slot had its own connection, a leader whose renewal gets
//! no response would next use another slot's connection from the pool, which is probably just as dead.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::TryFutureExt;
use futures_util::future::BoxFuture;
use leaderrun_core::election::{Reply, Request};
use leaderrun_core::record::Stored;

use super::error_throttle::RequestKind;
use crate::lock::{Lock, LockError};

/// The maximum number of late writes whose replies are awaited. More would keep more connections open.
const MAX_LATE_WRITES: usize = 2;

/// The result of a request, with the slot and the kind of the request.
pub type RequestResult = (usize, RequestKind, Result<Reply, LockError>);

/// Sends one request after another.
pub struct RequestQueue<'a> {
    locks: Vec<&'a dyn Lock>,
    waiting: VecDeque<(usize, Request)>,
    pending: Option<PendingRequest<'a>>,
    /// The writes that were replaced by another request before their replies arrived, the oldest first.
    late_writes: VecDeque<PendingRequest<'a>>,
}

struct PendingRequest<'a> {
    slot: usize,
    kind: RequestKind,
    result: BoxFuture<'a, Result<Reply, LockError>>,
}

impl<'a> RequestQueue<'a> {
    /// Creates an empty queue for the locks of all slots.
    pub fn new(locks: Vec<&'a dyn Lock>) -> Self {
        Self { locks, waiting: VecDeque::new(), pending: None, late_writes: VecDeque::new() }
    }

    /// Adds a request of a slot, and replaces the slot's previous request. If the previous request was pending, returns
    /// its kind. If it was also a write, and the lock allows late writes, its reply is still awaited.
    pub fn add(&mut self, slot: usize, request: Request) -> Option<RequestKind> {
        let replaced = self.pending.take_if(|pending| pending.slot == slot);
        let replaced_kind = replaced.as_ref().map(|replaced| replaced.kind);
        let may_be_late = |replaced: &PendingRequest| {
            replaced.kind == RequestKind::Write && self.locks[replaced.slot].allows_late_writes()
        };
        self.late_writes.extend(replaced.filter(may_be_late));
        if self.late_writes.len() > MAX_LATE_WRITES {
            self.late_writes.pop_front();
        }
        self.waiting.retain(|(queued_slot, _)| *queued_slot != slot);
        // A write, such as a claim, is more urgent than the reads of other slots.
        match kind_of(&request) {
            RequestKind::Write => self.waiting.push_front((slot, request)),
            RequestKind::Read => self.waiting.push_back((slot, request)),
        }
        replaced_kind
    }

    /// Drops the requests of the slots that no longer await a reply. Otherwise the requests of other slots would wait
    /// for them, possibly forever.
    pub fn retain(&mut self, awaits_reply: impl Fn(usize) -> bool) {
        self.pending.take_if(|pending| !awaits_reply(pending.slot));
        self.waiting.retain(|(slot, _)| awaits_reply(*slot));
    }

    /// Sends the next request, unless one is pending. Returns its slot and the request.
    pub fn send_next(&mut self) -> Option<(usize, Request)> {
        if self.pending.is_some() {
            return None;
        }
        let (slot, request) = self.waiting.pop_front()?;
        let lock = self.locks[slot];
        let result = match request.clone() {
            Request::Get => lock.get().map_ok(Reply::Read).boxed(),
            Request::Create(record) => lock.create(record).map_ok(Reply::Written).boxed(),
            Request::Update(version, record) => lock.update(version, record).map_ok(Reply::Written).boxed(),
        };
        self.pending = Some(PendingRequest { slot, kind: kind_of(&request), result });
        Some((slot, request))
    }

    /// Returns the result of the pending request, once there is one.
    pub fn poll_result(&mut self, context: &mut Context<'_>) -> Poll<RequestResult> {
        let Some(PendingRequest { slot, kind, result }) = &mut self.pending else { return Poll::Pending };
        let (slot, kind) = (*slot, *kind);
        result.poll_unpin(context).map(|result| {
            self.pending = None;
            (slot, kind, result)
        })
    }

    /// Returns the record that a late write has stored, once its reply has arrived. Other replies to late writes are
    /// ignored.
    pub fn poll_late_write(&mut self, context: &mut Context<'_>) -> Poll<(usize, Stored)> {
        let mut index = 0;
        while let Some(write) = self.late_writes.get_mut(index) {
            let Poll::Ready(result) = write.result.poll_unpin(context) else {
                index += 1;
                continue;
            };
            let slot = write.slot;
            self.late_writes.remove(index);
            if let Ok(Reply::Written(stored)) = result {
                return Poll::Ready((slot, stored));
            }
        }
        Poll::Pending
    }
}

fn kind_of(request: &Request) -> RequestKind {
    match request {
        Request::Get => RequestKind::Read,
        Request::Create(_) | Request::Update(..) => RequestKind::Write,
    }
}
