//! Fuzzes [`Election`], the state machine of a single candidate, with random inputs. It must not panic, must not
//! acquire a lock too early, must base tenures only on its own writes, and must use a bounded amount of memory.

use std::time::Duration;

use fastrand::Rng;
use jiff::{SignedDuration, Timestamp};
use leaderrun_core::election::{
    Election, ElectionAction, ElectionConfig, ElectionInputs, Now, Preference, Reply, Request, WatchEvent,
};
use leaderrun_core::instant::Instant;
use leaderrun_core::record::{Record, RunId, Stored, Version};
use leaderrun_core::tenure::Tenure;
use leaderrun_core::timing::Timing;

use crate::known_record::KnownRecord;
use testkit::{fuzz, hostile_input};

const STEPS: usize = 60;

/// The maximum size of an [`Election`] without its records, in bytes of its debug output.
const MAX_SIZE: usize = 64 * 1024;

/// The maximum number of records in an [`Election`].
const MAX_RECORDS: usize = 8;

struct Execution {
    random: Rng,
    now: Now,
    timing: Timing,
    election: Election,
    known: KnownRecord,
    pending: Option<Request>,
    /// The time at which the pending request was sent.
    pending_since: Instant,
    watch_is_open: bool,
    /// The renewTime of each write that was sent, and the time at which it was sent.
    sent: Vec<(Option<Timestamp>, Instant)>,
    written: Vec<Record>,
    /// `true` while the candidate leads.
    leads: bool,
    /// `true` once the candidate no longer tries to acquire or keep the lock.
    finished: bool,
    /// The resource version of the last record from the server.
    version: u64,
    /// The size of the largest record from the server, including its uid, in bytes of its debug output.
    largest_record_size: usize,
}

#[testkit::test]
fn no_input_breaks_the_election() {
    fuzz("election", 20_000, |random| Execution::new(random).run());
}

impl Execution {
    fn new(mut random: Rng) -> Self {
        let second = Duration::from_secs(1);
        let timing = Timing::new(15 * second, 10 * second, 2 * second, None).expect("the default timing is valid");
        let run = RunId::new("my-run");
        let wait = [None, None, None, Some(Duration::ZERO), Some(40 * second)][random.usize(..5)];
        let min_hold = (random.u8(..4) == 0).then_some(60 * second);
        let config = ElectionConfig {
            identity: "me".into(),
            run: run.clone(),
            timing: timing.clone(),
            wait,
            min_hold,
            ignores_min_hold: false,
            preference: Preference::default(),
        };
        let boot = Instant::after_boot([Duration::ZERO, 1000 * second][random.usize(..2)]);
        let now = Now { boot, wall: random_wall_time(&mut random) };
        Self {
            election: Election::new(config, now, random.u64(..)),
            known: KnownRecord::new(run, timing.lease_duration(), boot),
            random,
            now,
            timing,
            pending: None,
            pending_since: boot,
            watch_is_open: false,
            sent: Vec::new(),
            written: Vec::new(),
            leads: false,
            finished: false,
            version: 1,
            largest_record_size: 0,
        }
    }

    fn run(mut self) {
        self.step(ElectionInputs::default());
        for _ in 0..STEPS {
            match self.random.u8(..10) {
                0..4 => self.send_reply(),
                4..6 => self.send_watch_event(),
                6..9 => self.advance_time(),
                _ if self.leads && self.random.bool() => {
                    let succeeded = self.random.bool();
                    self.leads = false;
                    // All later writes release the lock.
                    self.finished = true;
                    self.step(ElectionInputs::command_gone(succeeded));
                }
                _ if self.random.u8(..8) == 0 => {
                    self.finished |= !self.leads;
                    self.step(ElectionInputs::stop());
                }
                _ => {}
            }
        }
        let size = format!("{:?}", self.election).len();
        let largest = self.largest_record_size;
        let max_size = MAX_SIZE + MAX_RECORDS * largest;
        assert!(size < max_size, "the candidate's state takes {size} bytes; the largest record takes {largest}");
    }

    fn random_object(&mut self) -> Option<Stored> {
        let record = match self.random.u8(..12) {
            0 => return None,
            1..3 => self.known.last().map(|last| last.record.clone()),
            // A record that the candidate itself has written: the current one or an earlier one.
            3..5 if !self.written.is_empty() => Some(self.written[self.random.usize(..self.written.len())].clone()),
            5..7 => self.known.last().map(|last| edited(&mut self.random, last.record.clone())),
            _ => None,
        };
        let record = record.unwrap_or_else(|| hostile_input::record(&mut self.random));
        Some(self.versioned(record))
    }

