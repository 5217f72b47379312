//! Requests to a pair of objects, carried out as requests to one object at a time.

use core::mem;
use core::time::Duration;

use super::{Member, Pair, Viewer};
use crate::election::{Reply, Request};
use crate::record::{Record, RunId, Stored, Version};

/// The longest pause after claims that could not be written to both objects.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Carries out each request to the pair as requests to single objects.
///
/// A write goes to the first object and then to the second. A claim that is only in the first object would block all
/// candidates that use just that object, although nobody leads. So it is rolled back as soon as the second write has
/// failed, or by the next read if the request was dropped between its writes. After that there is a pause, doubled
/// each time, in which others can acquire the lock. The writes of a leader are never rolled back: its command is alive.
#[derive(Clone, Debug, Hash)]
pub struct PairRequests {
    seen: Pair,
    viewer: Viewer,
    pause: Duration,
    state: State,
}

/// The next step of a request to the pair.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PairStep {
    /// Read both objects, concurrently or one after the other, and call [`PairRequests::handle_read`].
    ReadBoth,
    /// Send this write to one object, and call [`PairRequests::handle_reply`].
    Write(Member, Request),
    /// The request is finished; this is its reply.
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
    /// The second write of a claim has no known result: both objects are read again.
    Rereading {
        failure: Reply,
    },
    /// A half claim is being rolled back after this failure.
    RollingBack {
        failure: Reply,
    },
}

impl PairRequests {
    /// Creates the requests of a run. `attempt` is the timeout of one request to the pair.
    pub fn new(run: RunId, attempt: Duration) -> Self {
        Self { seen: Pair::default(), viewer: Viewer::new(run), pause: attempt * 2, state: State::Idle }
    }

    /// Returns the last known contents of both objects.
    pub fn seen(&self) -> &Pair {
        &self.seen
    }

    /// Returns the combined record and version of both objects.
    pub fn stored(&self) -> Option<Stored> {
        self.seen.stored(&self.viewer)
    }

    /// Returns whether the first object contains a claim of this run that must be rolled back.
    pub fn is_half_claimed(&self) -> bool {
        self.seen.is_half_claimed(Member::First, &self.viewer)
    }

    /// Processes the contents of one object from a watch. Returns false if it is only a half claim of this run, which
    /// is handled when its request is answered.
    pub fn handle_watch(&mut self, member: Member, stored: Option<Stored>) -> bool {
        self.set_seen(member, stored);
        !self.seen.is_half_claimed(member, &self.viewer)
    }

    /// Begins a request. The previous one, if it was not answered, is dropped.
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

    /// Processes a read of both objects; it fails if either read failed.
    pub fn handle_read(&mut self, read: Result<Pair, Reply>) -> PairStep {
        let state = mem::replace(&mut self.state, State::Idle);
        let refused = match read {
            Ok(pair) => {
                self.seen = pair;
                self.update_leadership();
                None
            }
            Err(failure) => Some(failure),
        };
        match state {
            State::Rereading { .. } if refused.is_none() && self.seen.is_held_in_both_by(&self.viewer) => {
                self.answer_written()
            }
            State::Rereading { .. } if refused.is_none() && !self.is_half_claimed() => self.answer(Reply::Conflict),
            State::Rereading { failure } => self.roll_back(failure),
            _ if self.is_half_claimed() => self.roll_back(refused.unwrap_or(Reply::Refused { retry_after: None })),
            _ => self.answer(refused.unwrap_or_else(|| Reply::Read(self.stored()))),
        }
    }

    /// Processes the reply to a write to one object.
    pub fn handle_reply(&mut self, reply: Reply) -> PairStep {
        match (mem::replace(&mut self.state, State::Idle), reply) {
            (State::WritingFirst { record, second }, Reply::Written(stored)) => {
                self.set_seen(Member::First, Some(stored));
                self.state = State::WritingSecond;
                PairStep::Write(Member::Second, write(second, record))
            }
            (State::WritingSecond, Reply::Written(stored)) => {
                self.set_seen(Member::Second, Some(stored));
                self.answer_written()
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
                self.answer(with_pause(failure, pause))
            }
            // The half claim is still there: an unknown result makes the election read again, which rolls it back.
            (State::RollingBack { .. }, _) => self.answer(Reply::Unknown { retry_after: None }),
            (_, reply) => self.answer(reply),
        }
    }

    fn roll_back(&mut self, failure: Reply) -> PairStep {
        let Some(Stored { record, version }) = self.seen.member(Member::First).cloned() else {
            return self.answer(failure);
        };
        self.state = State::RollingBack { failure };
        self.viewer.rolled_back = record.renew_time;
        let rolled_back = record.into_rolled_back(&self.viewer.run);
        PairStep::Write(Member::First, Request::Update(version, rolled_back))
    }

