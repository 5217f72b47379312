//! Tests of the single rules of the election. The simulation tests their combination.

use super::*;
use crate::record::{RunId, RunMark, RunState, Stored};
use crate::timing::Timing;

const SECOND: Duration = Duration::from_secs(1);

/// An election whose lock and clock are simulated by the test.
struct Driver {
    election: Election,
    now: Now,
    version: u64,
    /// The actions that the test has not checked yet.
    unread: Vec<ElectionAction>,
}

impl Driver {
    fn start(wait: Option<Duration>) -> Self {
        Self::start_with(Timing::new(15 * SECOND, 10 * SECOND, 2 * SECOND, None).unwrap(), wait)
    }

    fn start_with(timing: Timing, wait: Option<Duration>) -> Self {
        Self::start_as(timing, wait, Preference::default())
    }

    /// Starts a candidate with this claim delay and preemption.
    fn start_with_preference(claim_delay: Duration, preempt_after: Option<Duration>) -> Self {
        let timing = Timing::new(15 * SECOND, 10 * SECOND, 2 * SECOND, None).unwrap();
        Self::start_as(timing, None, Preference { claim_delay, preempt_after })
    }

    fn start_as(timing: Timing, wait: Option<Duration>, preference: Preference) -> Self {
        let config = ElectionConfig {
            identity: "me".into(),
            run: RunId::new("my-run"),
            timing,
            wait,
            min_hold: Some(60 * SECOND),
            ignores_min_hold: false,
            preference,
        };
        let now = Now { boot: Instant::after_boot(100 * SECOND), wall: "2026-01-01T00:00:00Z".parse().unwrap() };
        let mut driver = Self { election: Election::new(config, now, 0), now, version: 10, unread: Vec::new() };
        driver.step(ElectionInputs::default());
        driver
    }

    /// Starts a candidate and lets it acquire the lock with its first write, at the present instant.
    fn leading() -> Self {
        let mut driver = Self::start(None);
        driver.read(None);
        let record = driver.expect_write();
        driver.written(record);
        assert!(matches!(driver.actions()[..], [ElectionAction::StartLeading(_)]));
        driver
    }

    fn advance(&mut self, duration: Duration) {
        self.now.boot = self.now.boot + duration;
        self.now.wall += duration;
        self.step(ElectionInputs::default());
    }

    fn step(&mut self, inputs: ElectionInputs) {
        self.unread.extend(self.election.step(self.now, inputs));
    }

    fn reply(&mut self, reply: Reply) {
        self.step(ElectionInputs::reply(reply));
    }

    fn watch_event(&mut self, event: WatchEvent) {
        self.step(ElectionInputs::watch_event(event));
    }

    /// Returns the unread actions that change something outside the election.
    fn actions(&mut self) -> Vec<ElectionAction> {
        let has_effect = |action: &ElectionAction| {
            !matches!(action, ElectionAction::Notify(_) | ElectionAction::Claiming | ElectionAction::ClaimFailed)
        };
        self.unread.drain(..).filter(has_effect).collect()
    }

    #[track_caller]
    fn expect_write(&mut self) -> Record {
        match &self.actions()[..] {
            [.., ElectionAction::Send(Request::Create(record) | Request::Update(_, record))] => record.clone(),
            others => panic!("expected a write, got {others:?}"),
        }
    }

