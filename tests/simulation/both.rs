//! A candidate whose record lives in two objects: the production pair, read and written one object after
//! the other, as the lock does it.

use std::collections::VecDeque;

use leaderrun_core::election::{Reply, Request};
use leaderrun_core::pair::{Member, Pair};
use leaderrun_core::record::{Record, RunId, Version};

#[derive(Debug, Default)]
pub struct Both {
    seen: Pair,
    /// What the first of two reads has read.
    read: Option<Pair>,
    /// What a write has still to write, and where.
    record: Record,
    writes: VecDeque<(Member, Option<Version>)>,
    under_way: Option<Member>,
    /// Nothing of ours was in either before.
    claims: bool,
    /// How the second of two writes failed, while the first is taken back.
    failed: Option<Reply>,
}

/// What comes next of a request to both.
pub enum Next {
    Send(Member, Request),
    Answer(Reply),
}

impl Both {
    /// Begins a request; the one before it is given up.
    pub fn begin(&mut self, request: Request, run: &RunId) -> Next {
        self.read = None;
        self.failed = None;
        self.writes.clear();
        let (replaced, record) = match request {
            Request::Get => {
                self.read = Some(Pair::default());
                return self.send(Member::First, Request::Get);
            }
            Request::Create(record) => (None, record),
            Request::Update(version, record) => (Some(version), record),
        };
        let Some(writes) = self.seen.writes(replaced.as_ref()) else { return Next::Answer(Reply::Conflict) };
        self.claims = self.seen.is_first_claim(&record, run);
        (self.writes, self.record) = (writes.into(), record);
        self.write_next().expect("there are two writes")
    }

    /// One of the two has answered.
    pub fn answered(&mut self, reply: Reply, run: &RunId) -> Next {
        let place = self.under_way.take().expect("what was sent is answered");
        match (reply, &mut self.read) {
            (Reply::Read(stored), Some(read)) => {
                read.note(place, stored);
                if place == Member::First {
                    return self.send(Member::Second, Request::Get);
                }
                self.seen = self.read.take().unwrap_or_default();
                Next::Answer(Reply::Read(self.seen.stored(run)))
            }
            (Reply::Written(stored), _) => {
                self.seen.note(place, Some(stored));
                if let Some(failed) = self.failed.take() {
                    return Next::Answer(failed);
                }
                let both = self.seen.stored(run).map_or(Reply::Unknown { retry_after: None }, Reply::Written);
                self.write_next().unwrap_or(Next::Answer(both))
            }
            (reply @ (Reply::Conflict | Reply::Refused { .. }), None) if place == Member::Second && self.claims => {
                self.failed = Some(reply);
                let first = self.seen.of(Member::First).expect("it was just written").version.clone();
                self.send(Member::First, Request::Update(first, self.record.clone().taken_back(run)))
            }
            (reply, _) => Next::Answer(reply),
        }
    }

    /// What the first of the two has.
    pub fn first_record(&self) -> Record {
        self.seen.of(Member::First).map(|stored| stored.record.clone()).unwrap_or_default()
    }

    fn write_next(&mut self) -> Option<Next> {
        let (place, replaced) = self.writes.pop_front()?;
        let record = self.record.clone();
        Some(self.send(
            place,
            match replaced {
                Some(version) => Request::Update(version, record),
                None => Request::Create(record),
            },
        ))
    }

    fn send(&mut self, place: Member, request: Request) -> Next {
        self.under_way = Some(place);
        Next::Send(place, request)
    }
}
