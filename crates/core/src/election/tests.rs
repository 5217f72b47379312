//! Single rules of the election, step by step. What they add up to is shown by the simulation.

use super::*;
use crate::record::{RunId, RunMark, RunState, Stored};
use crate::timing::Timing;

const SECOND: Duration = Duration::from_secs(1);

/// An election in which the test plays everything outside.
struct Play {
    election: Election,
    now: Now,
    version: u64,
    /// The actions that the test has not looked at yet.
    taken: Vec<ElectionAction>,
}

impl Play {
    fn start(wait: Option<Duration>) -> Self {
        Self::start_with(Timing::new(15 * SECOND, 10 * SECOND, 2 * SECOND, None).unwrap(), wait)
    }

    fn start_with(timing: Timing, wait: Option<Duration>) -> Self {
        let config = ElectionConfig {
            identity: "me".into(),
            run: RunId::new("my-run"),
            timing,
            wait,
            min_hold: Some(60 * SECOND),
        };
        let now = Now { boot: Instant::after_boot(100 * SECOND), wall: "2026-01-01T00:00:00Z".parse().unwrap() };
        let mut play = Self { election: Election::new(config, now, 0), now, version: 10, taken: Vec::new() };
        play.step(ElectionInputs::default());
        play
    }

    /// A leader that won with its first write, sent at the present instant.
    fn leading() -> Self {
        let mut play = Self::start(None);
        play.read(None);
        let record = play.expect_write();
        play.written(record);
        assert!(matches!(play.actions()[..], [ElectionAction::StartLeading(_)]));
        play
    }

    fn passes(&mut self, duration: Duration) {
        self.now.boot = self.now.boot + duration;
        self.now.wall += duration;
        self.step(ElectionInputs::default());
    }

    fn step(&mut self, inputs: ElectionInputs) {
        self.taken.extend(self.election.step(self.now, inputs));
    }

    fn reply(&mut self, reply: Reply) {
        self.step(ElectionInputs::reply(reply));
    }

    fn watch_event(&mut self, event: WatchEvent) {
        self.step(ElectionInputs::watch_event(event));
    }

    /// All actions but those that are only talk.
    fn actions(&mut self) -> Vec<ElectionAction> {
        let is_done = |action: &ElectionAction| {
            !matches!(action, ElectionAction::Notify(_) | ElectionAction::Claiming | ElectionAction::ClaimFailed)
        };
        self.taken.drain(..).filter(is_done).collect()
    }

    #[track_caller]
    fn expect_write(&mut self) -> Record {
        match &self.actions()[..] {
            [.., ElectionAction::Send(Request::Create(record) | Request::Update(_, record))] => record.clone(),
            others => panic!("no write but {others:?}"),
        }
    }

    #[track_caller]
    fn expect_read(&mut self) {
        let actions = self.actions();
        assert!(matches!(actions[..], [.., ElectionAction::Send(Request::Get)]), "no read but {actions:?}");
    }

    fn read(&mut self, record: Option<Record>) {
        assert!(matches!(self.actions()[..], [.., ElectionAction::Send(Request::Get)]));
        let stored = record.map(|record| self.stored(record));
        self.reply(Reply::Read(stored));
    }

    fn written(&mut self, record: Record) {
        self.version += 1;
        let stored = self.stored(record);
        self.reply(Reply::Written(stored));
    }

    fn watched(&mut self, record: Record) {
        self.version += 1;
        let stored = self.stored(record);
        self.watch_event(WatchEvent::Changed(stored));
    }

    fn stored(&self, record: Record) -> Stored {
        Stored { record, version: Version { uid: "uid".into(), resource_version: self.version.to_string() } }
    }

    /// When the next call for time is due, from now.
    fn wakes_in(&self) -> Duration {
        self.election.next_timeout().unwrap().since(self.now.boot)
    }
}

fn others(run: &str, state: RunState, renew_time: &str, seconds: u32) -> Record {
    let renew_time = renew_time.parse().unwrap();
    Record {
        holder_identity: if state == RunState::Held { "other".into() } else { String::new() },
        lease_duration_seconds: Some(seconds),
        renew_time: Some(renew_time),
        run: Some(RunMark { run: RunId::new(run), state, renew_time }),
        ..Record::default()
    }
}

const T1: &str = "2020-01-01T00:00:01Z";
const T2: &str = "2020-01-01T00:00:02Z";

#[test]
fn a_tenure_counts_from_before_the_request_was_sent() {
    let mut play = Play::start(None);
    play.read(None);
    let sent = play.now.boot;
    let claim = play.expect_write();
    play.passes(2 * SECOND);
    play.written(claim);
    let [ElectionAction::StartLeading(leadership), ..] = &play.actions()[..] else { panic!() };
    assert_eq!(leadership.tenure.renewal_sent_at, sent);
    assert_eq!(leadership.tenure.stop, sent + 10 * SECOND);
    assert_eq!(leadership.tenure.kill, sent + Duration::from_millis(12_500));
    assert_eq!(leadership.resource_version, "11");
}

