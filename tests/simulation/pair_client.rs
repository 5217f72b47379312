//! The client of a lock in two objects: the production requests to a pair. It reads the objects one after the other.

use std::mem;
use std::time::Duration;

use leaderrun_core::election::{Reply, Request};
use leaderrun_core::pair::{Member, Pair, PairRequests, PairStep};
use leaderrun_core::record::{Record, RunId, Stored};

use crate::mutation::Mutation;

#[derive(Debug)]
pub struct PairClient {
    requests: PairRequests,
    under_way: UnderWay,
    keeps_half_claims: bool,
}

/// The request for one object that is under way.
#[expect(clippy::large_enum_variant, reason = "a candidate has exactly one")]
#[derive(Debug, Default)]
enum UnderWay {
    #[default]
    Write,
    FirstRead,
    SecondRead {
        first: Option<Stored>,
    },
}

/// The next step of a request to the pair.
pub enum Next {
    Send(Member, Request),
    Answer(Reply),
}

impl PairClient {
    pub fn new(run: RunId, attempt: Duration, mutation: Mutation) -> Self {
        Self {
            requests: PairRequests::new(run, attempt),
            under_way: UnderWay::default(),
            keeps_half_claims: mutation == Mutation::KeepHalfClaims,
        }
    }

    /// Begins a request, and drops the previous one.
    pub fn begin(&mut self, request: Request) -> Next {
        let step = self.requests.begin(request);
        self.follow(step)
    }

    /// Processes a reply from one of the two objects.
    pub fn answered(&mut self, reply: Reply) -> Next {
        let step = match (mem::take(&mut self.under_way), reply) {
            (UnderWay::Write, reply) => self.requests.handle_reply(reply),
            (UnderWay::FirstRead, Reply::Read(first)) => {
                self.under_way = UnderWay::SecondRead { first };
                return Next::Send(Member::Second, Request::Get);
            }
            (UnderWay::SecondRead { first }, Reply::Read(second)) => {
                self.requests.handle_read(Ok(Pair::new(first, second)))
            }
            (UnderWay::FirstRead | UnderWay::SecondRead { .. }, failure) => self.requests.handle_read(Err(failure)),
        };
        if self.keeps_half_claims && matches!(step, PairStep::Write(Member::First, _)) {
            return Next::Answer(Reply::Unknown { retry_after: None });
        }
        self.follow(step)
    }

    /// Returns the record in the first object.
    pub fn first_record(&self) -> Record {
        self.requests.seen().member(Member::First).map(|stored| stored.record.clone()).unwrap_or_default()
    }

    fn follow(&mut self, step: PairStep) -> Next {
        match step {
            PairStep::ReadBoth => {
                self.under_way = UnderWay::FirstRead;
                Next::Send(Member::First, Request::Get)
            }
            PairStep::Write(member, request) => {
                self.under_way = UnderWay::Write;
                Next::Send(member, request)
            }
            PairStep::Answer(reply) => Next::Answer(reply),
        }
    }
}
