//! A candidate whose record lives in two objects: the production requests, one object after the other. Both are read
//! one after the other, too.

use std::mem;
use std::time::Duration;

use leaderrun_core::election::{Reply, Request};
use leaderrun_core::pair::{Member, Pair, PairRequests, PairStep};
use leaderrun_core::record::{Record, RunId, Stored};

use crate::mutation::Mutation;

#[derive(Debug)]
pub struct Both {
    requests: PairRequests,
    under_way: UnderWay,
    keeps_half_claims: bool,
}

/// The request for one object that is under way.
#[expect(clippy::large_enum_variant, reason = "a candidate has one of it")]
#[derive(Debug, Default)]
enum UnderWay {
    #[default]
    Write,
    FirstRead,
    SecondRead {
        first: Option<Stored>,
    },
}

/// What comes next of a request to both.
pub enum Next {
    Send(Member, Request),
    Answer(Reply),
}

impl Both {
    pub fn new(run: RunId, attempt: Duration, mutation: Mutation) -> Self {
        Self {
            requests: PairRequests::new(run, attempt),
            under_way: UnderWay::default(),
            keeps_half_claims: mutation == Mutation::HalfClaimsStay,
        }
    }

    /// Begins a request; the one before it is given up.
    pub fn begin(&mut self, request: Request) -> Next {
        let step = self.requests.begin(request);
        self.follow(step)
    }

    /// One of the two has answered.
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

    /// What the first of the two has.
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