#[test]
fn a_leader_renews_by_one_update_every_retry_period() {
    let mut play = Play::leading();
    for _ in 0..5 {
        assert_eq!(play.wakes_in(), 2 * SECOND);
        play.passes(2 * SECOND);
        let sent = play.now.boot;
        let renewal = play.expect_write();
        play.written(renewal);
        assert!(matches!(play.actions()[..], [ElectionAction::Extend(tenure)] if tenure.renewal_sent_at == sent));
    }
}

#[test]
fn wall_clocks_that_stand_still_or_jump_change_nothing() {
    let mut play = Play::leading();
    let mut before = None;
    for offset in [0, 0, 3600, -7200, 3600, 0] {
        play.now.boot = play.now.boot + 2 * SECOND;
        play.now.wall += jiff::SignedDuration::from_secs(offset);
        play.step(ElectionInputs::default());
        let renewal = play.expect_write();
        assert!(renewal.renew_time > before, "renewals differ, always");
        before = renewal.renew_time;
        play.written(renewal);
        assert!(matches!(play.actions()[..], [ElectionAction::Extend(_)]));
    }
}

#[test]
fn a_reply_with_the_version_that_was_there_renews_nothing() {
    let mut play = Play::leading();
    play.passes(2 * SECOND);
    let renewal = play.expect_write();
    play.version -= 1;
    play.written(renewal);
    assert_eq!(play.actions(), []);
}

#[test]
fn silence_costs_a_request_and_at_least_three_fit_before_the_stop() {
    let mut play = Play::leading();
    let stop = play.now.boot + 10 * SECOND;
    play.passes(2 * SECOND);
    let mut renewals = vec![play.expect_write().renew_time];
    while play.now.boot + play.wakes_in() < stop {
        play.passes(play.wakes_in());
        if let [.., ElectionAction::Send(Request::Update(_, record))] = &play.actions()[..] {
            renewals.push(record.renew_time);
        }
    }
    assert!(renewals.len() >= 3, "{renewals:?}");
    assert!(renewals.is_sorted_by(|a, b| a < b));
}

#[test]
fn a_renewal_whose_reply_was_lost_counts_from_its_own_sending() {
    let mut play = Play::leading();
    play.passes(2 * SECOND);
    let (sent, lost) = (play.now.boot, play.expect_write());
    play.passes(play.wakes_in());
    play.expect_write();
    play.reply(Reply::Conflict);
    play.version += 1;
    play.read(Some(lost));
    let actions = play.actions();
    let [ElectionAction::Extend(tenure), ..] = actions[..] else { panic!("{actions:?}") };
    assert_eq!(tenure.renewal_sent_at, sent);
}

#[test]
fn a_claim_whose_reply_was_lost_is_recognised_by_reading() {
    let mut play = Play::start(None);
    play.read(None);
    let (sent, claim) = (play.now.boot, play.expect_write());
    play.passes(play.wakes_in());
    play.expect_write();
    play.reply(Reply::Conflict);
    play.read(Some(claim));
    let actions = play.actions();
    assert!(
        matches!(&actions[..], [ElectionAction::StartLeading(leadership), ..] if leadership.tenure.renewal_sent_at == sent),
        "{actions:?}"
    );
}

#[test]
fn a_claim_that_is_recognised_late_is_renewed_before_the_command_starts() {
    let mut play = Play::start(None);
    play.read(None);
    let claim = play.expect_write();
    play.now.boot = play.now.boot + 9 * SECOND;
    play.written(claim);
    let sent = play.now.boot;
    let again = play.expect_write();
    play.written(again);
    let actions = play.actions();
    assert!(
        matches!(&actions[..], [ElectionAction::StartLeading(leadership), ..] if leadership.tenure.renewal_sent_at == sent),
        "{actions:?}"
    );
}

#[test]
fn an_expired_record_is_taken_over_after_its_own_duration_and_one_more_read() {
    let mut play = Play::start(None);
    play.read(Some(others("r", RunState::Held, T1, 40)));
    assert!(matches!(play.actions()[..], [ElectionAction::Watch(Some(_))]));
    play.passes(39 * SECOND);
    assert_eq!(play.actions(), []);
    play.passes(SECOND);
    play.expect_read();
    let stored = play.stored(others("r", RunState::Held, T1, 40));
    play.reply(Reply::Read(Some(stored)));
    let claim = play.expect_write();
    assert_eq!(claim.holder_identity, "me");
    assert_eq!(claim.lease_transitions, 1);
}

