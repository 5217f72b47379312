//! The client of a lock in two objects. It uses the production code for pairs, and reads one object after the other.

use std::mem;
use std::time::Duration;

use leaderrun_core::election::{Reply, Request};
use leaderrun_core::pair::{Member, Pair, PairRequests, PairStep};
use leaderrun_core::record::{Record, RunId, Stored};

use crate::mutation::Mutation;

/// One candidate's client for a lock in two objects.
#[derive(Debug)]
pub struct PairClient {
    requests: PairRequests,
    expected_reply: ExpectedReply,
    /// `true` if a claim that was written to only one of the two objects is not rolled back
    /// ([`Mutation::KeepHalfClaims`]).
    keeps_half_claims: bool,
}

/// The reply that is expected next, if a request to one of the two objects is in flight.
#[expect(clippy::large_enum_variant, reason = "a candidate has exactly one")]
#[derive(Debug, Default)]
enum ExpectedReply {
    #[default]
    Write,
    FirstRead,
    SecondRead {
        first: Option<Stored>,
    },
}

/// The next step of a request to the pair.
pub enum NextStep {
    Send(Member, Request),
    Reply(Reply),
}

impl PairClient {
    pub fn new(run: RunId, request_timeout: Duration, mutation: Mutation) -> Self {
        Self {
            requests: PairRequests::new(run, request_timeout),
            expected_reply: ExpectedReply::default(),
            keeps_half_claims: mutation == Mutation::KeepHalfClaims,
        }
    }

    /// Begins a request. If another request is in flight, it is dropped.
    pub fn begin(&mut self, request: Request) -> NextStep {
        let step = self.requests.begin(request);
        self.next_step(step)
    }

    /// Processes a reply from one of the two objects.
    pub fn handle_reply(&mut self, reply: Reply) -> NextStep {
        let step = match (mem::take(&mut self.expected_reply), reply) {
            (ExpectedReply::Write, reply) => self.requests.handle_reply(reply),
            (ExpectedReply::FirstRead, Reply::Read(first)) => {
                self.expected_reply = ExpectedReply::SecondRead { first };
                return NextStep::Send(Member::Second, Request::Get);
            }
            (ExpectedReply::SecondRead { first }, Reply::Read(second)) => {
                self.requests.handle_read(Ok(Pair::new(first, second)))
            }
            (ExpectedReply::FirstRead | ExpectedReply::SecondRead { .. }, failure) => {
                self.requests.handle_read(Err(failure))
            }
        };
        // A write to the first object that follows a reply is always a rollback. With `Mutation::KeepHalfClaims`, it is
        // not sent.
        if self.keeps_half_claims && matches!(step, PairStep::Write(Member::First, _)) {
            return NextStep::Reply(Reply::Unknown { retry_after: None });
        }
        self.next_step(step)
    }

    /// Returns the record that was last seen in the first object.
    pub fn first_record(&self) -> Record {
        self.requests.seen().member(Member::First).map(|stored| stored.record.clone()).unwrap_or_default()
    }

    fn next_step(&mut self, step: PairStep) -> NextStep {
        match step {
            PairStep::ReadBoth => {
                self.expected_reply = ExpectedReply::FirstRead;
                NextStep::Send(Member::First, Request::Get)
            }
            PairStep::Write(member, request) => {
                self.expected_reply = ExpectedReply::Write;
                NextStep::Send(member, request)
            }
            PairStep::Reply(reply) => NextStep::Reply(reply),
        }
    }
}
