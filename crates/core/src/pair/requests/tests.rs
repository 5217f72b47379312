//! Tests of the requests to two objects.

use alloc::vec;
use alloc::vec::Vec;

use jiff::Timestamp;

use super::*;
use crate::record::{MarkState, RunMark};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
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
        let current = self.objects.member(member).map(|stored| stored.version.clone());
        let (replaced, record) = match request {
            Request::Get => unreachable!("reads are handled by `carry_out`"),
            Request::Create(record) => (None, record),
            Request::Update(version, record) => (Some(version), record),
        };
        if replaced != current {
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

/// Returns the run that sends the requests.
fn this_run() -> RunId {
    RunId::new("us")
}

/// Returns a record that `run` wrote at `time`, in seconds since 1970.
fn record_of(run: &str, state: MarkState, time: i64) -> Record {
    let renew_time = Timestamp::from_second(time).unwrap();
    Record {
        holder_identity: if state == MarkState::Held { run.into() } else { "".into() },
        renew_time: Some(renew_time),
        run: Some(RunMark { run: RunId::new(run), state, renew_time }),
        ..Record::default()
    }
}

/// Carries out a request. `write_second` handles writes to the second object, and returns the reply to the write, or
/// `None` to drop the request.
fn carry_out(
    requests: &mut PairRequests,
    store: &mut Store,
    request: Request,
    mut write_second: impl FnMut(&mut Store, Request) -> Option<Reply>,
) -> Option<Reply> {
    let mut step = requests.begin(request);
    loop {
        step = match step {
            PairStep::Reply(reply) => return Some(reply),
            PairStep::ReadBoth => requests.handle_read(Ok(store.objects.clone())),
            PairStep::Write(Member::First, request) => requests.handle_reply(store.write(Member::First, request)),
            PairStep::Write(Member::Second, request) => requests.handle_reply(write_second(store, request)?),
        };
    }
}

fn succeeds(store: &mut Store, request: Request) -> Option<Reply> {
    Some(store.write(Member::Second, request))
}

/// Returns a claim or a renewal that this run sends at `time`, in seconds since 1970.
fn claim(requests: &PairRequests, time: i64) -> Request {
    write_request(requests.stored().map(|stored| stored.version), record_of("us", MarkState::Held, time))
}

fn read(requests: &mut PairRequests, store: &mut Store) -> Reply {
    carry_out(requests, store, Request::Get, succeeds).unwrap()
}

fn fresh_requests() -> (PairRequests, Store) {
    let (mut requests, mut store) = (PairRequests::new(this_run(), REQUEST_TIMEOUT), Store::default());
    read(&mut requests, &mut store);
    (requests, store)
}

#[test]
fn a_claim_that_is_refused_for_the_second_object_is_rolled_back_and_retried_after_growing_pauses() {
    let (mut requests, mut store) = fresh_requests();
    let mut pauses = Vec::new();
    for time in 1..7 {
        let claim = claim(&requests, time);
        let reply = carry_out(&mut requests, &mut store, claim, |_, _| Some(REFUSED)).unwrap();
        let Reply::Refused { retry_after: Some(pause) } = reply else { panic!("{reply:?}") };
        pauses.push(pause.as_secs());
        assert_eq!((store.holder(Member::First), store.holder(Member::Second)), ("", ""));
        read(&mut requests, &mut store);
    }
    assert_eq!(pauses, vec![6, 12, 24, 48, 60, 60]);
}

#[test]
fn an_unanswered_claim_is_rolled_back_if_its_second_write_was_lost() {
    let (mut requests, mut store) = fresh_requests();
    let request = claim(&requests, 1);
    let reply = carry_out(&mut requests, &mut store, request, |_, _| Some(UNKNOWN)).unwrap();
    assert_eq!(reply, Reply::Unknown { retry_after: Some(REQUEST_TIMEOUT * 2) });
    assert_eq!(store.holder(Member::First), "");
}

#[test]
fn an_unanswered_claim_is_kept_if_its_second_write_was_carried_out() {
    let (mut requests, mut store) = fresh_requests();
    let request = claim(&requests, 1);
    let arrives = |store: &mut Store, request| {
        store.write(Member::Second, request);
        Some(UNKNOWN)
    };
    let reply = carry_out(&mut requests, &mut store, request, arrives).unwrap();
    let Reply::Written(stored) = reply else { panic!("{reply:?}") };
    assert!(stored.record.is_held_by_run(&this_run(), "us"));
}

#[test]
fn an_unanswered_claim_is_rolled_back_if_the_objects_cannot_be_read_again() {
    let (mut requests, mut store) = fresh_requests();
    let first = requests.begin(claim(&requests, 1));
    let PairStep::Write(Member::First, request) = first else { panic!("{first:?}") };
    let PairStep::Write(Member::Second, _) = requests.handle_reply(store.write(Member::First, request)) else {
        panic!("the second write should be next")
    };
    assert_eq!(requests.handle_reply(UNKNOWN), PairStep::ReadBoth);
    let PairStep::Write(Member::First, request) = requests.handle_read(Err(UNKNOWN)) else {
        panic!("the claim should be rolled back")
    };
    requests.handle_reply(store.write(Member::First, request));
    assert_eq!(store.holder(Member::First), "");
}

/// A request is dropped when its candidate exits or when the request times out.
#[test]
fn a_claim_that_was_dropped_between_its_writes_is_rolled_back_by_the_next_read() {
    let (mut requests, mut store) = fresh_requests();
    let request = claim(&requests, 1);
    assert_eq!(carry_out(&mut requests, &mut store, request, |_, _| None), None);
    assert_eq!(store.holder(Member::First), "us");
    assert!(matches!(read(&mut requests, &mut store), Reply::Refused { retry_after: Some(_) }));
    assert_eq!(store.holder(Member::First), "");
    let Reply::Read(Some(stored)) = read(&mut requests, &mut store) else { panic!("the record should exist") };
    assert!(!stored.record.is_held());
}

#[test]
fn a_claim_whose_second_write_arrives_after_its_rollback_does_not_hold_the_lock() {
    let (mut requests, mut store) = fresh_requests();
    let mut late = None;
    let request = claim(&requests, 1);
    let reply = carry_out(&mut requests, &mut store, request, |_, request| {
        late = Some(request);
        Some(UNKNOWN)
    });
    assert!(matches!(reply, Some(Reply::Unknown { .. })));
    store.write(Member::Second, late.unwrap());
    assert_eq!((store.holder(Member::First), store.holder(Member::Second)), ("", "us"));
    let Reply::Read(Some(stored)) = read(&mut requests, &mut store) else { panic!("the record should exist") };
    assert!(!stored.record.is_held(), "{stored:?}");
    // To other candidates the lock still looks held, because they cannot know that the claim was rolled back.
    let other = Viewer::new(RunId::new("other"));
    assert!(store.objects.stored(&other).unwrap().record.is_held());
}

#[test]
fn a_failed_rollback_is_repeated_by_the_next_read() {
    let (mut requests, mut store) = fresh_requests();
    let PairStep::Write(_, request) = requests.begin(claim(&requests, 1)) else {
        panic!("the first write should be next")
    };
    requests.handle_reply(store.write(Member::First, request));
    assert!(matches!(requests.handle_reply(REFUSED), PairStep::Write(Member::First, _)));
    assert_eq!(requests.handle_reply(REFUSED), PairStep::Reply(UNKNOWN));
    read(&mut requests, &mut store);
    assert_eq!(store.holder(Member::First), "");
}

/// The claim must not count, because its unanswered rollback may still be carried out.
#[test]
fn a_claim_whose_rollback_got_no_reply_does_not_hold_the_lock() {
    let (mut requests, mut store) = fresh_requests();
    let PairStep::Write(_, request) = requests.begin(claim(&requests, 1)) else {
        panic!("the first write should be next")
    };
    let PairStep::Write(_, second) = requests.handle_reply(store.write(Member::First, request)) else {
        panic!("the second write should be next")
    };
    assert_eq!(requests.handle_reply(UNKNOWN), PairStep::ReadBoth);
    let PairStep::Write(_, late) = requests.handle_read(Ok(store.objects.clone())) else {
        panic!("the claim should be rolled back")
    };
    assert_eq!(requests.handle_reply(UNKNOWN), PairStep::Reply(UNKNOWN));
    store.write(Member::Second, second);
    assert_eq!((store.holder(Member::First), store.holder(Member::Second)), ("us", "us"));
    assert!(!requests.stored().unwrap().record.is_held());
    assert!(matches!(read(&mut requests, &mut store), Reply::Refused { .. }), "the claim should be rolled back again");
    assert!(matches!(store.write(Member::First, late), Reply::Conflict));
    // A new claim is not affected.
    read(&mut requests, &mut store);
    let request = claim(&requests, 2);
    let reply = carry_out(&mut requests, &mut store, request, succeeds);
    assert!(matches!(reply, Some(Reply::Written(stored)) if stored.record.is_held()));
}

#[test]
fn a_renewal_that_reached_only_one_object_is_never_rolled_back() {
    let (mut requests, mut store) = fresh_requests();
    let request = claim(&requests, 1);
    carry_out(&mut requests, &mut store, request, succeeds);
    for is_deleted in [false, true] {
        if is_deleted {
            store.objects.set(Member::Second, None);
            read(&mut requests, &mut store);
        }
        let renewal = claim(&requests, 2);
        assert_eq!(carry_out(&mut requests, &mut store, renewal, |_, _| Some(REFUSED)), Some(REFUSED));
        assert_eq!(store.holder(Member::First), "us");
        read(&mut requests, &mut store);
        assert_eq!(store.holder(Member::First), "us");
    }
}

#[test]
fn after_a_release_that_reached_only_one_object_the_lock_is_still_held() {
    let (mut requests, mut store) = fresh_requests();
    let request = claim(&requests, 1);
    carry_out(&mut requests, &mut store, request, succeeds);
    let version = requests.stored().map(|stored| stored.version);
    let release = write_request(version, record_of("us", MarkState::Released, 2));
    carry_out(&mut requests, &mut store, release, |_, _| Some(UNKNOWN));
    let Reply::Read(Some(stored)) = read(&mut requests, &mut store) else { panic!("the record should exist") };
    assert!(stored.record.is_held_by_run(&this_run(), "us"));
}

#[test]
fn a_write_that_is_based_on_an_outdated_version_is_a_conflict() {
    let (mut requests, mut store) = fresh_requests();
    let request = claim(&requests, 1);
    carry_out(&mut requests, &mut store, request.clone(), succeeds);
    assert_eq!(carry_out(&mut requests, &mut store, request, succeeds), Some(Reply::Conflict));
}
