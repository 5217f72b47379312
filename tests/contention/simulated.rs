//! Simulates up to ten thousand candidates. They run the production election in virtual time, against a model of an API
//! server that sends each change to its watchers one after another.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use fastrand::Rng;
use jiff::Timestamp;
use leaderrun_core::election::{
    Election, ElectionAction, ElectionConfig, ElectionInputs, Now, Preference, Reply, Request, WatchEvent,
};
use leaderrun_core::instant::Instant;
use leaderrun_core::record::{RunId, Stored, Version};
use leaderrun_core::timing::Timing;

/// The latency of a message in a large cluster with a busy server, in microseconds.
const LATENCY: std::ops::Range<u64> = 2_000..20_000;

/// The time between sending a change to one watcher and sending it to the next, in microseconds.
const WATCH_EVENT_INTERVAL: u64 = 10;

/// How long each leader's command runs.
const COMMAND_DURATION: Duration = Duration::from_millis(500);

/// The time from the end of a candidate to the start of the next one at the same index.
const RESTART_DELAY: Duration = Duration::from_millis(300);

enum Event {
    Timeout,
    Request(Request),
    Reply(Reply),
    Watch(WatchEvent),
    CommandEnds,
    Restart,
}

struct SimulatedCandidate {
    election: Election,
    /// A serial number, unique to this candidate. Events for an earlier candidate at the same index are dropped.
    start_number: usize,
    watch_is_open: bool,
    /// The time at which the candidate's next timeout is due, in microseconds.
    timeout_at: u64,
}

/// The candidates and the server.
struct ContentionSimulation {
    /// The virtual time since boot.
    now: Duration,
    candidates: Vec<SimulatedCandidate>,
    /// The queued events: the due time in microseconds, the index into `events`, the index of the candidate, and its
    /// `start_number`.
    queue: BinaryHeap<Reverse<(u64, usize, usize, usize)>>,
    events: Vec<Option<Event>>,
    stored: Option<Stored>,
    writes: u64,
    starts: usize,
    random: Rng,
    /// The number of writes refused since the last release.
    refused: usize,
    released_at: Option<Duration>,
    hand_overs: Vec<HandOver>,
}

#[derive(Clone, Copy)]
struct HandOver {
    /// The number of writes that were refused between this release and the next one.
    refused: usize,
    /// The time from this release to the next acquisition.
    duration: Duration,
}

impl ContentionSimulation {
    fn new(size: usize, seed: u64) -> Self {
        let mut simulation = Self {
            now: Duration::from_secs(100),
            candidates: Vec::new(),
            queue: BinaryHeap::new(),
            events: Vec::new(),
            stored: None,
            writes: 0,
            starts: 0,
            random: Rng::with_seed(seed),
            refused: 0,
            released_at: None,
            hand_overs: Vec::new(),
        };
        for index in 0..size {
            let candidate = simulation.start_candidate();
            simulation.candidates.push(candidate);
            simulation.step(index, ElectionInputs::default());
        }
        simulation
    }

    fn now(&self) -> Now {
        Now { boot: Instant::after_boot(self.now), wall: Timestamp::UNIX_EPOCH + self.now }
    }

    fn start_candidate(&mut self) -> SimulatedCandidate {
        self.starts += 1;
        let timing =
            Timing::new(Duration::from_secs(15), Duration::from_secs(10), Duration::from_secs(2), None).unwrap();
        let identity = format!("candidate {}", self.starts);
        let config = ElectionConfig {
            run: RunId::new(&*identity),
            identity,
            timing,
            wait: None,
            min_hold: None,
            ignores_min_hold: false,
            preference: Preference::default(),
        };
        let election = Election::new(config, self.now(), self.random.u64(..));
        SimulatedCandidate { election, start_number: self.starts, watch_is_open: false, timeout_at: 0 }
    }

    fn schedule(&mut self, delay: Duration, index: usize, event: Event) {
        let at = (self.now + delay).as_micros() as u64;
        self.queue.push(Reverse((at, self.events.len(), index, self.candidates[index].start_number)));
        self.events.push(Some(event));
    }

    fn latency(&mut self) -> Duration {
        Duration::from_micros(self.random.u64(LATENCY))
    }

    fn run_until(&mut self, condition: impl Fn(&Self) -> bool) {
        while !condition(self) {
            let Reverse((at, event, index, start_number)) = self.queue.pop().expect("another event is scheduled");
            self.now = Duration::from_micros(at);
            let event = self.events[event].take().expect("each event happens only once");
            if self.candidates[index].start_number != start_number {
                continue;
            }
            let inputs = match event {
                Event::Timeout if self.candidates[index].timeout_at != at => continue,
                Event::Timeout => ElectionInputs::default(),
                Event::Reply(reply) => ElectionInputs::reply(reply),
                Event::Watch(event) => ElectionInputs::watch_event(event),
                Event::CommandEnds => ElectionInputs::command_gone(true),
                Event::Restart => {
                    self.candidates[index] = self.start_candidate();
                    ElectionInputs::default()
                }
                Event::Request(request) => {
                    let reply = self.handle(request);
                    let delay = self.latency();
                    self.schedule(delay, index, Event::Reply(reply));
                    continue;
                }
            };
            self.step(index, inputs);
        }
    }