#[test]
fn a_renewal_seen_by_the_watch_starts_the_duration_anew() {
    let mut play = Play::start(None);
    play.read(Some(others("r", RunState::Held, T1, 15)));
    play.actions();
    play.passes(10 * SECOND);
    play.watched(others("r", RunState::Held, T2, 15));
    play.passes(14 * SECOND);
    assert_eq!(play.actions(), []);
}

#[test]
fn a_lock_that_its_holder_released_is_claimed_at_once() {
    let mut play = Play::start(None);
    play.read(Some(others("r", RunState::Held, T1, 15)));
    play.actions();
    play.passes(SECOND);
    play.watched(others("r", RunState::Released, T2, 15));
    assert_eq!(play.expect_write().holder_identity, "me");
}

#[test]
fn a_record_that_others_emptied_overwrote_or_deleted_is_waited_for() {
    let emptied = Record { holder_identity: String::new(), ..others("r", RunState::Held, T1, 15) };
    let overwritten =
        Record { renew_time: Some(T2.parse().unwrap()), lease_duration_seconds: Some(1), ..emptied.clone() };
    for meddled in [Some(emptied), Some(overwritten), None] {
        let mut play = Play::start(None);
        play.read(Some(others("r", RunState::Held, T1, 15)));
        play.actions();
        play.passes(5 * SECOND);
        match meddled {
            Some(record) => play.watched(record),
            None => play.watch_event(WatchEvent::Deleted),
        }
        play.passes(14 * SECOND);
        assert_eq!(play.actions(), []);
        play.passes(SECOND);
        play.expect_read();
    }
}

#[test]
fn only_the_holder_can_release_or_shorten_its_lease() {
    let others_release = others("another", RunState::Released, T1, 15);
    let shortened = others("r", RunState::Held, T1, 1);
    for meddled in [others_release, shortened] {
        let mut play = Play::start(None);
        play.read(Some(others("r", RunState::Held, T1, 15)));
        play.actions();
        play.watched(meddled);
        assert_eq!(play.wakes_in(), 15 * SECOND);
    }
}

#[test]
fn a_holder_that_is_back_releases_for_good() {
    let mut play = Play::start(None);
    play.read(Some(others("r", RunState::Held, T1, 15)));
    play.actions();
    play.watch_event(WatchEvent::Deleted);
    assert_eq!(play.wakes_in(), 15 * SECOND);
    play.watched(others("r", RunState::Held, T2, 15));
    play.watched(others("r", RunState::Released, "2020-01-01T00:00:03Z", 15));
    play.expect_write();
}

#[test]
fn a_holder_that_is_back_is_known_by_what_it_stated_before() {
    for away in [Duration::ZERO, 60 * SECOND] {
        let mut play = Play::start(None);
        play.read(Some(others("r", RunState::Held, T1, 15)));
        play.actions();
        play.watch_event(WatchEvent::Deleted);
        play.passes(away);
        play.reply(Reply::Conflict);
        play.watch_event(WatchEvent::Deleted);
        // The holder wrote the record again, which was not seen; then somebody shortened it.
        play.watched(others("r", RunState::Held, T2, 1));
        let waits = play.election.observed().expect("a record").1.since(play.now.boot);
        assert_eq!(waits, 15 * SECOND, "away for {away:?}");
    }
}

#[test]
fn the_holder_of_a_record_that_was_made_anew_unseen_is_waited_for() {
    let mut play = Play::start(None);
    play.read(Some(others("r", RunState::Held, T1, 15)));
    play.actions();
    let mut made_anew = play.stored(others("another", RunState::Held, T2, 3));
    made_anew.version.uid = "another".into();
    play.watch_event(WatchEvent::Changed(made_anew));
    assert_eq!(play.wakes_in(), 15 * SECOND);
}

/// A claim was sent and not answered; then somebody else was seen to hold the lease.
fn a_late_claim() -> (Play, Record) {
    let mut play = Play::start(None);
    play.read(None);
    let claim = play.expect_write();
    play.passes(play.wakes_in());
    play.expect_write();
    play.reply(Reply::Conflict);
    play.read(Some(others("r", RunState::Held, T1, 15)));
    play.actions();
    (play, claim)
}

/// The candidate acquires the lock by another write, over the claim that has arrived.
fn acquires_by_another_write(mut play: Play, claim: Record) {
    play.passes(play.wakes_in());
    play.read(Some(claim));
    let again = play.expect_write();
    play.written(again);
    assert!(matches!(play.actions()[..], [.., ElectionAction::StartLeading(_)]));
}

