//! The election machine, told anything: it never panics, never takes a lease before its time, never
//! counts a tenure from anything but a write of its own, and keeps no more than it needs.

use std::time::Duration;

use fastrand::Rng;
use jiff::{SignedDuration, Timestamp};
use leaderrun_core::election::{
    Election, ElectionAction, ElectionConfig, ElectionInputs, Now, Reply, Request, WatchEvent,
};
use leaderrun_core::instant::Instant;
use leaderrun_core::record::{Record, RunId, Stored, Version};
use leaderrun_core::tenure::Tenure;
use leaderrun_core::timing::Timing;

use crate::knowledge::Knowledge;
use crate::{chaos, fuzz};

const STEPS: usize = 60;

/// What a machine may keep beside two records: requests without an answer, and itself.
const ROOM: usize = 64 * 1024;

struct Play {
    random: Rng,
    now: Now,
    timing: Timing,
    election: Election,
    knowledge: Knowledge,
    under_way: Option<Request>,
    /// When it was sent.
    since: Instant,
    watching: bool,
    /// Every write: its time, and when it was sent.
    sent: Vec<(Option<Timestamp>, Instant)>,
    written: Vec<Record>,
    leads: bool,
    over: bool,
    version: u64,
    largest: usize,
}

#[testkit::test]
fn told_anything() {
    fuzz("election", 20_000, |random| Play::new(random).run());
}

impl Play {
    fn new(mut random: Rng) -> Self {
        let second = Duration::from_secs(1);
        let timing = Timing::new(15 * second, 10 * second, 2 * second, None).expect("the defaults");
        let run = RunId::new("my-run");
        let wait = [None, None, None, Some(Duration::ZERO), Some(40 * second)][random.usize(..5)];
        let min_hold = (random.u8(..4) == 0).then_some(60 * second);
        let config = ElectionConfig { identity: "me".into(), run: run.clone(), timing: timing.clone(), wait, min_hold };
        let boot = Instant::after_boot([Duration::ZERO, 1000 * second][random.usize(..2)]);
        let now = Now { boot, wall: wall_clock(&mut random) };
        Self {
            election: Election::new(config, now, random.u64(..)),
            knowledge: Knowledge::new(run, timing.lease_duration(), boot),
            random,
            now,
            timing,
            under_way: None,
            since: boot,
            watching: false,
            sent: Vec::new(),
            written: Vec::new(),
            leads: false,
            over: false,
            version: 1,
            largest: 0,
        }
    }

    fn run(mut self) {
        self.step(ElectionInputs::default());
        for _ in 0..STEPS {
            match self.random.u8(..10) {
                0..4 => self.answer(),
                4..6 => self.watch_says(),
                6..9 => self.time_passes(),
                _ if self.leads && self.random.bool() => {
                    let succeeded = self.random.bool();
                    self.leads = false;
                    // What is written from here on releases the lock.
                    self.over = true;
                    self.step(ElectionInputs::command_gone(succeeded));
                }
                _ if self.random.u8(..8) == 0 => {
                    self.over |= !self.leads;
                    self.step(ElectionInputs::stop());
                }
                _ => {}
            }
        }
        let kept = format!("{:?}", self.election).len();
        assert!(kept < ROOM + 8 * self.largest, "it keeps {kept} bytes of records of {} at most", self.largest);
    }

    fn stored(&mut self) -> Option<Stored> {
        let record = match self.random.u8(..12) {
            0 => return None,
            1..3 => self.knowledge.last().map(|last| last.record.clone()),
            // An echo of its own writes, late ones too.
            3..5 if !self.written.is_empty() => Some(self.written[self.random.usize(..self.written.len())].clone()),
            5..7 => self.knowledge.last().map(|last| edited(&mut self.random, last.record.clone())),
            _ => None,
        };
        let record = record.unwrap_or_else(|| chaos::record(&mut self.random));
        Some(self.versioned(record))
    }

