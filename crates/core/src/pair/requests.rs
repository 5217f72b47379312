//! Requests for the record of both objects, as requests for one object at a time.

use core::mem;
use core::time::Duration;

use super::{Member, Pair, Viewer};
use crate::election::{Reply, Request};
use crate::record::{Record, RunId, Stored, Version};

/// The longest pause after claims that could not be written to both objects.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Turns each request for both objects into requests for one.
///
/// A write goes to the first object and then to the second. A claim that is in the first object only keeps everybody
/// out who uses just that one, though nobody leads. So it is given back as soon as the second write has failed, and
/// also by the next read if the request was given up in between; then there is a pause, doubled each time, in which
/// others can acquire the lock. What a leader writes is never given back: its command is alive.
#[derive(Clone, Debug, Hash)]
pub struct PairRequests {
    seen: Pair,
    viewer: Viewer,
    pause: Duration,
    state: State,
}

/// What comes next of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PairStep {
    /// Read both objects, at once or one after the other, and call [`PairRequests::handle_read`].
    ReadBoth,
    /// Send a write to this object, and call [`PairRequests::handle_reply`].
    Write(Member, Request),
    /// This is the reply to the request for both.
    Answer(Reply),
}

#[derive(Clone, Debug, Hash)]
enum State {
    Idle,
    Reading,
    WritingFirst {
        record: Record,
        second: Option<Version>,
    },
    WritingSecond,
    /// The second write of a claim failed like this, and may have been carried out all the same.
    LookingAgain {
        failure: Reply,
    },
    /// Half a claim is given back; the request failed like this.
    GivingBack {
        failure: Reply,
    },
}

impl PairRequests {
    /// Requests of this run. `attempt` is how long one request for both may take.
    pub fn new(run: RunId, attempt: Duration) -> Self {
        Self { seen: Pair::default(), viewer: Viewer::new(run), pause: attempt * 2, state: State::Idle }
    }

    /// Returns what both objects were last seen to contain.
    pub fn seen(&self) -> &Pair {
        &self.seen
    }

    /// Returns what both objects say together.
    pub fn stored(&self) -> Option<Stored> {
        self.seen.stored(&self.viewer)
    }

    /// Returns whether the first object has a claim of this run that the second has not.
    pub fn is_half_claimed(&self) -> bool {
        self.seen.is_half_claimed(Member::First, &self.viewer)
    }

    /// Takes in what a watch says of one object. False if it is only half a claim of this run, which the reply to its
    /// request deals with.
    pub fn handle_watch(&mut self, member: Member, stored: Option<Stored>) -> bool {
        self.note(member, stored);
        !self.seen.is_half_claimed(member, &self.viewer)
    }

    /// Begins a request. The one before it is given up if it was not answered.
    pub fn begin(&mut self, request: Request) -> PairStep {
        let (replaced, record) = match request {
            Request::Get => {
                self.state = State::Reading;
                return PairStep::ReadBoth;
            }
            Request::Create(record) => (None, record),
            Request::Update(version, record) => (Some(version), record),
        };
        let Some([first, second]) = self.seen.writes(replaced.as_ref()) else { return self.answer(Reply::Conflict) };
        self.state = State::WritingFirst { record: record.clone(), second };
        PairStep::Write(Member::First, write(first, record))
    }

    /// Both objects were read, or reading one of them failed.
    pub fn handle_read(&mut self, read: Result<Pair, Reply>) -> PairStep {
        let state = mem::replace(&mut self.state, State::Idle);
        let refused = match read {
            Ok(pair) => {
                self.seen = pair;
                self.note_leadership();
                None
            }
            Err(failure) => Some(failure),
        };
        match state {
            State::LookingAgain { .. } if refused.is_none() && self.seen.is_held_in_both_by(&self.viewer) => {
                self.answer_written()
            }
            State::LookingAgain { .. } if refused.is_none() && !self.is_half_claimed() => self.answer(Reply::Conflict),
            State::LookingAgain { failure } => self.give_back(failure),
            _ if self.is_half_claimed() => self.give_back(refused.unwrap_or(Reply::Refused { retry_after: None })),
            _ => self.answer(refused.unwrap_or_else(|| Reply::Read(self.stored()))),
        }
    }