#[test]
fn a_late_claim_acquires_nothing_while_a_displaced_holder_may_be_alive() {
    let (mut play, claim) = a_late_claim();
    play.watch_event(WatchEvent::Deleted);
    play.watched(claim.clone());
    assert_eq!(play.actions(), []);
    play.passes(14 * SECOND);
    assert_eq!(play.actions(), []);
    play.passes(SECOND);
    acquires_by_another_write(play, claim);
}

/// The holder may have renewed, unseen, until somebody deleted what it held.
#[test]
fn a_late_claim_takes_nothing_from_a_holder_whose_time_seems_over() {
    let (mut play, claim) = a_late_claim();
    play.passes(15 * SECOND);
    play.version += 2;
    play.read(Some(claim.clone()));
    assert!(!play.actions().iter().any(|action| matches!(action, ElectionAction::Send(_))));
    play.passes(14 * SECOND);
    assert!(!play.actions().iter().any(|action| matches!(action, ElectionAction::Send(Request::Update(..)))));
    play.passes(SECOND);
    acquires_by_another_write(play, claim);
}

#[test]
fn a_record_with_my_name_is_not_mine_without_my_mark() {
    let mut play = Play::start(None);
    let namesake = Record { holder_identity: "me".into(), ..others("r", RunState::Held, T1, 15) };
    play.read(Some(namesake));
    assert!(matches!(play.actions()[..], [ElectionAction::Watch(Some(_))]));
}

/// A candidate whose claim on a released lease is on its way, and its watch open.
fn claiming_beside_others() -> Play {
    let mut play = Play::start(None);
    play.read(Some(others("r", RunState::Held, T1, 15)));
    assert!(matches!(play.actions()[..], [ElectionAction::Watch(Some(_))]));
    play.watched(others("r", RunState::Released, T2, 15));
    play.expect_write();
    play
}

#[test]
fn a_watch_that_lags_is_not_left_open() {
    let mut play = claiming_beside_others();
    play.reply(Reply::Conflict);
    play.version += 1;
    play.read(Some(others("s", RunState::Held, T1, 15)));
    assert!(matches!(play.actions()[..], [ElectionAction::Unwatch, ElectionAction::Watch(Some(_))]));

    let mut play = claiming_beside_others();
    play.reply(Reply::Conflict);
    play.version += 1;
    play.read(Some(others("r", RunState::Released, T1, 15)));
    assert!(matches!(play.actions()[..], [ElectionAction::Unwatch, ElectionAction::Send(Request::Update(..))]));
}

#[test]
fn the_elector_knows_while_a_claim_is_undecided() {
    let mut play = Play::start(None);
    play.read(None);
    let said = |play: &mut Play| -> Vec<ElectionAction> { play.taken.drain(..).collect() };
    assert!(matches!(said(&mut play)[..], [ElectionAction::Claiming, ElectionAction::Send(Request::Create(_))]));
    play.passes(play.wakes_in());
    assert!(!said(&mut play).contains(&ElectionAction::ClaimFailed), "it may have been won");
    play.reply(Reply::Conflict);
    assert!(!said(&mut play).contains(&ElectionAction::ClaimFailed), "by the first write");
    let stored = play.stored(others("s", RunState::Held, T1, 15));
    play.reply(Reply::Read(Some(stored)));
    assert!(said(&mut play).contains(&ElectionAction::ClaimFailed));
}

#[test]
fn a_record_that_names_another_holder_is_a_loss_at_once() {
    for holder in ["other", "me"] {
        let mut play = Play::leading();
        play.passes(2 * SECOND);
        play.expect_write();
        play.reply(Reply::Conflict);
        play.read(Some(Record { holder_identity: holder.into(), ..others("r", RunState::Held, T1, 15) }));
        assert!(matches!(&play.actions()[..], [ElectionAction::Lose { holder: by }] if by == holder));
        play.step(ElectionInputs::command_gone(true));
        assert_eq!(play.actions(), [ElectionAction::Finish(Outcome::Lost)]);
    }
}

#[test]
fn a_holder_writes_an_emptied_or_deleted_record_again() {
    for meddled in [Some(Record::default()), None] {
        let mut play = Play::leading();
        play.passes(2 * SECOND);
        play.expect_write();
        play.reply(Reply::Conflict);
        play.read(meddled);
        let again = play.expect_write();
        assert_eq!(again.holder_identity, "me");
        play.written(again);
        assert!(matches!(play.actions()[..], [ElectionAction::Extend(_)]));
    }
}

#[test]
fn the_lease_is_released_when_the_tree_is_gone_and_not_before() {
    let mut play = Play::leading();
    play.step(ElectionInputs::stop());
    assert_eq!(play.actions(), [], "a leader is told to end by its command's end");
    play.step(ElectionInputs::command_gone(true));
    let released = play.expect_write();
    assert_eq!(released.holder_identity, "");
    assert_eq!(released.mark().unwrap().state, RunState::Released);
    assert_eq!(released.lease_duration_seconds, Some(15));
    play.written(released);
    assert_eq!(play.actions(), [ElectionAction::Finish(Outcome::Released)]);
}

