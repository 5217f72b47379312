//! Splits requests to a pair of objects into requests to the individual objects.

use core::mem;
use core::time::Duration;

use super::{Member, Pair, Viewer};
use crate::election::{Reply, Request};
use crate::record::{Record, RunId, Stored, Version};

/// The longest pause after the rollback of a claim.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Splits each request to the pair into requests to the individual objects.
///
/// A write goes to the first object and then to the second. A claim that is only in the first object (a half claim)
/// would block all candidates that use only that object, although nobody leads. Therefore it is rolled back when the
/// second write fails, or by the next read if the request was dropped between the two writes. If the second write gets
/// no reply, it may have succeeded, so both objects are read before anything is rolled back. After a rollback there is
/// a pause in which others can acquire the lock, unless one of them has just changed the second object. Each further
/// pause is twice as long, up to a minute. The writes of a leader are never rolled back, because its command may be
/// alive.
#[derive(Clone, Debug, Hash)]
pub struct PairRequests {
    seen: Pair,
    viewer: Viewer,
    /// The pause after the next rollback.
    pause: Duration,
    state: State,
}

/// The next step of a request to the pair.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PairStep {
    /// Read both objects, concurrently or in any order, and call [`PairRequests::handle_read`].
    ReadBoth,
    /// Send this write to one object, and call [`PairRequests::handle_reply`].
    Write(Member, Request),
    /// The request is finished with this reply.
    Reply(Reply),
}

#[derive(Clone, Debug, Hash)]
enum State {
    Idle,
    Reading,
    WritingFirst {
        record: Record,
        /// The version that the write to the second object replaces; `None` if that write creates the object.
        replaced_second: Option<Version>,
    },
    WritingSecond,
    /// The result of the second write of a claim is not known, so both objects are read again.
    Rereading {
        failure: Reply,
    },
    /// A half claim is being rolled back because of this failure.
    RollingBack {
        failure: Reply,
    },
}

impl PairRequests {
    /// Creates the state for the requests of a run. `timeout` is the timeout of one request to the pair; the pause
    /// after the first rollback is twice as long.
    pub fn new(run: RunId, timeout: Duration) -> Self {
        Self { seen: Pair::default(), viewer: Viewer::new(run), pause: timeout * 2, state: State::Idle }
    }

    /// Returns the last known contents of both objects.
    pub fn seen(&self) -> &Pair {
        &self.seen
    }

    /// Returns the combined record and version of both objects; `None` if neither object exists.
    pub fn stored(&self) -> Option<Stored> {
        self.seen.stored(&self.viewer)
    }

    /// Returns whether the first object contains a claim of this run that must be rolled back.
    pub fn is_half_claimed(&self) -> bool {
        self.seen.is_half_claimed(Member::First, &self.viewer)
    }

    /// Processes the contents of one object from a watch. Returns whether the election must observe the new combined
    /// record. Returns false if the object contains a half claim of this run, which is handled when the reply to the
    /// claim arrives.
    pub fn handle_watch(&mut self, member: Member, stored: Option<Stored>) -> bool {
        self.set_seen(member, stored);
        !self.seen.is_half_claimed(member, &self.viewer)
    }

    /// Begins a request. If the previous request is still pending, it is dropped.
    pub fn begin(&mut self, request: Request) -> PairStep {
        let (replaced, record) = match request {
            Request::Get => {
                self.state = State::Reading;
                return PairStep::ReadBoth;
            }
            Request::Create(record) => (None, record),
            Request::Update(version, record) => (Some(version), record),
        };
        let Some([replaced_first, replaced_second]) = self.seen.versions_to_replace(replaced.as_ref()) else {
            return self.finish(Reply::Conflict);
        };
        self.state = State::WritingFirst { record: record.clone(), replaced_second };
        PairStep::Write(Member::First, write_request(replaced_first, record))
    }