    fn answer_written(&mut self) -> PairStep {
        self.answer(self.stored().map_or(Reply::Unknown { retry_after: None }, Reply::Written))
    }

    fn answer(&mut self, reply: Reply) -> PairStep {
        self.state = State::Idle;
        PairStep::Answer(reply)
    }

    fn set_seen(&mut self, member: Member, stored: Option<Stored>) {
        self.seen.set(member, stored);
        self.update_leadership();
    }

    fn update_leadership(&mut self) {
        self.viewer.may_lead |= self.seen.is_held_in_both_by(&self.viewer);
    }
}

fn write(replaced: Option<Version>, record: Record) -> Request {
    match replaced {
        Some(version) => Request::Update(version, record),
        None => Request::Create(record),
    }
}

/// Adds a pause before the next request. A conflict has none: another client has written, so the record is read at
/// once.
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

    /// The two objects, as an API server stores them.
    #[derive(Default)]
    struct Store {
        objects: Pair,
        writes: u32,
    }

    impl Store {
        fn write(&mut self, member: Member, request: Request) -> Reply {
            let present = self.objects.member(member).map(|stored| stored.version.clone());
            let (replaced, record) = match request {
                Request::Get => unreachable!("reads are handled by `run`"),
                Request::Create(record) => (None, record),
                Request::Update(version, record) => (Some(version), record),
            };
            if replaced != present {
                return Reply::Conflict;
            }
            self.writes += 1;
            let version = Version { uid: "u".into(), resource_version: alloc::format!("{}", self.writes) };
            let stored = Stored { record, version };
            self.objects.set(member, Some(stored.clone()));
            Reply::Written(stored)
        }

        fn holder(&self, member: Member) -> &str {
            self.objects.member(member).map_or("", |stored| &stored.record.holder_identity)
        }
    }

    fn our_run() -> RunId {
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

    /// Carries out a request. `second` handles writes to the second object and returns their reply, or `None` to drop
    /// the request.
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

    fn succeeds(store: &mut Store, request: Request) -> Option<Reply> {
        Some(store.write(Member::Second, request))
    }

    fn claim(requests: &PairRequests, second: i64) -> Request {
        write(requests.stored().map(|stored| stored.version), record_of("us", RunState::Held, second))
    }

    fn read(requests: &mut PairRequests, store: &mut Store) -> Reply {
        run(requests, store, Request::Get, succeeds).unwrap()
    }

    fn fresh_requests() -> (PairRequests, Store) {
        let (mut requests, mut store) = (PairRequests::new(our_run(), ATTEMPT), Store::default());
        read(&mut requests, &mut store);
        (requests, store)
    }

    #[test]
    fn a_claim_that_the_second_object_refuses_is_rolled_back_with_a_growing_pause() {
        let (mut requests, mut store) = fresh_requests();
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
    fn an_unanswered_claim_that_did_not_arrive_is_rolled_back() {
        let (mut requests, mut store) = fresh_requests();
        let request = claim(&requests, 1);
        let reply = run(&mut requests, &mut store, request, |_, _| Some(UNKNOWN)).unwrap();
        assert_eq!(reply, Reply::Unknown { retry_after: Some(ATTEMPT * 2) });
        assert_eq!(store.holder(Member::First), "");
    }

    #[test]
    fn an_unanswered_claim_that_arrived_is_kept() {
        let (mut requests, mut store) = fresh_requests();
        let request = claim(&requests, 1);
        let arrives = |store: &mut Store, request| {
            store.write(Member::Second, request);
            Some(UNKNOWN)
        };
        let reply = run(&mut requests, &mut store, request, arrives).unwrap();
        let Reply::Written(stored) = reply else { panic!("{reply:?}") };
        assert!(stored.record.is_held_by_run(&our_run(), "us"));
    }

    #[test]
    fn a_claim_is_rolled_back_if_the_second_object_cannot_be_read() {
        let (mut requests, mut store) = fresh_requests();
        let first = requests.begin(claim(&requests, 1));
        let PairStep::Write(Member::First, request) = first else { panic!("{first:?}") };
        let PairStep::Write(Member::Second, _) = requests.handle_reply(store.write(Member::First, request)) else {
            panic!("the second write is next")
        };
        assert_eq!(requests.handle_reply(UNKNOWN), PairStep::ReadBoth);
        let PairStep::Write(Member::First, request) = requests.handle_read(Err(UNKNOWN)) else {
            panic!("the claim is rolled back")
        };
        requests.handle_reply(store.write(Member::First, request));
        assert_eq!(store.holder(Member::First), "");
    }

    /// A request is dropped when its candidate exits and when its attempt times out.
    #[test]
    fn a_claim_that_was_dropped_between_its_writes_is_rolled_back_by_the_next_read() {
        let (mut requests, mut store) = fresh_requests();
        let request = claim(&requests, 1);
        assert_eq!(run(&mut requests, &mut store, request, |_, _| None), None);
        assert_eq!(store.holder(Member::First), "us");
        assert!(matches!(read(&mut requests, &mut store), Reply::Refused { retry_after: Some(_) }));
        assert_eq!(store.holder(Member::First), "");
        let Reply::Read(Some(stored)) = read(&mut requests, &mut store) else { panic!("the record exists") };
        assert!(!stored.record.is_held());
    }

    #[test]
    fn a_claim_whose_second_half_arrives_after_its_roll_back_is_not_held() {
        let (mut requests, mut store) = fresh_requests();
        let mut late = None;
        let request = claim(&requests, 1);
        let reply = run(&mut requests, &mut store, request, |_, request| {
            late = Some(request);
            Some(UNKNOWN)
        });
        assert!(matches!(reply, Some(Reply::Unknown { .. })));
        store.write(Member::Second, late.unwrap());
        assert_eq!((store.holder(Member::First), store.holder(Member::Second)), ("", "us"));
        let Reply::Read(Some(stored)) = read(&mut requests, &mut store) else { panic!("the record exists") };
        assert!(!stored.record.is_held(), "{stored:?}");
        // To other candidates it is held: they cannot know that it was rolled back.
        let other = Viewer::new(RunId::new("other"));
        assert!(store.objects.stored(&other).unwrap().record.is_held());
    }

    #[test]
    fn a_failed_roll_back_is_repeated_by_the_next_read() {
        let (mut requests, mut store) = fresh_requests();
        let PairStep::Write(_, request) = requests.begin(claim(&requests, 1)) else {
            panic!("the first write is next")
        };
        requests.handle_reply(store.write(Member::First, request));
        assert!(matches!(requests.handle_reply(REFUSED), PairStep::Write(Member::First, _)));
        assert_eq!(requests.handle_reply(REFUSED), PairStep::Answer(UNKNOWN));
        read(&mut requests, &mut store);
        assert_eq!(store.holder(Member::First), "");
    }

    /// The roll-back may still be carried out.
    #[test]
    fn a_claim_with_an_unanswered_roll_back_is_never_held() {
        let (mut requests, mut store) = fresh_requests();
        let PairStep::Write(_, request) = requests.begin(claim(&requests, 1)) else {
            panic!("the first write is next")
        };
        let PairStep::Write(_, second) = requests.handle_reply(store.write(Member::First, request)) else {
            panic!("the second write is next")
        };
        assert_eq!(requests.handle_reply(UNKNOWN), PairStep::ReadBoth);
        let PairStep::Write(_, late) = requests.handle_read(Ok(store.objects.clone())) else {
            panic!("the claim is rolled back")
        };
        assert_eq!(requests.handle_reply(UNKNOWN), PairStep::Answer(UNKNOWN));
        store.write(Member::Second, second);
        assert_eq!((store.holder(Member::First), store.holder(Member::Second)), ("us", "us"));
        assert!(!requests.stored().unwrap().record.is_held());
        assert!(matches!(read(&mut requests, &mut store), Reply::Refused { .. }), "the claim is rolled back again");
        assert!(matches!(store.write(Member::First, late), Reply::Conflict));
        // A new claim is not affected.
        read(&mut requests, &mut store);
        let request = claim(&requests, 2);
        let reply = run(&mut requests, &mut store, request, succeeds);
        assert!(matches!(reply, Some(Reply::Written(stored)) if stored.record.is_held()));
    }

    #[test]
    fn a_half_renewal_of_a_leader_is_never_rolled_back() {
        let (mut requests, mut store) = fresh_requests();
        let request = claim(&requests, 1);
        run(&mut requests, &mut store, request, succeeds);
        for is_deleted in [false, true] {
            if is_deleted {
                store.objects.set(Member::Second, None);
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
    fn a_half_release_of_a_leader_is_still_held() {
        let (mut requests, mut store) = fresh_requests();
        let request = claim(&requests, 1);
        run(&mut requests, &mut store, request, succeeds);
        let version = requests.stored().map(|stored| stored.version);
        let release = write(version, record_of("us", RunState::Released, 2));
        run(&mut requests, &mut store, release, |_, _| Some(UNKNOWN));
        let Reply::Read(Some(stored)) = read(&mut requests, &mut store) else { panic!("the record exists") };
        assert!(stored.record.is_held_by_run(&our_run(), "us"));
    }

    #[test]
    fn a_write_that_replaces_an_old_version_is_a_conflict() {
        let (mut requests, mut store) = fresh_requests();
        let request = claim(&requests, 1);
        run(&mut requests, &mut store, request.clone(), succeeds);
        assert_eq!(run(&mut requests, &mut store, request, succeeds), Some(Reply::Conflict));
    }
}