    #[track_caller]
    fn expect_read(&mut self) {
        let actions = self.actions();
        assert!(matches!(actions[..], [.., ElectionAction::Send(Request::Get)]), "expected a read, got {actions:?}");
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

    /// Returns the time until the next timeout of the election.
    fn time_to_next_timeout(&self) -> Duration {
        self.election.next_timeout().unwrap().since(self.now.boot)
    }
}

fn record_by(run: &str, state: RunState, renew_time: &str, seconds: u32) -> Record {
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
fn a_tenure_begins_when_the_request_is_sent() {
    let mut driver = Driver::start(None);
    driver.read(None);
    let sent = driver.now.boot;
    let claim = driver.expect_write();
    driver.advance(2 * SECOND);
    driver.written(claim);
    let [ElectionAction::StartLeading(leadership), ..] = &driver.actions()[..] else { panic!() };
    assert_eq!(leadership.tenure.renewal_sent_at, sent);
    assert_eq!(leadership.tenure.stop, sent + 10 * SECOND);
    assert_eq!(leadership.tenure.kill, sent + Duration::from_millis(12_500));
    assert_eq!(leadership.resource_version, "11");
}

#[test]
fn a_leader_renews_by_one_update_every_retry_period() {
    let mut driver = Driver::leading();
    for _ in 0..5 {
        assert_eq!(driver.time_to_next_timeout(), 2 * SECOND);
        driver.advance(2 * SECOND);
        let sent = driver.now.boot;
        let renewal = driver.expect_write();
        driver.written(renewal);
        assert!(matches!(driver.actions()[..], [ElectionAction::Extend(tenure)] if tenure.renewal_sent_at == sent));
    }
}

#[test]
fn a_wall_clock_that_stops_or_jumps_does_not_affect_renewals() {
    let mut driver = Driver::leading();
    let mut before = None;
    for offset in [0, 0, 3600, -7200, 3600, 0] {
        driver.now.boot = driver.now.boot + 2 * SECOND;
        driver.now.wall += jiff::SignedDuration::from_secs(offset);
        driver.step(ElectionInputs::default());
        let renewal = driver.expect_write();
        assert!(renewal.renew_time > before, "each renewal differs from the one before");
        before = renewal.renew_time;
        driver.written(renewal);
        assert!(matches!(driver.actions()[..], [ElectionAction::Extend(_)]));
    }
}

#[test]
fn a_reply_with_an_unchanged_version_renews_nothing() {
    let mut driver = Driver::leading();
    driver.advance(2 * SECOND);
    let renewal = driver.expect_write();
    driver.version -= 1;
    driver.written(renewal);
    assert_eq!(driver.actions(), []);
}

#[test]
fn at_least_three_unanswered_requests_fit_before_the_stop() {
    let mut driver = Driver::leading();
    let stop = driver.now.boot + 10 * SECOND;
    driver.advance(2 * SECOND);
    let mut renewals = vec![driver.expect_write().renew_time];
    while driver.now.boot + driver.time_to_next_timeout() < stop {
        driver.advance(driver.time_to_next_timeout());
        if let [.., ElectionAction::Send(Request::Update(_, record))] = &driver.actions()[..] {
            renewals.push(record.renew_time);
        }
    }
    assert!(renewals.len() >= 3, "{renewals:?}");
    assert!(renewals.is_sorted_by(|a, b| a < b));
}

#[test]
fn a_renewal_whose_reply_was_lost_begins_its_tenure_at_its_own_t0() {
    let mut driver = Driver::leading();
    driver.advance(2 * SECOND);
    let (sent, lost) = (driver.now.boot, driver.expect_write());
    driver.advance(driver.time_to_next_timeout());
    driver.expect_write();
    driver.reply(Reply::Conflict);
    driver.version += 1;
    driver.read(Some(lost));
    let actions = driver.actions();
    let [ElectionAction::Extend(tenure), ..] = actions[..] else { panic!("{actions:?}") };
    assert_eq!(tenure.renewal_sent_at, sent);
}

#[test]
fn a_claim_whose_reply_was_lost_is_recognised_by_a_read() {
    let mut driver = Driver::start(None);
    driver.read(None);
    let (sent, claim) = (driver.now.boot, driver.expect_write());
    driver.advance(driver.time_to_next_timeout());
    driver.expect_write();
    driver.reply(Reply::Conflict);
    driver.read(Some(claim));
    let actions = driver.actions();
    assert!(
        matches!(&actions[..], [ElectionAction::StartLeading(leadership), ..] if leadership.tenure.renewal_sent_at == sent),
        "{actions:?}"
    );
}

#[test]
fn a_claim_that_is_recognised_late_is_renewed_before_the_command_starts() {
    let mut driver = Driver::start(None);
    driver.read(None);
    let claim = driver.expect_write();
    driver.now.boot = driver.now.boot + 9 * SECOND;
    driver.written(claim);
    let sent = driver.now.boot;
    let again = driver.expect_write();
    driver.written(again);
    let actions = driver.actions();
    assert!(
        matches!(&actions[..], [ElectionAction::StartLeading(leadership), ..] if leadership.tenure.renewal_sent_at == sent),
        "{actions:?}"
    );
}

#[test]
fn an_expired_record_is_taken_over_after_its_own_duration_and_one_more_read() {
    let mut driver = Driver::start(None);
    driver.read(Some(record_by("r", RunState::Held, T1, 40)));
    assert!(matches!(driver.actions()[..], [ElectionAction::Watch(Some(_))]));
    driver.advance(39 * SECOND);
    assert_eq!(driver.actions(), []);
    driver.advance(SECOND);
    driver.expect_read();
    let stored = driver.stored(record_by("r", RunState::Held, T1, 40));
    driver.reply(Reply::Read(Some(stored)));
    let claim = driver.expect_write();
    assert_eq!(claim.holder_identity, "me");
    assert_eq!(claim.lease_transitions, 1);
}

#[test]
fn a_renewal_seen_by_the_watch_restarts_the_lease_duration() {
    let mut driver = Driver::start(None);
    driver.read(Some(record_by("r", RunState::Held, T1, 15)));
    driver.actions();
    driver.advance(10 * SECOND);
    driver.watched(record_by("r", RunState::Held, T2, 15));
    driver.advance(14 * SECOND);
    assert_eq!(driver.actions(), []);
}

#[test]
fn a_lock_that_its_holder_released_is_claimed_at_once() {
    let mut driver = Driver::start(None);
    driver.read(Some(record_by("r", RunState::Held, T1, 15)));
    driver.actions();
    driver.advance(SECOND);
    driver.watched(record_by("r", RunState::Released, T2, 15));
    assert_eq!(driver.expect_write().holder_identity, "me");
}

#[test]
fn a_record_that_was_emptied_overwritten_or_deleted_is_free_only_after_its_lease_duration() {
    let emptied = Record { holder_identity: String::new(), ..record_by("r", RunState::Held, T1, 15) };
    let overwritten =
        Record { renew_time: Some(T2.parse().unwrap()), lease_duration_seconds: Some(1), ..emptied.clone() };
    for edited in [Some(emptied), Some(overwritten), None] {
        let mut driver = Driver::start(None);
        driver.read(Some(record_by("r", RunState::Held, T1, 15)));
        driver.actions();
        driver.advance(5 * SECOND);
        match edited {
            Some(record) => driver.watched(record),
            None => driver.watch_event(WatchEvent::Deleted),
        }
        driver.advance(14 * SECOND);
        assert_eq!(driver.actions(), []);
        driver.advance(SECOND);
        driver.expect_read();
    }
}

#[test]
fn only_the_holder_can_release_or_shorten_its_lease() {
    let others_release = record_by("another", RunState::Released, T1, 15);
    let shortened = record_by("r", RunState::Held, T1, 1);
    for edited in [others_release, shortened] {
        let mut driver = Driver::start(None);
        driver.read(Some(record_by("r", RunState::Held, T1, 15)));
        driver.actions();
        driver.watched(edited);
        assert_eq!(driver.time_to_next_timeout(), 15 * SECOND);
    }
}

#[test]
fn a_displaced_holder_that_is_back_can_release_the_lock() {
    let mut driver = Driver::start(None);
    driver.read(Some(record_by("r", RunState::Held, T1, 15)));
    driver.actions();
    driver.watch_event(WatchEvent::Deleted);
    assert_eq!(driver.time_to_next_timeout(), 15 * SECOND);
    driver.watched(record_by("r", RunState::Held, T2, 15));
    driver.watched(record_by("r", RunState::Released, "2020-01-01T00:00:03Z", 15));
    driver.expect_write();
}

#[test]
fn the_longest_duration_that_a_displaced_holder_stated_still_counts_when_it_is_back() {
    for away in [Duration::ZERO, 60 * SECOND] {
        let mut driver = Driver::start(None);
        driver.read(Some(record_by("r", RunState::Held, T1, 15)));
        driver.actions();
        driver.watch_event(WatchEvent::Deleted);
        driver.advance(away);
        driver.reply(Reply::Conflict);
        driver.watch_event(WatchEvent::Deleted);
        // The holder wrote the record again, unobserved; then another client shortened its duration.
        driver.watched(record_by("r", RunState::Held, T2, 1));
        let waits = driver.election.observed().expect("a record").1.since(driver.now.boot);
        assert_eq!(waits, 15 * SECOND, "away for {away:?}");
    }
}

#[test]
fn a_recreated_record_is_free_only_after_the_lease_duration_of_the_former_holder() {
    let mut driver = Driver::start(None);
    driver.read(Some(record_by("r", RunState::Held, T1, 15)));
    driver.actions();
    let mut recreated = driver.stored(record_by("another", RunState::Held, T2, 3));
    recreated.version.uid = "another".into();
    driver.watch_event(WatchEvent::Changed(recreated));
    assert_eq!(driver.time_to_next_timeout(), 15 * SECOND);
}

/// Returns a candidate that has seen another holder after its own claim was not answered, and that claim.
fn with_a_late_claim() -> (Driver, Record) {
    let mut driver = Driver::start(None);
    driver.read(None);
    let claim = driver.expect_write();
    driver.advance(driver.time_to_next_timeout());
    driver.expect_write();
    driver.reply(Reply::Conflict);
    driver.read(Some(record_by("r", RunState::Held, T1, 15)));
    driver.actions();
    (driver, claim)
}

/// Checks that the candidate acquires the lock by another write, although its late claim is stored.
fn expect_another_claim(mut driver: Driver, claim: Record) {
    driver.advance(driver.time_to_next_timeout());
    driver.read(Some(claim));
    let again = driver.expect_write();
    driver.written(again);
    assert!(matches!(driver.actions()[..], [.., ElectionAction::StartLeading(_)]));
}

#[test]
fn a_late_claim_acquires_nothing_while_a_displaced_holder_may_be_alive() {
    let (mut driver, claim) = with_a_late_claim();
    driver.watch_event(WatchEvent::Deleted);
    driver.watched(claim.clone());
    assert_eq!(driver.actions(), []);
    driver.advance(14 * SECOND);
    assert_eq!(driver.actions(), []);
    driver.advance(SECOND);
    expect_another_claim(driver, claim);
}

/// The holder may have renewed, unobserved, until another client deleted its record.
#[test]
fn a_late_claim_acquires_nothing_from_a_holder_that_seems_to_have_expired() {
    let (mut driver, claim) = with_a_late_claim();
    driver.advance(15 * SECOND);
    driver.version += 2;
    driver.read(Some(claim.clone()));
    assert!(!driver.actions().iter().any(|action| matches!(action, ElectionAction::Send(_))));
    driver.advance(14 * SECOND);
    assert!(!driver.actions().iter().any(|action| matches!(action, ElectionAction::Send(Request::Update(..)))));
    driver.advance(SECOND);
    expect_another_claim(driver, claim);
}

#[test]
fn a_record_with_this_identity_but_another_run_is_not_its_own() {
    let mut driver = Driver::start(None);
    let namesake = Record { holder_identity: "me".into(), ..record_by("r", RunState::Held, T1, 15) };
    driver.read(Some(namesake));
    assert!(matches!(driver.actions()[..], [ElectionAction::Watch(Some(_))]));
}

/// Returns a candidate with an open watch and a pending claim of a released lock.
fn claiming_a_released_lock() -> Driver {
    let mut driver = Driver::start(None);
    driver.read(Some(record_by("r", RunState::Held, T1, 15)));
    assert!(matches!(driver.actions()[..], [ElectionAction::Watch(Some(_))]));
    driver.watched(record_by("r", RunState::Released, T2, 15));
    driver.expect_write();
    driver
}

#[test]
fn a_watch_that_lags_behind_a_read_is_closed() {
    let mut driver = claiming_a_released_lock();
    driver.reply(Reply::Conflict);
    driver.version += 1;
    driver.read(Some(record_by("s", RunState::Held, T1, 15)));
    assert!(matches!(driver.actions()[..], [ElectionAction::Unwatch, ElectionAction::Watch(Some(_))]));

    let mut driver = claiming_a_released_lock();
    driver.reply(Reply::Conflict);
    driver.version += 1;
    driver.read(Some(record_by("r", RunState::Released, T1, 15)));
    assert!(matches!(driver.actions()[..], [ElectionAction::Unwatch, ElectionAction::Send(Request::Update(..))]));
}

#[test]
fn a_claim_is_reported_as_failed_only_when_that_is_certain() {
    let mut driver = Driver::start(None);
    driver.read(None);
    let drain = |driver: &mut Driver| -> Vec<ElectionAction> { driver.unread.drain(..).collect() };
    assert!(matches!(drain(&mut driver)[..], [ElectionAction::Claiming, ElectionAction::Send(Request::Create(_))]));
    driver.advance(driver.time_to_next_timeout());
    assert!(!drain(&mut driver).contains(&ElectionAction::ClaimFailed), "the first write may have succeeded");
    driver.reply(Reply::Conflict);
    assert!(!drain(&mut driver).contains(&ElectionAction::ClaimFailed), "the conflict may be with the first write");
    let stored = driver.stored(record_by("s", RunState::Held, T1, 15));
    driver.reply(Reply::Read(Some(stored)));
    assert!(drain(&mut driver).contains(&ElectionAction::ClaimFailed));
}

#[test]
fn a_record_that_names_another_holder_is_a_loss() {
    for holder in ["other", "me"] {
        let mut driver = Driver::leading();
        driver.advance(2 * SECOND);
        driver.expect_write();
        driver.reply(Reply::Conflict);
        driver.read(Some(Record { holder_identity: holder.into(), ..record_by("r", RunState::Held, T1, 15) }));
        assert!(matches!(&driver.actions()[..], [ElectionAction::Lose { holder: by }] if by == holder));
        driver.step(ElectionInputs::command_gone(true));
        assert_eq!(driver.actions(), [ElectionAction::Finish(Outcome::Lost)]);
    }
}

#[test]
fn a_holder_writes_an_emptied_or_deleted_record_again() {
    for edited in [Some(Record::default()), None] {
        let mut driver = Driver::leading();
        driver.advance(2 * SECOND);
        driver.expect_write();
        driver.reply(Reply::Conflict);
        driver.read(edited);
        let again = driver.expect_write();
        assert_eq!(again.holder_identity, "me");
        driver.written(again);
        assert!(matches!(driver.actions()[..], [ElectionAction::Extend(_)]));
    }
}

#[test]
fn the_lock_is_released_only_after_the_command_is_gone() {
    let mut driver = Driver::leading();
    driver.step(ElectionInputs::stop());
    assert_eq!(driver.actions(), [], "a leader continues until its command is gone");
    driver.step(ElectionInputs::command_gone(true));
    let released = driver.expect_write();
    assert_eq!(released.holder_identity, "");
    assert_eq!(released.mark().unwrap().state, RunState::Released);
    assert_eq!(released.lease_duration_seconds, Some(15));
    driver.written(released);
    assert_eq!(driver.actions(), [ElectionAction::Finish(Outcome::Released)]);
}

#[test]
fn a_release_that_stays_unanswered_times_out() {
    let mut driver = Driver::leading();
    driver.step(ElectionInputs::command_gone(true));
    let end = driver.now.boot + 5 * SECOND;
    while driver.now.boot < end {
        driver.actions();
        driver.advance(driver.time_to_next_timeout());
    }
    assert_eq!(driver.actions(), [ElectionAction::Finish(Outcome::NotReleased)]);
}

#[test]
fn a_candidate_that_stops_releases_what_it_may_have_acquired() {
    let mut driver = Driver::start(None);
    driver.read(None);
    let claim = driver.expect_write();
    driver.step(ElectionInputs::stop());
    assert_eq!(driver.actions(), []);
    driver.written(claim);
    let released = driver.expect_write();
    assert_eq!(released.mark().unwrap().state, RunState::Released);
    driver.written(released);
    assert_eq!(driver.actions(), [ElectionAction::Finish(Outcome::Stopped)]);
}

#[test]
fn a_candidate_that_stops_reads_the_outcome_of_an_unanswered_claim() {
    let mut driver = Driver::start(None);
    driver.read(None);
    let claim = driver.expect_write();
    driver.step(ElectionInputs::stop());
    driver.reply(Reply::Unknown { retry_after: Some(Duration::ZERO) });
    driver.read(Some(claim));
    assert_eq!(driver.expect_write().mark().unwrap().state, RunState::Released);
}

#[test]
fn a_candidate_that_stops_keeps_half_of_its_time_for_the_release() {
    let mut driver = Driver::start(None);
    driver.read(None);
    let claim = driver.expect_write();
    driver.advance(SECOND);
    driver.step(ElectionInputs::stop());
    assert_eq!(driver.actions(), []);
    driver.advance(RELEASE_TIMEOUT / 2);
    driver.read(Some(claim));
    let released = driver.expect_write();
    assert_eq!(released.mark().unwrap().state, RunState::Released);
    driver.written(released);
    assert_eq!(driver.actions(), [ElectionAction::Finish(Outcome::Stopped)]);
}

#[test]
fn a_candidate_that_stops_with_nothing_to_release_ends_at_once() {
    let mut driver = Driver::start(None);
    driver.step(ElectionInputs::stop());
    assert!(matches!(driver.actions()[..], [_, ElectionAction::Finish(Outcome::Stopped)]));
}

#[test]
fn a_candidate_gives_up_when_its_wait_is_over() {
    let mut driver = Driver::start(Some(3 * SECOND));
    driver.read(Some(record_by("r", RunState::Held, T1, 15)));
    driver.actions();
    assert_eq!(driver.time_to_next_timeout(), 3 * SECOND);
    driver.advance(3 * SECOND);
    assert_eq!(driver.actions(), [ElectionAction::Finish(Outcome::NotAcquired)]);
}

#[test]
fn a_candidate_that_does_not_wait_ends_when_a_renewal_shows_the_holder_alive() {
    let mut driver = Driver::start(Some(Duration::ZERO));
    driver.read(Some(record_by("r", RunState::Held, T1, 15)));
    assert!(matches!(driver.actions()[..], [ElectionAction::Watch(_)]));
    driver.advance(SECOND);
    assert_eq!(driver.actions(), [], "the holder may be dead");
    driver.watched(record_by("r", RunState::Held, T2, 15));
    assert_eq!(driver.actions(), [ElectionAction::Finish(Outcome::NotAcquired)]);
}

#[test]
fn a_candidate_without_a_watch_reads_every_retry_period_with_jitter() {
    let mut driver = Driver::start(None);
    driver.read(Some(record_by("r", RunState::Held, T1, 15)));
    driver.actions();
    driver.watch_event(WatchEvent::Forbidden);
    for _ in 0..3 {
        let pause = driver.time_to_next_timeout();
        assert!(pause >= 2 * SECOND && pause <= Duration::from_millis(4400), "{pause:?}");
        driver.advance(pause);
        driver.read(Some(record_by("r", RunState::Held, T1, 15)));
    }
}

#[test]
fn a_command_that_succeeded_is_not_due_before_its_time() {
    for succeeded in [true, false] {
        let mut driver = Driver::leading();
        let acquired = driver.now.wall;
        driver.advance(SECOND);
        driver.step(ElectionInputs::command_gone(succeeded));
        let released = driver.expect_write();
        assert_eq!(released.due(), succeeded.then(|| acquired + 60 * SECOND));
        // The wall clocks of other candidates may be slow or fast. None waits longer than the hold itself.
        for (ahead, waits) in [(-3600, 60), (-10, 60), (1, 59), (59, 1)] {
            let mut other = Driver::start(None);
            other.now.wall = acquired + SignedDuration::from_secs(ahead);
            other.read(Some(released.clone()));
            if succeeded {
                assert_eq!(other.time_to_next_timeout().as_secs(), waits);
                other.advance(SECOND / 2);
                other.watched(Record { contenders: Some(7), ..released.clone() });
                assert!(
                    other.time_to_next_timeout().as_secs() <= waits + 1,
                    "another change of the record does not extend the wait"
                );
            } else {
                other.expect_write();
            }
        }
    }
}

#[test]
fn edits_of_a_held_record_are_notified() {
    let mut driver = Driver::leading();
    let mine = driver.election.observed.as_ref().and_then(ObservedRecord::record).cloned().unwrap();
    for (present, expected) in [
        (mine.clone(), vec![]),
        (Record { step_down: Some(RunId::new("other")), ..mine.clone() }, vec![]),
        (Record { lease_duration_seconds: Some(1), ..mine }, vec![ElectionNotice::Edited]),
    ] {
        driver.advance(2 * SECOND);
        notices(&mut driver);
        driver.reply(Reply::Conflict);
        driver.version += 1;
        let stored = driver.stored(present);
        driver.reply(Reply::Read(Some(stored)));
        assert_eq!(notices(&mut driver), expected);
    }
}

#[test]
fn a_candidate_that_does_not_wait_ends_if_the_command_is_not_due() {
    let mut driver = Driver::start(Some(Duration::ZERO));
    let not_before = Some(driver.now.wall + SECOND);
    driver.read(Some(Record { not_before, ..record_by("r", RunState::Released, T1, 15) }));
    assert_eq!(driver.actions(), [ElectionAction::Finish(Outcome::NotAcquired)]);
}

fn released(contenders: u32) -> Record {
    Record { contenders: Some(contenders), ..record_by("r", RunState::Released, T2, 15) }
}

/// Returns a standby that has just seen a release of a lock with this many contenders.
fn standby_of_a_released_lock(contenders: u32) -> Driver {
    let mut driver = Driver::start(None);
    driver.read(Some(Record { contenders: Some(contenders), ..record_by("r", RunState::Held, T1, 15) }));
    driver.actions();
    driver.watched(released(contenders));
    driver
}

#[test]
fn few_candidates_claim_without_a_delay() {
    standby_of_a_released_lock(5).expect_write();
}

#[test]
fn the_claims_of_many_candidates_are_delayed() {
    let mut driver = standby_of_a_released_lock(1000);
    assert_eq!(driver.actions(), []);
    let wait = driver.time_to_next_timeout();
    assert!(wait < 8 * SECOND, "{wait:?}");
    driver.advance(wait);
    let claim = driver.expect_write();
    assert_ne!(claim.contenders, Some(1000), "the winner corrects the estimate");
}

#[test]
fn a_candidate_that_sees_another_claim_first_writes_nothing() {
    let mut driver = standby_of_a_released_lock(1000);
    driver.watched(Record { contenders: Some(1000), ..record_by("s", RunState::Held, T1, 15) });
    driver.advance(8 * SECOND);
    assert_eq!(driver.actions(), []);
}

#[test]
fn a_new_candidate_claims_a_free_lock_without_a_delay() {
    let mut driver = Driver::start(None);
    driver.read(Some(released(1000)));
    assert_eq!(driver.expect_write().contenders, Some(1000));
}

#[test]
fn the_takeovers_of_many_candidates_are_delayed() {
    let mut driver = Driver::start(None);
    let held = Record { contenders: Some(1000), ..record_by("r", RunState::Held, T1, 15) };
    driver.read(Some(held.clone()));
    driver.actions();
    driver.advance(15 * SECOND);
    assert_eq!(driver.actions(), []);
    driver.advance(driver.time_to_next_timeout());
    driver.read(Some(held));
    driver.expect_write();
}

#[test]
fn a_request_to_step_down_is_passed_on_once_and_removed() {
    let step_down = |record: &Record, run: &str| Record { step_down: Some(RunId::new(run)), ..record.clone() };
    let mut driver = Driver::leading();
    driver.advance(2 * SECOND);
    driver.expect_write();
    driver.reply(Reply::Conflict);
    let mine = driver.election.observed.as_ref().and_then(ObservedRecord::record).cloned().unwrap();
    driver.read(Some(step_down(&mine, "another-run")));
    assert!(!driver.actions().contains(&ElectionAction::StepDown), "the request names another run");

    driver.advance(2 * SECOND);
    driver.reply(Reply::Conflict);
    driver.read(Some(step_down(&mine, "my-run")));
    let actions = driver.actions();
    assert_eq!(actions.iter().filter(|action| **action == ElectionAction::StepDown).count(), 1);
    let renewal = actions.into_iter().rev().find_map(|action| match action {
        ElectionAction::Send(Request::Update(_, record)) => Some(record),
        _ => None,
    });
    let renewal = renewal.expect("the lock is still renewed");
    assert_eq!((renewal.step_down.clone(), renewal.is_held()), (None, true));
    driver.written(renewal);
    driver.advance(2 * SECOND);
    assert!(!driver.actions().contains(&ElectionAction::StepDown));
}

#[test]
fn a_request_to_a_dead_holder_does_not_extend_its_lease() {
    let mut driver = Driver::start(None);
    let dead = record_by("r", RunState::Held, T1, 15);
    driver.read(Some(dead.clone()));
    driver.advance(10 * SECOND);
    driver.watched(Record { step_down: Some(RunId::new("r")), ..dead });
    assert_eq!(driver.time_to_next_timeout(), 5 * SECOND);
}

#[test]
fn a_request_in_the_record_of_another_run_is_ignored() {
    let mut driver = Driver::leading();
    driver.advance(2 * SECOND);
    driver.expect_write();
    driver.reply(Reply::Conflict);
    let others = Record { step_down: Some(RunId::new("my-run")), ..record_by("r", RunState::Held, T1, 15) };
    driver.read(Some(others));
    assert!(matches!(driver.actions()[..], [ElectionAction::Lose { .. }]), "another run holds the lock");
}

#[test]
fn a_restored_old_record_does_not_shorten_the_wait_for_the_holder() {
    let held = Record { lease_transitions: 7, ..record_by("r", RunState::Held, T1, 60) };
    for transitions in [6, 7] {
        let mut driver = Driver::start(None);
        driver.read(Some(held.clone()));
        driver.advance(10 * SECOND);
        driver.actions();
        let old = record_by("earlier", RunState::Held, T2, 3);
        driver.watched(Record { lease_transitions: transitions, ..old });
        assert_eq!(driver.time_to_next_timeout(), 60 * SECOND);
    }
}

#[test]
fn a_successor_that_increments_the_transitions_replaces_the_holder() {
    let held = Record { lease_transitions: 7, ..record_by("r", RunState::Held, T1, 60) };
    let mut driver = Driver::start(None);
    driver.read(Some(held.clone()));
    driver.advance(50 * SECOND);
    driver.actions();
    driver.watched(Record { lease_transitions: 8, ..record_by("successor", RunState::Held, T2, 3) });
    assert_eq!(driver.time_to_next_timeout(), 3 * SECOND);
}

fn notices(driver: &mut Driver) -> Vec<ElectionNotice> {
    let notice = |action| if let ElectionAction::Notify(notice) = action { Some(notice) } else { None };
    driver.unread.drain(..).filter_map(notice).collect()
}

/// Answers the next read, and checks that the watch is opened again.
fn read_and_reopen_the_watch(driver: &mut Driver) {
    driver.advance(driver.time_to_next_timeout());
    driver.read(Some(record_by("r", RunState::Held, T1, 15)));
    assert!(driver.unread.iter().any(|action| matches!(action, ElectionAction::Watch(_))));
}

#[test]
fn the_beginning_and_the_end_of_polling_are_notified() {
    let mut driver = Driver::start(None);
    driver.read(Some(record_by("r", RunState::Held, T1, 15)));
    notices(&mut driver);
    driver.watch_event(WatchEvent::Broken);
    read_and_reopen_the_watch(&mut driver);
    assert_eq!(notices(&mut driver), [], "one broken watch does not mean polling");
    driver.watch_event(WatchEvent::Broken);
    assert_eq!(notices(&mut driver), [ElectionNotice::Polling]);
    driver.unread.clear();
    read_and_reopen_the_watch(&mut driver);
    driver.watch_event(WatchEvent::Opened);
    assert_eq!(notices(&mut driver), [], "the watch may break again");
    driver.advance(15 * SECOND);
    assert_eq!(notices(&mut driver)[..1], [ElectionNotice::Watching]);
}

#[test]
fn a_record_whose_watch_is_silent_is_read() {
    let mut driver = Driver::start(None);
    let held = record_by("r", RunState::Held, T1, 600);
    driver.read(Some(held.clone()));
    assert!(matches!(driver.actions()[..], [ElectionAction::Watch(_)]));
    driver.advance(60 * SECOND);
    driver.watch_event(WatchEvent::Bookmark);
    driver.advance(SILENT_WATCH_LIMIT - SECOND);
    assert_eq!(driver.actions(), [], "a bookmark restarts the limit");
    driver.advance(SECOND);
    driver.read(Some(held));
    driver.advance(SILENT_WATCH_LIMIT - SECOND);
    assert_eq!(driver.actions(), [], "so does the reply to a read");
    driver.advance(SECOND);
    assert_eq!(driver.actions(), [ElectionAction::Send(Request::Get)]);
}

#[test]
fn polling_begins_when_the_watch_is_forbidden() {
    let mut driver = Driver::start(None);
    driver.read(Some(record_by("r", RunState::Held, T1, 15)));
    notices(&mut driver);
    driver.watch_event(WatchEvent::Forbidden);
    assert_eq!(notices(&mut driver), [ElectionNotice::Polling]);
}

#[test]
fn the_read_timeout_of_a_standby_doubles() {
    let mut driver = Driver::start(None);
    let mut timeouts = Vec::new();
    for _ in 0..4 {
        driver.expect_read();
        timeouts.push(driver.time_to_next_timeout().as_millis());
        driver.advance(driver.time_to_next_timeout());
    }
    assert_eq!(timeouts, [2666, 5333, 10_666, 15_000]);
    driver.read(None);
    driver.expect_write();
    assert_eq!(driver.time_to_next_timeout().as_millis(), 2666, "the timeout of writes does not grow");
}

#[test]
fn the_outcome_states_whether_the_lock_was_held_or_unreachable() {
    let mut held = Driver::start(Some(3 * SECOND));
    held.read(Some(record_by("r", RunState::Held, T1, 15)));
    held.advance(3 * SECOND);
    assert!(held.actions().contains(&ElectionAction::Finish(Outcome::NotAcquired)));

    let mut silent = Driver::start(Some(3 * SECOND));
    silent.advance(3 * SECOND);
    assert!(silent.actions().contains(&ElectionAction::Finish(Outcome::Unreachable)));

    let mut unusable = Driver::start(Some(3 * SECOND));
    unusable.read(None);
    unusable.reply(Reply::Refused { retry_after: None });
    unusable.advance(3 * SECOND);
    assert!(unusable.actions().contains(&ElectionAction::Finish(Outcome::Unreachable)));
}

#[test]
fn a_candidate_that_does_not_wait_gives_up_after_two_refusals() {
    let mut driver = Driver::start(Some(Duration::ZERO));
    driver.reply(Reply::Refused { retry_after: None });
    assert_eq!(driver.actions().len(), 1, "an API server that is starting may refuse one request");
    driver.advance(driver.time_to_next_timeout());
    driver.expect_read();
    driver.reply(Reply::Refused { retry_after: None });
    assert_eq!(driver.actions(), [ElectionAction::Finish(Outcome::Unreachable)]);
}

#[test]
fn a_candidate_that_does_not_wait_gives_up_an_unreachable_lock() {
    let mut refused = Driver::start(Some(Duration::ZERO));
    for _ in 0..2 {
        refused.reply(Reply::Unknown { retry_after: None });
        assert!(
            refused.time_to_next_timeout() <= SECOND,
            "the next read is due soon: {:?}",
            refused.time_to_next_timeout()
        );
        refused.advance(refused.time_to_next_timeout());
        refused.expect_read();
    }
    refused.reply(Reply::Unknown { retry_after: None });
    assert_eq!(refused.actions(), [ElectionAction::Finish(Outcome::Unreachable)]);

    let hour = 3600 * SECOND;
    let mut silent = Driver::start_with(Timing::new(hour, hour / 2, 60 * SECOND, None).unwrap(), Some(Duration::ZERO));
    silent.advance(FIRST_ANSWER_TIMEOUT);
    assert!(silent.actions().contains(&ElectionAction::Finish(Outcome::Unreachable)));

    let mut known = Driver::start(Some(Duration::ZERO));
    known.read(Some(record_by("r", RunState::Held, T1, 15)));
    known.watch_event(WatchEvent::Broken);
    for _ in 0..4 {
        known.advance(known.time_to_next_timeout());
        known.reply(Reply::Unknown { retry_after: None });
    }
    assert!(
        !known.actions().contains(&ElectionAction::Finish(Outcome::Unreachable)),
        "the holder may be dead and its record must expire"
    );
}

#[test]
fn a_release_by_force_ends_the_wait_for_every_earlier_holder() {
    let held = record_by("r", RunState::Held, T1, 3600);
    let now = Driver::start(None).now.wall;
    let mut standby = Driver::start(None);
    standby.read(Some(held.clone()));
    standby.actions();
    standby.watched(held.clone().released_by_force(now));
    standby.expect_write();

    for emptied in [Some(Record { holder_identity: String::new(), run: None, ..held.clone() }), None] {
        let mut standby = Driver::start(None);
        standby.read(Some(held.clone()));
        match emptied.clone() {
            Some(record) => standby.watched(record),
            None => standby.watch_event(WatchEvent::Deleted),
        }
        standby.actions();
        assert!(standby.time_to_next_timeout() > SECOND, "the known holder's lease duration is waited out");
        standby.watched(emptied.unwrap_or_default().released_by_force(now));
        standby.expect_write();
    }
}

#[test]
fn an_old_release_by_force_releases_nothing_of_a_later_holder() {
    let now = Driver::start(None).now.wall;
    let of_another_run = record_by("dead", RunState::Held, T1, 15).released_by_force(now);
    let of_no_run = Record { run: None, ..record_by("dead", RunState::Held, T1, 15) }.released_by_force(now);
    for old in [of_another_run, of_no_run] {
        let mut standby = Driver::start(None);
        standby.read(Some(record_by("r", RunState::Held, T1, 3600)));
        standby.actions();
        standby.watched(old);
        standby.actions();
        assert!(standby.time_to_next_timeout() > SECOND, "the holder's lease duration is waited out");
    }
}

#[test]
fn a_release_by_force_is_valid_only_with_the_time_of_its_record() {
    let forced = record_by("r", RunState::Held, T1, 15).released_by_force(T2.parse().unwrap());
    assert!(forced.is_released_by_force() && !forced.is_held());
    assert!(!Record { renew_time: Some(T1.parse().unwrap()), ..forced.clone() }.is_released_by_force());
    let mut standby = Driver::start(None);
    standby.read(Some(forced));
    assert_eq!(standby.expect_write().forced, None, "the next claim removes the release by force");
}

#[test]
fn a_candidate_with_a_claim_delay_claims_a_free_lock_after_it() {
    let mut driver = Driver::start_with_preference(5 * SECOND, None);
    driver.read(None);
    assert!(matches!(driver.actions()[..], [ElectionAction::Watch(_)]), "it watches for faster candidates");
    driver.advance(4 * SECOND);
    assert_eq!(driver.actions(), []);
    driver.advance(SECOND);
    let claim = driver.expect_write();
    assert_eq!(claim.claim_delay(), 5 * SECOND, "the record states the claim delay");
    driver.written(claim);
    assert!(matches!(driver.actions()[..], [.., ElectionAction::StartLeading(_)]));
    let mut slower = Driver::start_with_preference(5 * SECOND, None);
    slower.read(None);
    slower.advance(2 * SECOND);
    slower.watched(record_by("r", RunState::Held, T1, 15));
    slower.advance(10 * SECOND);
    assert!(!slower.actions().iter().any(|action| matches!(action, ElectionAction::Send(_))));
}

/// Returns the record of a leader with a claim delay of five seconds.
fn less_preferred(run: &str, renew_time: &str) -> Record {
    Record { claim_delay_millis: Some(5000), ..record_by(run, RunState::Held, renew_time, 15) }
}

#[test]
fn a_leader_with_a_longer_delay_is_requested_to_step_down_once() {
    let mut driver = Driver::start_with_preference(SECOND, Some(60 * SECOND));
    driver.read(Some(less_preferred("r", T1)));
    // The leader renews.
    for second in 1..=6 {
        driver.actions();
        driver.advance(10 * SECOND - Duration::from_millis(1));
        assert!(!driver.actions().iter().any(|action| matches!(action, ElectionAction::Send(_))), "{second}");
        driver.watched(less_preferred("r", &format!("2026-01-01T00:01:0{second}Z")));
    }
    driver.advance(SECOND);
    assert_eq!(driver.expect_write().step_down, Some(RunId::new("r")));
    driver.reply(Reply::Conflict);
    driver.read(Some(less_preferred("r", "2026-01-01T00:02:00Z")));
    let asked = driver.expect_write();
    assert_eq!(asked.step_down, Some(RunId::new("r")), "the request is sent again after a conflict");
    driver.written(asked);
    for second in 1..=9 {
        driver.advance(9 * SECOND);
        driver.watched(less_preferred("r", &format!("2026-01-01T00:03:0{second}Z")));
        assert!(!driver.actions().iter().any(|action| matches!(action, ElectionAction::Send(_))), "{second}");
    }
    // The time starts again with the next leader.
    driver.watched(less_preferred("s", T2));
    driver.advance(9 * SECOND);
    assert!(!driver.actions().iter().any(|action| matches!(action, ElectionAction::Send(_))));
}

#[test]
fn other_leaders_are_not_requested_to_step_down() {
    for leader in
        [record_by("r", RunState::Held, T1, 600), Record { claim_delay_millis: Some(1000), ..less_preferred("r", T1) }]
    {
        let mut driver = Driver::start_with_preference(SECOND, Some(SECOND));
        driver.read(Some(leader));
        driver.actions();
        driver.advance(10 * SECOND);
        assert_eq!(driver.actions(), []);
    }
}