#[test]
fn a_release_that_does_not_get_through_is_given_up() {
    let mut play = Play::leading();
    play.step(ElectionInputs::command_gone(true));
    let end = play.now.boot + 5 * SECOND;
    while play.now.boot < end {
        play.actions();
        play.passes(play.wakes_in());
    }
    assert_eq!(play.actions(), [ElectionAction::Finish(Outcome::NotReleased)]);
}

#[test]
fn a_candidate_that_stops_releases_what_it_may_have_acquired() {
    let mut play = Play::start(None);
    play.read(None);
    let claim = play.expect_write();
    play.step(ElectionInputs::stop());
    assert_eq!(play.actions(), []);
    play.written(claim);
    let released = play.expect_write();
    assert_eq!(released.mark().unwrap().state, RunState::Released);
    play.written(released);
    assert_eq!(play.actions(), [ElectionAction::Finish(Outcome::Stopped)]);
}

#[test]
fn a_candidate_that_stops_reads_what_became_of_a_claim_without_an_answer() {
    let mut play = Play::start(None);
    play.read(None);
    let claim = play.expect_write();
    play.step(ElectionInputs::stop());
    play.reply(Reply::Unknown { retry_after: Some(Duration::ZERO) });
    play.read(Some(claim));
    assert_eq!(play.expect_write().mark().unwrap().state, RunState::Released);
}

#[test]
fn a_candidate_that_stops_does_not_wait_to_the_end_for_the_answer_to_its_claim() {
    let mut play = Play::start(None);
    play.read(None);
    let claim = play.expect_write();
    play.passes(SECOND);
    play.step(ElectionInputs::stop());
    assert_eq!(play.actions(), []);
    play.passes(RELEASE_TIMEOUT / 2);
    play.read(Some(claim));
    let released = play.expect_write();
    assert_eq!(released.mark().unwrap().state, RunState::Released);
    play.written(released);
    assert_eq!(play.actions(), [ElectionAction::Finish(Outcome::Stopped)]);
}

#[test]
fn a_candidate_that_stops_with_nothing_to_release_ends_at_once() {
    let mut play = Play::start(None);
    play.step(ElectionInputs::stop());
    assert!(matches!(play.actions()[..], [_, ElectionAction::Finish(Outcome::Stopped)]));
}

#[test]
fn a_candidate_waits_for_its_time_only() {
    let mut play = Play::start(Some(3 * SECOND));
    play.read(Some(others("r", RunState::Held, T1, 15)));
    play.actions();
    assert_eq!(play.wakes_in(), 3 * SECOND);
    play.passes(3 * SECOND);
    assert_eq!(play.actions(), [ElectionAction::Finish(Outcome::NotAcquired)]);
}

#[test]
fn a_candidate_that_does_not_wait_ends_with_the_first_sign_of_life() {
    let mut play = Play::start(Some(Duration::ZERO));
    play.read(Some(others("r", RunState::Held, T1, 15)));
    assert!(matches!(play.actions()[..], [ElectionAction::Watch(_)]));
    play.passes(SECOND);
    assert_eq!(play.actions(), [], "it may be dead");
    play.watched(others("r", RunState::Held, T2, 15));
    assert_eq!(play.actions(), [ElectionAction::Finish(Outcome::NotAcquired)]);
}

#[test]
fn without_a_watch_it_reads_every_retry_period_with_jitter() {
    let mut play = Play::start(None);
    play.read(Some(others("r", RunState::Held, T1, 15)));
    play.actions();
    play.watch_event(WatchEvent::Forbidden);
    for _ in 0..3 {
        let pause = play.wakes_in();
        assert!(pause >= 2 * SECOND && pause <= Duration::from_millis(4400), "{pause:?}");
        play.passes(pause);
        play.read(Some(others("r", RunState::Held, T1, 15)));
    }
}

#[test]
fn a_command_that_succeeded_is_not_due_before_its_time() {
    for well in [true, false] {
        let mut play = Play::leading();
        let acquired = play.now.wall;
        play.passes(SECOND);
        play.step(ElectionInputs::command_gone(well));
        let released = play.expect_write();
        assert_eq!(released.due(), well.then(|| acquired + 60 * SECOND));
        // Other candidates, whose clocks read less or more. None waits longer than the hold itself.
        for (ahead, waits) in [(-3600, 60), (-10, 60), (1, 59), (59, 1)] {
            let mut other = Play::start(None);
            other.now.wall = acquired + SignedDuration::from_secs(ahead);
            other.read(Some(released.clone()));
            if well {
                assert_eq!(other.wakes_in().as_secs(), waits);
                other.passes(SECOND / 2);
                other.watched(Record { contenders: Some(7), ..released.clone() });
                assert!(other.wakes_in().as_secs() <= waits + 1, "nor when something else changes");
            } else {
                other.expect_write();
            }
        }
    }
}

