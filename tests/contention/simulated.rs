//! Up to ten thousand: the production election on a virtual clock, over a model of one API server that
//! tells its watchers of a change one after another.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use fastrand::Rng;
use jiff::Timestamp;
use leaderrun_core::election::{
    Election, ElectionAction, ElectionConfig, ElectionInputs, Now, Reply, Request, WatchEvent,
};
use leaderrun_core::instant::Instant;
use leaderrun_core::record::{RunId, Stored, Version};
use leaderrun_core::timing::Timing;

/// What a message takes on its way, microseconds: a large cluster, and a busy server.
const ON_THE_WAY: std::ops::Range<u64> = 2_000..20_000;

/// Between the telling of one watcher and of the next, microseconds.
const TOLD_APART: u64 = 10;

/// How long a winner leads.
const LEADS: Duration = Duration::from_millis(500);

/// Between a candidate's end and its return.
const RESTARTS_IN: Duration = Duration::from_millis(300);

enum Event {
    Wake,
    Request(Request),
    Reply(Reply),
    Watched(WatchEvent),
    Ends,
    Returns,
}

struct Candidate {
    election: Election,
    /// Tells the events of a candidate from those of the one whose place it took.
    born: usize,
    watches: bool,
    /// When it wants to be woken, microseconds.
    wakes_at: u64,
}

/// All of them, and the server.
struct Herd {
    now: Duration,
    candidates: Vec<Candidate>,
    /// By time, in microseconds, and order of arrival; whose, and what: an index into `events`.
    queue: BinaryHeap<Reverse<(u64, usize, usize, usize)>>,
    events: Vec<Option<Event>>,
    stored: Option<Stored>,
    writes: u64,
    born: usize,
    random: Rng,
    refused: usize,
    released_at: Option<Duration>,
    handovers: Vec<Handover>,
}

#[derive(Clone, Copy)]
struct Handover {
    refused: usize,
    took: Duration,
}

impl Herd {
    fn new(size: usize, seed: u64) -> Self {
        let mut herd = Self {
            now: Duration::from_secs(100),
            candidates: Vec::new(),
            queue: BinaryHeap::new(),
            events: Vec::new(),
            stored: None,
            writes: 0,
            born: 0,
            random: Rng::with_seed(seed),
            refused: 0,
            released_at: None,
            handovers: Vec::new(),
        };
        for index in 0..size {
            let candidate = herd.candidate();
            herd.candidates.push(candidate);
            herd.step(index, ElectionInputs::default());
        }
        herd
    }

    fn now(&self) -> Now {
        Now { boot: Instant::after_boot(self.now), wall: Timestamp::UNIX_EPOCH + self.now }
    }

    fn candidate(&mut self) -> Candidate {
        self.born += 1;
        let timing =
            Timing::new(Duration::from_secs(15), Duration::from_secs(10), Duration::from_secs(2), None).unwrap();
        let identity = format!("candidate {}", self.born);
        let config = ElectionConfig { run: RunId::new(&*identity), identity, timing, wait: None, min_hold: None };
        let election = Election::new(config, self.now(), self.random.u64(..));
        Candidate { election, born: self.born, watches: false, wakes_at: 0 }
    }

    fn after(&mut self, delay: Duration, whose: usize, event: Event) {
        let at = (self.now + delay).as_micros() as u64;
        self.queue.push(Reverse((at, self.events.len(), whose, self.candidates[whose].born)));
        self.events.push(Some(event));
    }

    fn on_the_way(&mut self) -> Duration {
        Duration::from_micros(self.random.u64(ON_THE_WAY))
    }

    fn run_until(&mut self, enough: impl Fn(&Self) -> bool) {
        while !enough(self) {
            let Reverse((at, event, whose, born)) = self.queue.pop().expect("something to come");
            self.now = Duration::from_micros(at);
            let event = self.events[event].take().expect("it has not happened yet");
            if self.candidates[whose].born != born {
                continue;
            }
            let inputs = match event {
                Event::Wake if self.candidates[whose].wakes_at != at => continue,
                Event::Wake => ElectionInputs::default(),
                Event::Reply(reply) => ElectionInputs::reply(reply),
                Event::Watched(event) => ElectionInputs::watch_event(event),
                Event::Ends => ElectionInputs::command_gone(true),
                Event::Returns => {
                    self.candidates[whose] = self.candidate();
                    ElectionInputs::default()
                }
                Event::Request(request) => {
                    let reply = self.answer(request);
                    let delay = self.on_the_way();
                    self.after(delay, whose, Event::Reply(reply));
                    continue;
                }
            };
            self.step(whose, inputs);
        }
    }