    fn versioned(&mut self, record: Record) -> Stored {
        self.version += u64::from(self.random.u8(..4) > 0);
        let uid = if self.random.u8(..10) == 0 { hostile_input::text(&mut self.random) } else { "uid".into() };
        self.largest_record_size = self.largest_record_size.max(format!("{record:?}{uid}").len());
        Stored { record, version: Version { uid, resource_version: self.version.to_string() } }
    }

    fn send_reply(&mut self) {
        let Some(request) = self.pending.take() else { return };
        let retry_after = (self.random.u8(..4) == 0).then(|| Duration::from_secs(self.random.u64(..)));
        let base = match &request {
            Request::Update(version, _) => Some(version.clone()),
            _ => None,
        };
        let reply = match (self.random.u8(..8), request) {
            (0, _) => Reply::Refused { retry_after },
            (1, _) => Reply::Unknown { retry_after },
            (_, Request::Get) => Reply::Read(self.random_object()),
            (2, _) => Reply::Conflict,
            // The server returns a record that differs from the one that was written.
            (3, _) => self.random_object().map_or(Reply::Conflict, Reply::Written),
            (_, Request::Create(record) | Request::Update(_, record)) => {
                self.version += 1;
                Reply::Written(self.versioned(record))
            }
        };
        match &reply {
            Reply::Read(stored) => {
                // A working watch would have delivered the change first, so this one is broken and delivers no events.
                self.watch_is_open &= !self.known.observe(self.now.boot, stored.as_ref());
            }
            // An unchanged version means that nothing was written.
            Reply::Written(stored) if base.as_ref() != Some(&stored.version) => {
                let _ = self.known.observe(self.now.boot, Some(stored));
            }
            _ => {}
        }
        self.step(ElectionInputs::reply(reply));
    }

    fn send_watch_event(&mut self) {
        if !self.watch_is_open || self.leads || self.finished {
            return;
        }
        let event = match self.random.u8(..8) {
            0 => WatchEvent::Ended,
            1 => WatchEvent::Broken,
            2 => WatchEvent::Forbidden,
            3 => WatchEvent::Refused { retry_after: Duration::from_secs(self.random.u64(..)) },
            _ => self.random_object().map_or(WatchEvent::Deleted, WatchEvent::Changed),
        };
        match &event {
            WatchEvent::Changed(stored) => _ = self.known.observe(self.now.boot, Some(stored)),
            WatchEvent::Deleted => _ = self.known.observe(self.now.boot, None),
            _ => self.watch_is_open = false,
        }
        self.step(ElectionInputs::watch_event(event));
    }

    fn advance_time(&mut self) {
        let until_due = self.election.next_timeout().map_or(Duration::ZERO, |at| at.since(self.now.boot));
        let advance = match self.random.u8(..6) {
            0 => Duration::ZERO,
            1 => Duration::from_millis(self.random.u64(..3000)),
            // The machine is suspended.
            2 if self.random.u8(..10) == 0 => Duration::from_secs(1 << self.random.u32(..34)),
            _ => until_due.min(Duration::from_secs(100)),
        };
        self.now.boot = self.now.boot + advance;
        if self.random.u8(..6) == 0 {
            self.now.wall = random_wall_time(&mut self.random);
        }
        // After the request timeout, the candidate no longer expects a reply to this request.
        self.pending.take_if(|_| self.now.boot >= self.pending_since + self.timing.request_timeout());
        let action_count = self.step(ElectionInputs::default());
        let waits = self.election.next_timeout().is_none_or(|at| at > self.now.boot);
        assert!(waits || action_count > 0, "the next timeout is already due, but the candidate took no action");
    }