    /// A write to one object was answered.
    pub fn handle_reply(&mut self, reply: Reply) -> PairStep {
        match (mem::replace(&mut self.state, State::Idle), reply) {
            (State::WritingFirst { record, second }, Reply::Written(stored)) => {
                self.note(Member::First, Some(stored));
                self.state = State::WritingSecond;
                PairStep::Write(Member::Second, write(second, record))
            }
            (State::WritingSecond, Reply::Written(stored)) => {
                self.note(Member::Second, Some(stored));
                self.answer_written()
            }
            (State::WritingSecond, failure) if self.is_half_claimed() => match failure {
                Reply::Unknown { .. } => {
                    self.state = State::LookingAgain { failure };
                    PairStep::ReadBoth
                }
                failure => self.give_back(failure),
            },
            (State::GivingBack { failure }, Reply::Written(stored)) => {
                self.note(Member::First, Some(stored));
                let pause = self.pause.min(MAX_PAUSE);
                self.pause = pause * 2;
                self.answer(with_pause(failure, pause))
            }
            // It stays until the next read, which there has to be.
            (State::GivingBack { .. }, _) => self.answer(Reply::Unknown { retry_after: None }),
            (_, reply) => self.answer(reply),
        }
    }

    fn give_back(&mut self, failure: Reply) -> PairStep {
        let Some(Stored { record, version }) = self.seen.of(Member::First).cloned() else {
            return self.answer(failure);
        };
        self.state = State::GivingBack { failure };
        self.viewer.given_back = record.renew_time;
        let given_back = record.taken_back(&self.viewer.run);
        PairStep::Write(Member::First, Request::Update(version, given_back))
    }

    fn answer_written(&mut self) -> PairStep {
        self.answer(self.stored().map_or(Reply::Unknown { retry_after: None }, Reply::Written))
    }

    fn answer(&mut self, reply: Reply) -> PairStep {
        self.state = State::Idle;
        PairStep::Answer(reply)
    }

    fn note(&mut self, member: Member, stored: Option<Stored>) {
        self.seen.note(member, stored);
        self.note_leadership();
    }

    fn note_leadership(&mut self) {
        self.viewer.may_lead |= self.seen.is_held_in_both_by(&self.viewer);
    }
}

fn write(replaced: Option<Version>, record: Record) -> Request {
    match replaced {
        Some(version) => Request::Update(version, record),
        None => Request::Create(record),
    }
}