    fn step(&mut self, whose: usize, inputs: ElectionInputs) {
        let now = self.now();
        for action in self.candidates[whose].election.step(now, inputs) {
            match action {
                ElectionAction::Send(request) => {
                    let delay = self.on_the_way();
                    self.after(delay, whose, Event::Request(request));
                }
                ElectionAction::Watch(_) => self.candidates[whose].watches = true,
                ElectionAction::Unwatch => self.candidates[whose].watches = false,
                ElectionAction::StartLeading(_) => self.after(LEADS, whose, Event::Ends),
                ElectionAction::Finish(_) => return self.after(RESTARTS_IN, whose, Event::Returns),
                _ => {}
            }
        }
        if let Some(at) = self.candidates[whose].election.next_timeout() {
            let delay = at.since(Instant::after_boot(self.now)) + Duration::from_micros(1);
            let wakes_at = (self.now + delay).as_micros() as u64;
            if wakes_at != self.candidates[whose].wakes_at {
                self.candidates[whose].wakes_at = wakes_at;
                self.after(delay, whose, Event::Wake);
            }
        }
    }

    fn answer(&mut self, request: Request) -> Reply {
        let present = self.stored.as_ref().map(|stored| stored.version.clone());
        let (base, record) = match request {
            Request::Get => return Reply::Read(self.stored.clone()),
            Request::Create(record) => (None, record),
            Request::Update(version, record) => (Some(version), record),
        };
        if base != present {
            self.refused += 1;
            return Reply::Conflict;
        }
        self.writes += 1;
        let version = Version { uid: "uid".into(), resource_version: self.writes.to_string() };
        let was_held = self.stored.as_ref().is_some_and(|stored| stored.record.is_held());
        match (was_held, record.is_held()) {
            (true, false) => (self.released_at, self.refused) = (Some(self.now), 0),
            (false, true) => self.released_at.into_iter().for_each(|at| {
                self.handovers.push(Handover { refused: 0, took: self.now - at });
            }),
            _ => {}
        }
        let stored = Stored { record, version };
        self.stored = Some(stored.clone());
        self.tell_watchers(stored);
        Reply::Written(self.stored.clone().expect("just written"))
    }

    fn tell_watchers(&mut self, stored: Stored) {
        let mut watchers: Vec<usize> = (0..self.candidates.len()).filter(|&c| self.candidates[c].watches).collect();
        self.random.shuffle(&mut watchers);
        for (nth, whose) in watchers.into_iter().enumerate() {
            let delay = self.on_the_way() + Duration::from_micros(TOLD_APART * nth as u64);
            self.after(delay, whose, Event::Watched(WatchEvent::Changed(stored.clone())));
        }
    }

    /// Plays so many hand-overs, each with all that came of it before the next release.
    fn play(&mut self, count: usize) -> Vec<Handover> {
        for nth in 1..=count {
            self.run_until(|herd| herd.handovers.len() >= nth);
            let ended = self.now + LEADS;
            self.run_until(|herd| herd.now >= ended);
            self.handovers[nth - 1].refused = self.refused;
        }
        std::mem::take(&mut self.handovers)
    }
}

struct Figures {
    refused: f64,
    median: Duration,
}

/// Of hand-overs in a herd that has found out its size.
fn figures(size: usize, seed: u64, count: usize) -> Figures {
    let mut herd = Herd::new(size, seed);
    let learning: usize = herd.play(12).iter().map(|handover| handover.refused).sum();
    let handovers = herd.play(count);
    let refused = handovers.iter().map(|handover| handover.refused).sum::<usize>() as f64 / count as f64;
    let mut took: Vec<_> = handovers.iter().map(|handover| handover.took).collect();
    took.sort();
    let (median, worst) = (took[count / 2], took[count - 1]);
    println!(
        "{size} candidates, seed {seed}: {refused:.1} refused a hand-over, {median:?} median, {worst:?} worst; \
         {learning} refused in the twelve before"
    );
    Figures { refused, median }
}

/// A herd finds out its size by chance: it has to with whatever chance there is.
const SEEDS: std::ops::Range<u64> = 0..8;

#[testkit::test]
fn few_claim_at_once() {
    for size in 2..=5 {
        for seed in SEEDS {
            assert!(figures(size, seed, 200).median < Duration::from_micros(2 * ON_THE_WAY.end));
        }
    }
}

#[testkit::test]
fn a_thousand_spread_their_claims() {
    for seed in SEEDS {
        let Figures { refused, median } = figures(1000, seed, 40);
        assert!(refused < 10.0 && median < Duration::from_millis(100));
    }
}

#[testkit::test]
fn ten_thousand_spread_their_claims() {
    let Figures { refused, median } = figures(10_000, 0, 6);
    assert!(refused < 100.0 && median < Duration::from_millis(100));
}