    fn step(&mut self, index: usize, inputs: ElectionInputs) {
        let now = self.now();
        for action in self.candidates[index].election.step(now, inputs) {
            match action {
                ElectionAction::Send(request) => {
                    let delay = self.latency();
                    self.schedule(delay, index, Event::Request(request));
                }
                ElectionAction::Watch(_) => self.candidates[index].watch_is_open = true,
                ElectionAction::Unwatch => self.candidates[index].watch_is_open = false,
                ElectionAction::StartLeading(_) => self.schedule(COMMAND_DURATION, index, Event::CommandEnds),
                ElectionAction::Finish(_) => return self.schedule(RESTART_DELAY, index, Event::Restart),
                _ => {}
            }
        }
        if let Some(at) = self.candidates[index].election.next_timeout() {
            // An event is due at a whole microsecond, which must not be before the timeout.
            let delay = at.since(Instant::after_boot(self.now)) + Duration::from_micros(1);
            let timeout_at = (self.now + delay).as_micros() as u64;
            if timeout_at != self.candidates[index].timeout_at {
                self.candidates[index].timeout_at = timeout_at;
                self.schedule(delay, index, Event::Timeout);
            }
        }
    }

    fn handle(&mut self, request: Request) -> Reply {
        let current = self.stored.as_ref().map(|stored| stored.version.clone());
        let (base, record) = match request {
            Request::Get => return Reply::Read(self.stored.clone()),
            Request::Create(record) => (None, record),
            Request::Update(version, record) => (Some(version), record),
        };
        if base != current {
            self.refused += 1;
            return Reply::Conflict;
        }
        self.writes += 1;
        let version = Version { uid: "uid".into(), resource_version: self.writes.to_string() };
        let was_held = self.stored.as_ref().is_some_and(|stored| stored.record.is_held());
        match (was_held, record.is_held()) {
            (true, false) => (self.released_at, self.refused) = (Some(self.now), 0),
            // The refused writes are counted later, in `run`.
            (false, true) => self.released_at.into_iter().for_each(|at| {
                self.hand_overs.push(HandOver { refused: 0, duration: self.now - at });
            }),
            _ => {}
        }
        let stored = Stored { record, version };
        self.stored = Some(stored.clone());
        self.send_watch_events(&stored);
        Reply::Written(stored)
    }

    fn send_watch_events(&mut self, stored: &Stored) {
        let mut watchers: Vec<usize> =
            (0..self.candidates.len()).filter(|&index| self.candidates[index].watch_is_open).collect();
        self.random.shuffle(&mut watchers);
        for (nth, index) in watchers.into_iter().enumerate() {
            let delay = self.latency() + Duration::from_micros(WATCH_EVENT_INTERVAL * nth as u64);
            self.schedule(delay, index, Event::Watch(WatchEvent::Changed(stored.clone())));
        }
    }

    /// Simulates `count` hand-overs, each until the new leader's command ends, so that late conflicts are counted.
    fn run(&mut self, count: usize) -> Vec<HandOver> {
        for nth in 1..=count {
            self.run_until(|simulation| simulation.hand_overs.len() >= nth);
            let command_ends = self.now + COMMAND_DURATION;
            self.run_until(|simulation| simulation.now >= command_ends);
            self.hand_overs[nth - 1].refused = self.refused;
        }
        std::mem::take(&mut self.hand_overs)
    }
}

struct Measurement {
    refused_per_hand_over: f64,
    median_duration: Duration,
}

/// Measures `count` hand-overs among `size` candidates, after twelve hand-overs in which the candidates estimate how
/// many of them there are.
fn measure_hand_overs(size: usize, seed: u64, count: usize) -> Measurement {
    let mut simulation = ContentionSimulation::new(size, seed);
    let refused_first: usize = simulation.run(12).iter().map(|hand_over| hand_over.refused).sum();
    let hand_overs = simulation.run(count);
    let refused = hand_overs.iter().map(|hand_over| hand_over.refused).sum::<usize>();
    let refused_per_hand_over = refused as f64 / count as f64;
    let mut durations: Vec<_> = hand_overs.iter().map(|hand_over| hand_over.duration).collect();
    durations.sort();
    let (median_duration, longest) = (durations[count / 2], durations[count - 1]);
    println!(
        "{size} candidates, seed {seed}: hand-overs took {median_duration:?} (median) and {longest:?} (longest), \
         {refused_per_hand_over:.1} refused writes per hand-over; {refused_first} refused writes in the first twelve"
    );
    Measurement { refused_per_hand_over, median_duration }
}

/// The seeds of the simulations. Candidates estimate from random samples how many of them there are, so several seeds
/// check that no unlucky sample leads to slow hand-overs or many refused writes.
const SEEDS: std::ops::Range<u64> = 0..8;

#[testkit::test]
fn up_to_five_candidates_claim_without_a_delay() {
    for size in 2..=5 {
        for seed in SEEDS {
            // The watch event and the claim take at most one latency each.
            let median_duration = measure_hand_overs(size, seed, 200).median_duration;
            assert!(median_duration < Duration::from_micros(2 * LATENCY.end), "{median_duration:?}");
        }
    }
}

#[testkit::test]
fn a_thousand_candidates_spread_their_claims() {
    for seed in SEEDS {
        let Measurement { refused_per_hand_over, median_duration } = measure_hand_overs(1000, seed, 40);
        assert!(refused_per_hand_over < 10.0 && median_duration < Duration::from_millis(100));
    }
}

#[testkit::test]
fn ten_thousand_candidates_spread_their_claims() {
    let Measurement { refused_per_hand_over, median_duration } = measure_hand_overs(10_000, 0, 6);
    assert!(refused_per_hand_over < 100.0 && median_duration < Duration::from_millis(100));
}