    fn versioned(&mut self, record: Record) -> Stored {
        self.version += u64::from(self.random.u8(..4) > 0);
        let uid = if self.random.u8(..10) == 0 { chaos::text(&mut self.random) } else { "uid".into() };
        self.largest = self.largest.max(format!("{record:?}{uid}").len());
        Stored { record, version: Version { uid, resource_version: self.version.to_string() } }
    }

    fn answer(&mut self) {
        let Some(request) = self.under_way.take() else { return };
        let retry_after = (self.random.u8(..4) == 0).then(|| Duration::from_secs(self.random.u64(..)));
        let base = match &request {
            Request::Update(version, _) => Some(version.clone()),
            _ => None,
        };
        let reply = match (self.random.u8(..8), request) {
            (0, _) => Reply::Refused { retry_after },
            (1, _) => Reply::Unknown { retry_after },
            (_, Request::Get) => Reply::Read(self.stored()),
            (2, _) => Reply::Conflict,
            // A server that answers with something else than what was written.
            (3, _) => self.stored().map_or(Reply::Conflict, Reply::Written),
            (_, Request::Create(record) | Request::Update(_, record)) => {
                self.version += 1;
                Reply::Written(self.versioned(record))
            }
        };
        match &reply {
            Reply::Read(stored) => {
                // A watch that should have said so is dead, whatever else it says.
                self.watching &= !self.knowledge.see(self.now.boot, stored.as_ref());
            }
            // With the version that was replaced: nothing was written.
            Reply::Written(stored) if base.as_ref() != Some(&stored.version) => {
                let _ = self.knowledge.see(self.now.boot, Some(stored));
            }
            _ => {}
        }
        self.step(ElectionInputs::reply(reply));
    }

    fn watch_says(&mut self) {
        if !self.watching || self.leads || self.over {
            return;
        }
        let event = match self.random.u8(..8) {
            0 => WatchEvent::Ended,
            1 => WatchEvent::Broken,
            2 => WatchEvent::Forbidden,
            _ => self.stored().map_or(WatchEvent::Deleted, WatchEvent::Changed),
        };
        match &event {
            WatchEvent::Changed(stored) => _ = self.knowledge.see(self.now.boot, Some(stored)),
            WatchEvent::Deleted => _ = self.knowledge.see(self.now.boot, None),
            _ => self.watching = false,
        }
        self.step(ElectionInputs::watch_event(event));
    }

    fn time_passes(&mut self) {
        let due = self.election.next_timeout().map_or(Duration::ZERO, |at| at.since(self.now.boot));
        let by = match self.random.u8(..6) {
            0 => Duration::ZERO,
            1 => Duration::from_millis(self.random.u64(..3000)),
            // Asleep, with the machine.
            2 if self.random.u8(..10) == 0 => Duration::from_secs(1 << self.random.u32(..34)),
            _ => due.min(Duration::from_secs(100)),
        };
        self.now.boot = self.now.boot + by;
        if self.random.u8(..6) == 0 {
            self.now.wall = wall_clock(&mut self.random);
        }
        // What comes later is not heard any more.
        self.under_way.take_if(|_| self.now.boot >= self.since + self.timing.attempt());
        let taken = self.step(ElectionInputs::default());
        let waits = self.election.next_timeout().is_none_or(|at| at > self.now.boot);
        assert!(waits || taken > 0, "it wants to be woken again at once, for nothing");
    }