#[test]
fn edits_of_a_held_record_are_notified() {
    let mut play = Play::leading();
    let mine = play.election.observed.as_ref().and_then(ObservedRecord::record).cloned().unwrap();
    let told = |play: &mut Play| -> Vec<ElectionNotice> {
        let actions = play.taken.drain(..);
        actions
            .filter_map(|action| if let ElectionAction::Notify(notice) = action { Some(notice) } else { None })
            .collect()
    };
    for (present, notices) in [
        (mine.clone(), vec![]),
        (Record { step_down: Some(RunId::new("other")), ..mine.clone() }, vec![]),
        (Record { lease_duration_seconds: Some(1), ..mine }, vec![ElectionNotice::Edited]),
    ] {
        play.passes(2 * SECOND);
        told(&mut play);
        play.reply(Reply::Conflict);
        play.version += 1;
        let stored = play.stored(present);
        play.reply(Reply::Read(Some(stored)));
        assert_eq!(told(&mut play), notices);
    }
}

#[test]
fn a_candidate_that_does_not_wait_ends_when_the_command_is_not_due() {
    let mut play = Play::start(Some(Duration::ZERO));
    let not_before = Some(play.now.wall + SECOND);
    play.read(Some(Record { not_before, ..others("r", RunState::Released, T1, 15) }));
    assert_eq!(play.actions(), [ElectionAction::Finish(Outcome::NotAcquired)]);
}

fn released(contenders: u32) -> Record {
    Record { contenders: Some(contenders), ..others("r", RunState::Released, T2, 15) }
}

/// A candidate that knows of so many contenders, waits, and sees a release.
fn standby_of_a_released_lock(contenders: u32) -> Play {
    let mut play = Play::start(None);
    play.read(Some(Record { contenders: Some(contenders), ..others("r", RunState::Held, T1, 15) }));
    play.actions();
    play.watched(released(contenders));
    play
}

#[test]
fn few_candidates_claim_at_once() {
    standby_of_a_released_lock(5).expect_write();
}

#[test]
fn many_candidates_claim_one_after_another() {
    let mut play = standby_of_a_released_lock(1000);
    assert_eq!(play.actions(), []);
    let wait = play.wakes_in();
    assert!(wait < 8 * SECOND, "{wait:?}");
    play.passes(wait);
    let claim = play.expect_write();
    assert_ne!(claim.contenders, Some(1000), "corrected");
}

#[test]
fn a_candidate_that_is_too_late_among_many_writes_nothing() {
    let mut play = standby_of_a_released_lock(1000);
    play.watched(Record { contenders: Some(1000), ..others("s", RunState::Held, T1, 15) });
    play.passes(8 * SECOND);
    assert_eq!(play.actions(), []);
}

#[test]
fn a_candidate_that_comes_to_a_free_lock_claims_it_at_once() {
    let mut play = Play::start(None);
    play.read(Some(released(1000)));
    assert_eq!(play.expect_write().contenders, Some(1000));
}

#[test]
fn many_candidates_do_not_take_over_at_the_same_instant() {
    let mut play = Play::start(None);
    let held = Record { contenders: Some(1000), ..others("r", RunState::Held, T1, 15) };
    play.read(Some(held.clone()));
    play.actions();
    play.passes(15 * SECOND);
    assert_eq!(play.actions(), []);
    play.passes(play.wakes_in());
    play.read(Some(held));
    play.expect_write();
}

#[test]
fn a_request_to_step_down_is_passed_on_once_and_taken_back() {
    let asked = |record: &Record, run: &str| Record { step_down: Some(RunId::new(run)), ..record.clone() };
    let mut play = Play::leading();
    play.passes(2 * SECOND);
    play.expect_write();
    play.reply(Reply::Conflict);
    let mine = play.election.observed.as_ref().and_then(ObservedRecord::record).cloned().unwrap();
    play.read(Some(asked(&mine, "another-run")));
    assert!(!play.actions().contains(&ElectionAction::StepDown), "it is another run that is asked");

    play.passes(2 * SECOND);
    play.reply(Reply::Conflict);
    play.read(Some(asked(&mine, "my-run")));
    let actions = play.actions();
    assert_eq!(actions.iter().filter(|action| **action == ElectionAction::StepDown).count(), 1);
    let renewal = actions.into_iter().rev().find_map(|action| match action {
        ElectionAction::Send(Request::Update(_, record)) => Some(record),
        _ => None,
    });
    let renewal = renewal.expect("it keeps the lease meanwhile");
    assert_eq!((renewal.step_down.clone(), renewal.is_held()), (None, true));
    play.written(renewal);
    play.passes(2 * SECOND);
    assert!(!play.actions().contains(&ElectionAction::StepDown));
}

