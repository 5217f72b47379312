//! Tests of each of the election's rules in isolation. leaderrun's simulation tests the rules together.

mod contention;
mod ending;
mod renewals;
mod step_down;
mod takeover;
mod watching;

use super::*;
use crate::record::{MarkState, RunId, RunMark, Stored};
use crate::timing::Timing;

const SECOND: Duration = Duration::from_secs(1);

/// Two renew times of another candidate.
const TIME_1: &str = "2020-01-01T00:00:01Z";
const TIME_2: &str = "2020-01-01T00:00:02Z";

fn default_timing() -> Timing {
    Timing::new(15 * SECOND, 10 * SECOND, 2 * SECOND, None).unwrap()
}

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
        Self::start_with_timing(default_timing(), wait)
    }

    fn start_with_timing(timing: Timing, wait: Option<Duration>) -> Self {
        Self::start_with_config(timing, wait, Preference::default())
    }

    /// Starts a candidate with this claim delay and preemption.
    fn start_with_preference(claim_delay: Duration, preempt_after: Option<Duration>) -> Self {
        Self::start_with_config(default_timing(), None, Preference { claim_delay, preempt_after })
    }

    fn start_with_config(timing: Timing, wait: Option<Duration>, preference: Preference) -> Self {
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

    /// Starts a candidate whose first write acquires the lock without delay.
    fn leading() -> Self {
        let mut driver = Self::start(None);
        driver.reply_to_read(None);
        let record = driver.expect_write();
        driver.reply_to_write(record);
        assert!(matches!(driver.take_actions()[..], [ElectionAction::StartLeading(_)]));
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

    /// Takes all unread actions, and returns those that are neither notices nor reports about claims.
    fn take_actions(&mut self) -> Vec<ElectionAction> {
        let has_effect = |action: &ElectionAction| {
            !matches!(action, ElectionAction::Notify(_) | ElectionAction::Claiming | ElectionAction::ClaimFailed)
        };
        self.unread.drain(..).filter(has_effect).collect()
    }

    #[track_caller]
    fn expect_write(&mut self) -> Record {
        match &self.take_actions()[..] {
            [.., ElectionAction::Send(Request::Create(record) | Request::Update(_, record))] => record.clone(),
            actions => panic!("expected a write, got {actions:?}"),
        }
    }

    #[track_caller]
    fn expect_read(&mut self) {
        let actions = self.take_actions();
        assert!(matches!(actions[..], [.., ElectionAction::Send(Request::Get)]), "expected a read, got {actions:?}");
    }

    /// Replies to the pending read with this record.
    fn reply_to_read(&mut self, record: Option<Record>) {
        assert!(matches!(self.take_actions()[..], [.., ElectionAction::Send(Request::Get)]));
        let stored = record.map(|record| self.stored(record));
        self.reply(Reply::Read(stored));
    }

    /// Reports that the pending write succeeded and that this record is now stored.
    fn reply_to_write(&mut self, record: Record) {
        self.version += 1;
        let stored = self.stored(record);
        self.reply(Reply::Written(stored));
    }

    /// Delivers a watch event about this record, which another client has stored.
    fn watch_delivers(&mut self, record: Record) {
        self.version += 1;
        let stored = self.stored(record);
        self.watch_event(WatchEvent::Changed(stored));
    }

    fn stored(&self, record: Record) -> Stored {
        Stored { record, version: Version { uid: "uid".into(), resource_version: self.version.to_string() } }
    }

    /// Returns the time until the lock may be acquired if the record does not change until then.
    fn time_to_takeover(&self) -> Duration {
        let (_, acquirable_at) = self.election.observed().expect("the record was read");
        acquirable_at.since(self.now.boot)
    }

    /// Returns the time until the next timeout of the election.
    fn time_to_next_timeout(&self) -> Duration {
        self.election.next_timeout().unwrap().since(self.now.boot)
    }
}

/// Returns a record that another candidate's run wrote at `renew_time`, with a lease duration of this many seconds.
fn record_by(run: &str, state: MarkState, renew_time: &str, seconds: u32) -> Record {
    let renew_time = renew_time.parse().unwrap();
    Record {
        holder_identity: if state == MarkState::Held { "other".into() } else { String::new() },
        lease_duration_seconds: Some(seconds),
        renew_time: Some(renew_time),
        run: Some(RunMark { run: RunId::new(run), state, renew_time }),
        ..Record::default()
    }
}

/// Takes all unread actions, and returns the notices among them.
fn take_notices(driver: &mut Driver) -> Vec<ElectionNotice> {
    let notice = |action| if let ElectionAction::Notify(notice) = action { Some(notice) } else { None };
    driver.unread.drain(..).filter_map(notice).collect()
}