    /// Takes one step of the [`Election`], and carries out and checks its actions. Returns the number of actions.
    fn step(&mut self, inputs: ElectionInputs) -> usize {
        let actions = self.election.step(self.now, inputs);
        let count = actions.len();
        assert!(count < 100, "the candidate took {count} actions in one step");
        for action in actions {
            match action {
                ElectionAction::Send(request) => self.check_request(request),
                ElectionAction::Watch(_) => self.watch_is_open = true,
                ElectionAction::Unwatch => self.watch_is_open = false,
                ElectionAction::StartLeading(leadership) => {
                    assert!(!self.leads, "the candidate starts to lead, although it already leads");
                    let record = &self.known.last().expect("a leader has observed a record").record;
                    assert!(
                        self.known.is_own(record),
                        "the candidate leads because of another run's record: {record:?}"
                    );
                    let renewed = leadership.tenure.renewal_sent_at;
                    assert!(
                        self.sent.contains(&(record.renew_time, renewed)),
                        "the candidate sent no write at the time at which its tenure begins"
                    );
                    assert!(self.now.boot < leadership.tenure.stop, "the tenure is over before the command starts");
                    self.leads = true;
                    // The reply to an earlier read is ignored, because it is older than this leadership.
                    self.pending.take_if(|request| *request == Request::Get);
                }
                ElectionAction::Extend(Tenure { renewal_sent_at: renewed, .. }) => {
                    assert!(self.leads && self.sent.iter().any(|(_, sent)| *sent == renewed));
                    assert!(!self.known.is_held_by_other());
                }
                ElectionAction::StepDown => {
                    let last = self.known.last().expect("a leader has observed a record");
                    assert!(self.leads && last.record.step_down.is_some());
                }
                ElectionAction::Lose { .. } => {
                    assert!(self.known.last().is_some(), "the candidate loses the lock although there is no record");
                }
                ElectionAction::Finish(_) => (self.finished, self.leads) = (true, false),
                ElectionAction::Notify(_) | ElectionAction::Claiming | ElectionAction::ClaimFailed => {}
            }
        }
        count
    }

    fn check_request(&mut self, request: Request) {
        let (base, record) = match &request {
            Request::Get => (None, None),
            Request::Create(record) => (None, Some(record)),
            Request::Update(version, record) => (Some(version), Some(record)),
        };
        if let Some(record) = record {
            assert_eq!(
                base,
                self.known.last().map(|last| &last.version),
                "a write replaces a version that the candidate has not observed"
            );
            if !self.leads && !self.finished {
                let may_write_at = self.known.may_write_at();
                let early = may_write_at.since(self.now.boot);
                assert!(self.now.boot >= may_write_at, "acquired {early:?} too early: {:?}", self.known.last());
            }
            if self.leads {
                assert!(
                    !self.known.is_held_by_other(),
                    "a renewal overwrites another run's record {:?}",
                    self.known.last()
                );
                assert!(
                    self.now.boot.since(Instant::after_boot(Duration::ZERO)) > Duration::ZERO || self.sent.len() < 5,
                    "the candidate renews without waiting: it has already sent five writes, and the boot clock still reads \
                     zero"
                );
            }
            let renewed = record.renew_time;
            assert!(record.mark().is_some(), "every write should have a mark");
            assert_eq!(record.step_down, None, "every write should remove the request to step down");
            assert!(
                record.lease_transitions <= i32::MAX as u32 || !self.leads,
                "a leader should not write a leaseTransitions that the API server would refuse"
            );
            assert_eq!(
                record.lease_duration_seconds.map(|seconds| Duration::from_secs(seconds.into())),
                Some(self.timing.lease_duration())
            );
            let before = self.known.last().and_then(|last| last.record.renew_time);
            assert_ne!(renewed, before, "every write should change renewTime");
            self.sent.push((renewed, self.now.boot));
            self.written.push(record.clone());
        }
        (self.pending, self.pending_since) = (Some(request), self.now.boot);
    }
}

/// Returns a random time that is at least an hour before the last time that [`Timestamp`] can represent, so that the
/// candidate can add durations to it.
fn random_wall_time(random: &mut Rng) -> Timestamp {
    let last = Timestamp::MAX
        .checked_sub(SignedDuration::from_hours(1))
        .expect("Timestamp::MAX minus an hour can be represented");
    hostile_input::time(random).min(last)
}

/// Returns the record with a random edit of the kind that a user could make with `kubectl edit`.
fn edited(random: &mut Rng, record: Record) -> Record {
    match random.u8(..7) {
        0 => Record { holder_identity: String::new(), ..record },
        1 => Record { lease_duration_seconds: hostile_input::seconds(random), ..record },
        2 => Record { renew_time: Some(hostile_input::time(random)), ..record },
        3 => Record { run: None, ..record },
        4 => Record { holder_identity: hostile_input::text(random), ..record },
        5 => Record { step_down: Some(RunId::new("my-run")), ..record },
        _ => Record { run: None, holder_identity: String::new(), ..record },
    }
}