#[test]
fn a_request_to_a_dead_holder_does_not_put_off_its_end() {
    let mut play = Play::start(None);
    let dead = others("r", RunState::Held, T1, 15);
    play.read(Some(dead.clone()));
    play.passes(10 * SECOND);
    play.watched(Record { step_down: Some(RunId::new("r")), ..dead });
    assert_eq!(play.wakes_in(), 5 * SECOND);
}

#[test]
fn a_request_in_a_record_that_others_wrote_does_not_count() {
    let mut play = Play::leading();
    play.passes(2 * SECOND);
    play.expect_write();
    play.reply(Reply::Conflict);
    let others = Record { step_down: Some(RunId::new("my-run")), ..others("r", RunState::Held, T1, 15) };
    play.read(Some(others));
    assert!(matches!(play.actions()[..], [ElectionAction::Lose { .. }]), "it is lost, as ever");
}

#[test]
fn an_old_record_that_is_put_back_does_not_end_the_wait_for_the_holder() {
    let held = Record { lease_transitions: 7, ..others("r", RunState::Held, T1, 60) };
    for transitions in [6, 7] {
        let mut play = Play::start(None);
        play.read(Some(held.clone()));
        play.passes(10 * SECOND);
        play.actions();
        let old = others("earlier", RunState::Held, T2, 3);
        play.watched(Record { lease_transitions: transitions, ..old });
        assert_eq!(play.wakes_in(), 60 * SECOND);
    }
}

#[test]
fn a_successor_that_counts_its_acquisition_is_believed() {
    let held = Record { lease_transitions: 7, ..others("r", RunState::Held, T1, 60) };
    let mut play = Play::start(None);
    play.read(Some(held.clone()));
    play.passes(50 * SECOND);
    play.actions();
    play.watched(Record { lease_transitions: 8, ..others("successor", RunState::Held, T2, 3) });
    assert_eq!(play.wakes_in(), 3 * SECOND);
}

fn notices(play: &mut Play) -> Vec<ElectionNotice> {
    let notice = |action| if let ElectionAction::Notify(notice) = action { Some(notice) } else { None };
    play.taken.drain(..).filter_map(notice).collect()
}

/// Reads once and opens the watch again.
fn reopens_the_watch(play: &mut Play) {
    play.passes(play.wakes_in());
    play.read(Some(others("r", RunState::Held, T1, 15)));
    assert!(play.taken.iter().any(|action| matches!(action, ElectionAction::Watch(_))));
}

#[test]
fn polling_is_said_when_it_has_begun_and_when_it_ends() {
    let mut play = Play::start(None);
    play.read(Some(others("r", RunState::Held, T1, 15)));
    notices(&mut play);
    play.watch_event(WatchEvent::Broken);
    reopens_the_watch(&mut play);
    assert_eq!(notices(&mut play), [], "one broken watch is no polling");
    play.watch_event(WatchEvent::Broken);
    assert_eq!(notices(&mut play), [ElectionNotice::Polling]);
    play.taken.clear();
    reopens_the_watch(&mut play);
    play.watch_event(WatchEvent::Opened);
    assert_eq!(notices(&mut play), [], "it may break again");
    play.passes(15 * SECOND);
    assert_eq!(notices(&mut play)[..1], [ElectionNotice::Watching]);
}

#[test]
fn a_record_whose_watch_is_silent_is_read() {
    let mut play = Play::start(None);
    let held = others("r", RunState::Held, T1, 600);
    play.read(Some(held.clone()));
    assert!(matches!(play.actions()[..], [ElectionAction::Watch(_)]));
    play.passes(60 * SECOND);
    play.watch_event(WatchEvent::Bookmark);
    play.passes(SILENT_WATCH_LIMIT - SECOND);
    assert_eq!(play.actions(), [], "the watch was alive a moment ago");
    play.passes(SECOND);
    play.read(Some(held));
    play.passes(SILENT_WATCH_LIMIT - SECOND);
    assert_eq!(play.actions(), [], "the answer counts, too");
    play.passes(SECOND);
    assert_eq!(play.actions(), [ElectionAction::Send(Request::Get)]);
}

#[test]
fn a_watch_that_is_forbidden_means_polling_at_once() {
    let mut play = Play::start(None);
    play.read(Some(others("r", RunState::Held, T1, 15)));
    notices(&mut play);
    play.watch_event(WatchEvent::Forbidden);
    assert_eq!(notices(&mut play), [ElectionNotice::Polling]);
}