/// A conflict is looked at without a pause: somebody else has written.
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
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use jiff::Timestamp;

    use super::*;
    use crate::record::{RunMark, RunState};

    const ATTEMPT: Duration = Duration::from_secs(3);
    const REFUSED: Reply = Reply::Refused { retry_after: None };
    const UNKNOWN: Reply = Reply::Unknown { retry_after: None };

    /// Two objects, as an API server has them.
    #[derive(Default)]
    struct Store {
        objects: Pair,
        writes: u32,
    }

    impl Store {
        fn write(&mut self, member: Member, request: Request) -> Reply {
            let present = self.objects.of(member).map(|stored| stored.version.clone());
            let (replaced, record) = match request {
                Request::Get => unreachable!("both are read at once"),
                Request::Create(record) => (None, record),
                Request::Update(version, record) => (Some(version), record),
            };
            if replaced != present {
                return Reply::Conflict;
            }
            self.writes += 1;
            let version = Version { uid: "u".into(), resource_version: alloc::format!("{}", self.writes) };
            let stored = Stored { record, version };
            self.objects.note(member, Some(stored.clone()));
            Reply::Written(stored)
        }

        fn holder(&self, member: Member) -> &str {
            self.objects.of(member).map_or("", |stored| &stored.record.holder_identity)
        }
    }

    fn us() -> RunId {
        RunId::new("us")
    }

    fn record_of(run: &str, state: RunState, second: i64) -> Record {
        let renew_time = Timestamp::from_second(second).unwrap();
        Record {
            holder_identity: if state == RunState::Held { run.into() } else { "".into() },
            renew_time: Some(renew_time),
            run: Some(RunMark { run: RunId::new(run), state, renew_time }),
            ..Record::default()
        }
    }

    /// Carries a request out. `second` is what becomes of writes to the second object: the reply to each, and whether
    /// the store hears of it.
    fn run(
        requests: &mut PairRequests,
        store: &mut Store,
        request: Request,
        mut second: impl FnMut(&mut Store, Request) -> Option<Reply>,
    ) -> Option<Reply> {
        let mut step = requests.begin(request);
        loop {
            step = match step {
                PairStep::Answer(reply) => return Some(reply),
                PairStep::ReadBoth => requests.handle_read(Ok(store.objects.clone())),
                PairStep::Write(Member::First, request) => requests.handle_reply(store.write(Member::First, request)),
                PairStep::Write(Member::Second, request) => requests.handle_reply(second(store, request)?),
            };
        }
    }

    fn works(store: &mut Store, request: Request) -> Option<Reply> {
        Some(store.write(Member::Second, request))
    }

    fn claim(requests: &PairRequests, second: i64) -> Request {
        write(requests.stored().map(|stored| stored.version), record_of("us", RunState::Held, second))
    }

    fn read(requests: &mut PairRequests, store: &mut Store) -> Reply {
        run(requests, store, Request::Get, works).unwrap()
    }

    fn scene() -> (PairRequests, Store) {
        let (mut requests, mut store) = (PairRequests::new(us(), ATTEMPT), Store::default());
        read(&mut requests, &mut store);
        (requests, store)
    }

    #[test]
    fn a_claim_that_the_second_object_refuses_is_given_back_and_waits_longer_each_time() {
        let (mut requests, mut store) = scene();
        let mut pauses = Vec::new();
        for second in 1..7 {
            let claim = claim(&requests, second);
            let reply = run(&mut requests, &mut store, claim, |_, _| Some(REFUSED)).unwrap();
            let Reply::Refused { retry_after: Some(pause) } = reply else { panic!("{reply:?}") };
            pauses.push(pause.as_secs());
            assert_eq!((store.holder(Member::First), store.holder(Member::Second)), ("", ""));
            read(&mut requests, &mut store);
        }
        assert_eq!(pauses, vec![6, 12, 24, 48, 60, 60]);
    }

    #[test]
    fn a_claim_without_an_answer_is_given_back_if_it_did_not_arrive() {
        let (mut requests, mut store) = scene();
        let request = claim(&requests, 1);
        let reply = run(&mut requests, &mut store, request, |_, _| Some(UNKNOWN)).unwrap();
        assert_eq!(reply, Reply::Unknown { retry_after: Some(ATTEMPT * 2) });
        assert_eq!(store.holder(Member::First), "");
    }

    #[test]
    fn a_claim_without_an_answer_that_arrived_is_kept() {
        let (mut requests, mut store) = scene();
        let request = claim(&requests, 1);
        let arrives = |store: &mut Store, request| {
            store.write(Member::Second, request);
            Some(UNKNOWN)
        };
        let reply = run(&mut requests, &mut store, request, arrives).unwrap();
        let Reply::Written(stored) = reply else { panic!("{reply:?}") };
        assert!(stored.record.is_held_by_run(&us(), "us"));
    }

    #[test]
    fn a_claim_is_given_back_if_the_second_object_cannot_even_be_read() {
        let (mut requests, mut store) = scene();
        let first = requests.begin(claim(&requests, 1));
        let PairStep::Write(Member::First, request) = first else { panic!("{first:?}") };
        let PairStep::Write(Member::Second, _) = requests.handle_reply(store.write(Member::First, request)) else {
            panic!("the second write is next")
        };
        assert_eq!(requests.handle_reply(UNKNOWN), PairStep::ReadBoth);
        let PairStep::Write(Member::First, request) = requests.handle_read(Err(UNKNOWN)) else {
            panic!("it is given back")
        };
        requests.handle_reply(store.write(Member::First, request));
        assert_eq!(store.holder(Member::First), "");
    }

    /// As the end of a candidate does, and an attempt that took too long.
    #[test]
    fn a_claim_that_was_given_up_between_its_writes_is_given_back_by_the_next_read() {
        let (mut requests, mut store) = scene();
        let request = claim(&requests, 1);
        assert_eq!(run(&mut requests, &mut store, request, |_, _| None), None);
        assert_eq!(store.holder(Member::First), "us");
        assert!(matches!(read(&mut requests, &mut store), Reply::Refused { retry_after: Some(_) }));
        assert_eq!(store.holder(Member::First), "");
        let Reply::Read(Some(stored)) = read(&mut requests, &mut store) else { panic!("it is there") };
        assert!(!stored.record.is_held());
    }

    #[test]
    fn a_claim_whose_second_half_arrives_after_it_was_given_back_is_not_held() {
        let (mut requests, mut store) = scene();
        let mut late = None;
        let request = claim(&requests, 1);
        let reply = run(&mut requests, &mut store, request, |_, request| {
            late = Some(request);
            Some(UNKNOWN)
        });
        assert!(matches!(reply, Some(Reply::Unknown { .. })));
        store.write(Member::Second, late.unwrap());
        assert_eq!((store.holder(Member::First), store.holder(Member::Second)), ("", "us"));
        let Reply::Read(Some(stored)) = read(&mut requests, &mut store) else { panic!("it is there") };
        assert!(!stored.record.is_held(), "{stored:?}");
        // To everybody else it is: they cannot know that it was given back.
        let other = Viewer::new(RunId::new("other"));
        assert!(store.objects.stored(&other).unwrap().record.is_held());
    }

    #[test]
    fn a_claim_that_cannot_be_given_back_has_to_be_looked_at_again() {
        let (mut requests, mut store) = scene();
        let PairStep::Write(_, request) = requests.begin(claim(&requests, 1)) else { panic!("it is written") };
        requests.handle_reply(store.write(Member::First, request));
        assert!(matches!(requests.handle_reply(REFUSED), PairStep::Write(Member::First, _)));
        assert_eq!(requests.handle_reply(REFUSED), PairStep::Answer(UNKNOWN));
        read(&mut requests, &mut store);
        assert_eq!(store.holder(Member::First), "");
    }

    /// The write that gives it back may be on its way still.
    #[test]
    fn a_claim_that_was_given_back_without_an_answer_is_never_held_again() {
        let (mut requests, mut store) = scene();
        let PairStep::Write(_, request) = requests.begin(claim(&requests, 1)) else { panic!("it is written") };
        let PairStep::Write(_, second) = requests.handle_reply(store.write(Member::First, request)) else {
            panic!("the second write is next")
        };
        assert_eq!(requests.handle_reply(UNKNOWN), PairStep::ReadBoth);
        let PairStep::Write(_, late) = requests.handle_read(Ok(store.objects.clone())) else {
            panic!("it is given back")
        };
        assert_eq!(requests.handle_reply(UNKNOWN), PairStep::Answer(UNKNOWN));
        store.write(Member::Second, second);
        assert_eq!((store.holder(Member::First), store.holder(Member::Second)), ("us", "us"));
        assert!(!requests.stored().unwrap().record.is_held());
        assert!(matches!(read(&mut requests, &mut store), Reply::Refused { .. }), "it is given back again");
        assert!(matches!(store.write(Member::First, late), Reply::Conflict));
        // The next claim is another one.
        read(&mut requests, &mut store);
        let request = claim(&requests, 2);
        let reply = run(&mut requests, &mut store, request, works);
        assert!(matches!(reply, Some(Reply::Written(stored)) if stored.record.is_held()));
    }

    #[test]
    fn what_a_leader_writes_by_half_is_never_given_back() {
        let (mut requests, mut store) = scene();
        let request = claim(&requests, 1);
        run(&mut requests, &mut store, request, works);
        for is_deleted in [false, true] {
            if is_deleted {
                store.objects.note(Member::Second, None);
                read(&mut requests, &mut store);
            }
            let renewal = claim(&requests, 2);
            assert_eq!(run(&mut requests, &mut store, renewal, |_, _| Some(REFUSED)), Some(REFUSED));
            assert_eq!(store.holder(Member::First), "us");
            read(&mut requests, &mut store);
            assert_eq!(store.holder(Member::First), "us");
        }
    }

    #[test]
    fn half_a_release_of_a_leader_is_still_held() {
        let (mut requests, mut store) = scene();
        let request = claim(&requests, 1);
        run(&mut requests, &mut store, request, works);
        let version = requests.stored().map(|stored| stored.version);
        let release = write(version, record_of("us", RunState::Released, 2));
        run(&mut requests, &mut store, release, |_, _| Some(UNKNOWN));
        let Reply::Read(Some(stored)) = read(&mut requests, &mut store) else { panic!("it is there") };
        assert!(stored.record.is_held_by_run(&us(), "us"));
    }

    #[test]
    fn what_was_not_seen_is_not_replaced() {
        let (mut requests, mut store) = scene();
        let request = claim(&requests, 1);
        run(&mut requests, &mut store, request.clone(), works);
        assert_eq!(run(&mut requests, &mut store, request, works), Some(Reply::Conflict));
    }
}