    /// Processes the result of reading both objects. The result is a failure if either of the two reads has failed.
    pub fn handle_read(&mut self, read: Result<Pair, Reply>) -> PairStep {
        let state = mem::replace(&mut self.state, State::Idle);
        let read_failure = match read {
            Ok(pair) => {
                self.seen = pair;
                self.update_may_lead();
                None
            }
            Err(failure) => Some(failure),
        };
        match state {
            State::Rereading { .. } if read_failure.is_none() && self.seen.is_held_in_both_by(&self.viewer) => {
                self.finish_written()
            }
            State::Rereading { .. } if read_failure.is_none() && !self.is_half_claimed() => {
                self.finish(Reply::Conflict)
            }
            State::Rereading { failure } => self.roll_back(failure),
            // The rollback outdates what was read. After a refusal the election reads again, once the pause is over.
            _ if self.is_half_claimed() => self.roll_back(read_failure.unwrap_or(Reply::Refused { retry_after: None })),
            _ => self.finish(read_failure.unwrap_or_else(|| Reply::Read(self.stored()))),
        }
    }

    /// Processes the reply to a write to one object.
    pub fn handle_reply(&mut self, reply: Reply) -> PairStep {
        match (mem::replace(&mut self.state, State::Idle), reply) {
            (State::WritingFirst { record, replaced_second }, Reply::Written(stored)) => {
                self.set_seen(Member::First, Some(stored));
                self.state = State::WritingSecond;
                PairStep::Write(Member::Second, write_request(replaced_second, record))
            }
            (State::WritingSecond, Reply::Written(stored)) => {
                self.set_seen(Member::Second, Some(stored));
                self.finish_written()
            }
            (State::WritingSecond, failure) if self.is_half_claimed() => match failure {
                Reply::Unknown { .. } => {
                    self.state = State::Rereading { failure };
                    PairStep::ReadBoth
                }
                failure => self.roll_back(failure),
            },
            (State::RollingBack { failure }, Reply::Written(stored)) => {
                self.set_seen(Member::First, Some(stored));
                let pause = self.pause.min(MAX_PAUSE);
                self.pause = pause * 2;
                self.finish(with_pause(failure, pause))
            }
            // The half claim may still be there. After an unknown result the election reads again, and that read rolls
            // the claim back.
            (State::RollingBack { .. }, _) => self.finish(Reply::Unknown { retry_after: None }),
            (_, reply) => self.finish(reply),
        }
    }

    fn roll_back(&mut self, failure: Reply) -> PairStep {
        let Some(Stored { record, version }) = self.seen.member(Member::First).cloned() else {
            return self.finish(failure);
        };
        self.state = State::RollingBack { failure };
        self.viewer.rolled_back = record.renew_time;
        let rolled_back = record.into_rolled_back(&self.viewer.run);
        PairStep::Write(Member::First, Request::Update(version, rolled_back))
    }

    fn finish_written(&mut self) -> PairStep {
        self.finish(self.stored().map_or(Reply::Unknown { retry_after: None }, Reply::Written))
    }

    fn finish(&mut self, reply: Reply) -> PairStep {
        self.state = State::Idle;
        PairStep::Reply(reply)
    }

    fn set_seen(&mut self, member: Member, stored: Option<Stored>) {
        self.seen.set(member, stored);
        self.update_may_lead();
    }

    fn update_may_lead(&mut self) {
        self.viewer.may_lead |= self.seen.is_held_in_both_by(&self.viewer);
    }
}

fn write_request(replaced: Option<Version>, record: Record) -> Request {
    match replaced {
        Some(version) => Request::Update(version, record),
        None => Request::Create(record),
    }
}

/// Returns this failure with a pause before the next request. A conflict is returned unchanged: another client has
/// changed the record, so it is read at once.
fn with_pause(failure: Reply, pause: Duration) -> Reply {
    match failure {
        Reply::Refused { retry_after } => {
            Reply::Refused { retry_after: Some(retry_after.unwrap_or_default().max(pause)) }
        }
        Reply::Unknown { retry_after } => {
            Reply::Unknown { retry_after: Some(retry_after.unwrap_or_default().max(pause)) }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests;