#[test]
fn a_candidate_that_waits_gives_a_slow_api_server_more_and_more_time() {
    let mut play = Play::start(None);
    let mut timeouts = Vec::new();
    for _ in 0..4 {
        play.expect_read();
        timeouts.push(play.wakes_in().as_millis());
        play.passes(play.wakes_in());
    }
    assert_eq!(timeouts, [2666, 5333, 10_666, 15_000]);
    play.read(None);
    play.expect_write();
    assert_eq!(play.wakes_in().as_millis(), 2666, "a write has to count in time");
}

#[test]
fn a_candidate_that_gives_up_says_whether_somebody_held_the_lock() {
    let mut held = Play::start(Some(3 * SECOND));
    held.read(Some(others("r", RunState::Held, T1, 15)));
    held.passes(3 * SECOND);
    assert!(held.actions().contains(&ElectionAction::Finish(Outcome::NotAcquired)));

    let mut silent = Play::start(Some(3 * SECOND));
    silent.passes(3 * SECOND);
    assert!(silent.actions().contains(&ElectionAction::Finish(Outcome::Unreachable)));

    let mut unusable = Play::start(Some(3 * SECOND));
    unusable.read(None);
    unusable.reply(Reply::Refused { retry_after: None });
    unusable.passes(3 * SECOND);
    assert!(unusable.actions().contains(&ElectionAction::Finish(Outcome::Unreachable)));
}

#[test]
fn a_candidate_that_does_not_wait_gives_up_what_it_may_not_use() {
    let mut play = Play::start(Some(Duration::ZERO));
    play.reply(Reply::Refused { retry_after: None });
    assert_eq!(play.actions().len(), 1, "an API server that is starting refuses, too");
    play.passes(play.wakes_in());
    play.expect_read();
    play.reply(Reply::Refused { retry_after: None });
    assert_eq!(play.actions(), [ElectionAction::Finish(Outcome::Unreachable)]);
}

#[test]
fn a_candidate_that_does_not_wait_gives_up_what_it_cannot_reach() {
    let mut refused = Play::start(Some(Duration::ZERO));
    for _ in 0..2 {
        refused.reply(Reply::Unknown { retry_after: None });
        assert!(refused.wakes_in() <= SECOND, "it asks again soon: {:?}", refused.wakes_in());
        refused.passes(refused.wakes_in());
        refused.expect_read();
    }
    refused.reply(Reply::Unknown { retry_after: None });
    assert_eq!(refused.actions(), [ElectionAction::Finish(Outcome::Unreachable)]);

    let hour = 3600 * SECOND;
    let mut silent = Play::start_with(Timing::new(hour, hour / 2, 60 * SECOND, None).unwrap(), Some(Duration::ZERO));
    silent.passes(FIRST_ANSWER_TIMEOUT);
    assert!(silent.actions().contains(&ElectionAction::Finish(Outcome::Unreachable)));

    let mut known = Play::start(Some(Duration::ZERO));
    known.read(Some(others("r", RunState::Held, T1, 15)));
    known.watch_event(WatchEvent::Broken);
    for _ in 0..4 {
        known.passes(known.wakes_in());
        known.reply(Reply::Unknown { retry_after: None });
    }
    assert!(!known.actions().contains(&ElectionAction::Finish(Outcome::Unreachable)), "its holder may be dead");
}

/// Somebody who knows that the holder is dead says so for all of them.
#[test]
fn a_release_by_force_ends_every_wait_at_once() {
    let held = others("r", RunState::Held, T1, 3600);
    let now = Play::start(None).now.wall;
    let mut standby = Play::start(None);
    standby.read(Some(held.clone()));
    standby.actions();
    standby.watched(held.clone().released_by_force(now));
    standby.expect_write();

    for emptied in [Some(Record { holder_identity: String::new(), run: None, ..held.clone() }), None] {
        let mut standby = Play::start(None);
        standby.read(Some(held.clone()));
        match emptied.clone() {
            Some(record) => standby.watched(record),
            None => standby.watch_event(WatchEvent::Deleted),
        }
        standby.actions();
        assert!(standby.wakes_in() > SECOND, "it waits for the holder that it knew");
        standby.watched(emptied.unwrap_or_default().released_by_force(now));
        standby.expect_write();
    }
}

#[test]
fn a_release_by_force_counts_for_its_own_record_only() {
    let forced = others("r", RunState::Held, T1, 15).released_by_force(T2.parse().unwrap());
    assert!(forced.is_released_by_force() && !forced.is_held());
    assert!(!Record { renew_time: Some(T1.parse().unwrap()), ..forced.clone() }.is_released_by_force());
    let mut standby = Play::start(None);
    standby.read(Some(forced));
    assert_eq!(standby.expect_write().forced, None, "what is held again is held");
}