    /// Hands something in, carries out what the election says, and judges that.
    fn step(&mut self, inputs: ElectionInputs) -> usize {
        let actions = self.election.step(self.now, inputs);
        let count = actions.len();
        assert!(count < 100, "it never stops");
        for action in actions {
            match action {
                ElectionAction::Send(request) => self.judge_request(request),
                ElectionAction::Watch(_) => self.watching = true,
                ElectionAction::Unwatch => self.watching = false,
                ElectionAction::StartLeading(leadership) => {
                    assert!(!self.leads, "it leads already");
                    let record = &self.knowledge.last().expect("a record").record;
                    assert!(self.knowledge.is_mine(record), "it leads by somebody else's record: {record:?}");
                    let renewed = leadership.tenure.renewal_sent_at;
                    assert!(self.sent.contains(&(record.renew_time, renewed)), "T0 of nothing that was sent");
                    assert!(self.now.boot < leadership.tenure.stop, "it leads when its time is over");
                    self.leads = true;
                    // A read that began before this tells of the time before it: its answer is not heard.
                    self.under_way.take_if(|request| *request == Request::Get);
                }
                ElectionAction::Extend(Tenure { renewal_sent_at: renewed, .. }) => {
                    assert!(self.leads && self.sent.iter().any(|(_, sent)| *sent == renewed));
                    assert!(!self.knowledge.is_anothers());
                }
                ElectionAction::StepDown => {
                    let last = self.knowledge.last().expect("what asks for it");
                    assert!(self.leads && last.record.step_down.is_some());
                }
                ElectionAction::Lose { .. } => {
                    assert!(self.knowledge.is_anothers() || self.knowledge.last().is_some());
                }
                ElectionAction::Finish(_) => (self.over, self.leads) = (true, false),
                ElectionAction::Notify(_) | ElectionAction::Claiming | ElectionAction::ClaimFailed => {}
            }
        }
        count
    }

    fn judge_request(&mut self, request: Request) {
        let (base, record) = match &request {
            Request::Get => (None, None),
            Request::Create(record) => (None, Some(record)),
            Request::Update(version, record) => (Some(version), Some(record)),
        };
        if let Some(record) = record {
            assert_eq!(base, self.knowledge.last().map(|last| &last.version), "it replaces what it has not seen");
            if !self.leads && !self.over {
                let free_at = self.knowledge.free_at();
                let early = free_at.since(self.now.boot);
                assert!(self.now.boot >= free_at, "taken {early:?} too early: {:?}", self.knowledge.last());
            }
            if self.leads {
                assert!(!self.knowledge.is_anothers(), "it overwrites {:?}", self.knowledge.last());
                assert!(
                    self.now.boot.since(Instant::after_boot(Duration::ZERO)) > Duration::ZERO || self.sent.len() < 5
                );
            }
            let renewed = record.renew_time;
            assert!(record.mark().is_some(), "a write says whose it is");
            assert_eq!(record.step_down, None, "a write takes every request to step down back");
            assert!(record.lease_transitions <= i32::MAX as u32 || !self.leads);
            assert_eq!(
                record.lease_duration_seconds.map(|seconds| Duration::from_secs(seconds.into())),
                Some(self.timing.lease_duration())
            );
            let before = self.knowledge.last().and_then(|last| last.record.renew_time);
            assert_ne!(renewed, before, "a write that changes nothing is none");
            self.sent.push((renewed, self.now.boot));
            self.written.push(record.clone());
        }
        (self.under_way, self.since) = (Some(request), self.now.boot);
    }
}

/// Anything, but for the last moment that can be written: no later one could follow.
fn wall_clock(random: &mut Rng) -> Timestamp {
    let last = Timestamp::MAX.checked_sub(SignedDuration::from_hours(1)).expect("an hour before the end of time");
    chaos::time(random).min(last)
}

/// What somebody with `kubectl edit` makes of a record.
fn edited(random: &mut Rng, record: Record) -> Record {
    match random.u8(..7) {
        0 => Record { holder_identity: String::new(), ..record },
        1 => Record { lease_duration_seconds: chaos::seconds(random), ..record },
        2 => Record { renew_time: Some(chaos::time(random)), ..record },
        3 => Record { run: None, ..record },
        4 => Record { holder_identity: chaos::text(random), ..record },
        5 => Record { step_down: Some(RunId::new("my-run")), ..record },
        _ => Record { run: None, holder_identity: String::new(), ..record },
    }
}
