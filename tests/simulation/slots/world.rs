//! The simulated candidates for several slots, the stores of the slots, and a queue of events.

mod network;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use fastrand::Rng;
use leaderrun_core::election::{
    CommandGone, ElectionAction, ElectionConfig, ElectionInputs, Preference, Reply, Request, WatchEvent,
};
use leaderrun_core::instant::Instant;
use leaderrun_core::record::RunId;
use leaderrun_core::slots::{SlotAction, SlotElection, SlotInputs};
use leaderrun_core::timing::Timing;

use crate::mutation::Mutation;
use crate::store::Store;
use testkit::simulated_time::{Clock, MILLISECOND, SECOND, TRUE_RATE, Time};

#[derive(Debug)]
pub enum Event {
    Begin,
    Wake,
    RequestArrives {
        number: u32,
        slot: usize,
        request: Box<Request>,
    },
    ReplyArrives {
        number: u32,
        slot: usize,
        reply: Box<Reply>,
    },
    WatchEventArrives {
        number: u32,
        slot: usize,
        event: Box<WatchEvent>,
    },
    /// The kill instant of a tenure. The command is killed unless its tenure was extended.
    Kill {
        slot: usize,
    },
    /// The command succeeds, by itself or because another candidate asked for a step-down.
    End {
        slot: usize,
    },
    Crash,
}

/// The current run of a candidate. When it crashes or is finished, it is replaced with the next run.
struct Candidate {
    clock: Clock,
    election: SlotElection,
    /// The inputs that have arrived since the last step.
    inputs: SlotInputs,
    /// The requests that have not been sent yet, each with its slot.
    queue: VecDeque<(usize, Request)>,
    /// The slot of the request in flight.
    in_flight: Option<usize>,
    /// The number of requests that were sent, plus the number of watches that were opened.
    requests: u32,
    /// The number of the open watch of each slot.
    watches: Vec<Option<u32>>,
    /// The slot in which this run has started its command, even if the command has ended.
    leads_slot: Option<usize>,
    /// The kill instant of the tenure.
    kill_at: Instant,
    wakes_at: Option<Time>,
}

/// The candidates, the stores and the events of one schedule.
pub struct World {
    rng: Rng,
    pub now: Time,
    pub timing: Timing,
    mutation: Mutation,
    stores: Vec<Store>,
    /// The candidate and the run number of the command that is alive in each slot.
    pub live_commands: Vec<Option<(usize, u32)>>,
    /// The first invariant that was violated.
    pub violation: Option<String>,
    candidates: Vec<Candidate>,
    /// The number of the current run of each candidate.
    run_numbers: Vec<u32>,
    /// The time at which all faults end.
    healthy_from: Time,
    /// The preference of each candidate.
    preferences: Vec<Preference>,
    pub conflicts: u32,
    pub commands: u32,
    pub requests_to_step_down: u32,
    /// The time and the number of each scheduled event, in order.
    queue: BinaryHeap<Reverse<(Time, u64)>>,
    /// The scheduled events by their numbers, each with the candidate and the number of its run.
    events: BTreeMap<u64, (usize, u32, Event)>,
    /// The number of events that were scheduled, which is also the number of the last one.
    order: u64,
}

impl World {
    pub fn new(seed: u64, slots: usize, candidates: usize, healthy_from: Time) -> Self {
        Self::with_preferences(seed, slots, &vec![Preference::default(); candidates], healthy_from)
    }

    /// Creates a world with one candidate for each preference.
    pub fn with_preferences(seed: u64, slots: usize, preferences: &[Preference], healthy_from: Time) -> Self {
        let candidates = preferences.len();
        let mut rng = Rng::with_seed(seed);
        let timing = Timing::new(Duration::from_secs(15), Duration::from_secs(10), Duration::from_secs(2), None)
            .expect("the default timing is valid");
        let mut world = Self {
            now: 0,
            mutation: Mutation::None,
            violation: None,
            stores: (0..slots).map(|_| Store::new()).collect(),
            live_commands: vec![None; slots],
            candidates: Vec::new(),
            run_numbers: vec![0; candidates],
            healthy_from,
            conflicts: 0,
            commands: 0,
            requests_to_step_down: 0,
            preferences: preferences.to_vec(),
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            order: 0,
            timing,
            rng: Rng::with_seed(rng.u64(..)),
        };
        for number in 0..candidates {
            // The clock rates differ by less than the tolerated ratio.
            let rate = TRUE_RATE + world.rng.u64(0..50_000);
            let clock = Clock {
                rate,
                initial_boot_time: world.rng.u64(0..1000 * SECOND),
                wall_offset: jiff::SignedDuration::ZERO,
            };
            let candidate = world.new_candidate(number, clock);
            world.candidates.push(candidate);
            let at = world.rng.u64(0..50 * MILLISECOND);
            world.schedule(at, number, Event::Begin);
        }
        world
    }

    /// Returns this world with the rule of `mutation` disabled.
    pub fn with_mutation(self, mutation: Mutation) -> Self {
        Self { mutation, ..self }
    }

    fn new_candidate(&mut self, number: usize, clock: Clock) -> Candidate {
        let config = ElectionConfig {
            identity: number.to_string(),
            run: RunId::new(format!("{number}.{}", self.run_numbers[number])),
            timing: self.timing.clone(),
            wait: None,
            min_hold: None,
            ignores_min_hold: false,
            preference: self.preferences[number].clone(),
        };
        let now = clock.now(self.now);
        Candidate {
            election: SlotElection::new(self.stores.len(), &config, now, self.rng.u64(..)),
            clock,
            inputs: SlotInputs::default(),
            queue: VecDeque::new(),
            in_flight: None,
            requests: 0,
            watches: vec![None; self.stores.len()],
            leads_slot: None,
            kill_at: now.boot,
            wakes_at: None,
        }
    }

    pub fn schedule(&mut self, at: Time, candidate: usize, event: Event) {
        self.order += 1;
        self.events.insert(self.order, (candidate, self.run_numbers[candidate], event));
        self.queue.push(Reverse((at, self.order)));
    }

    /// Returns whether a command is alive in every slot.
    pub fn is_filled(&self) -> bool {
        self.live_commands.iter().all(Option::is_some)
    }

    /// Stops a candidate and its command, until [`restart_candidate`](Self::restart_candidate) is called.
    pub fn stop_candidate(&mut self, candidate: usize) {
        if let Some(slot) = self.candidates[candidate].leads_slot
            && self.live_commands[slot] == Some((candidate, self.run_numbers[candidate]))
        {
            self.live_commands[slot] = None;
        }
        self.replace(candidate);
    }

    /// Replaces a candidate with its next run, which does nothing before [`Event::Begin`].
    fn replace(&mut self, candidate: usize) {
        self.run_numbers[candidate] += 1;
        let clock = self.candidates[candidate].clock.clone();
        self.candidates[candidate] = self.new_candidate(candidate, clock);
    }

    pub fn restart_candidate(&mut self, candidate: usize) {
        self.stop_candidate(candidate);
        self.schedule(self.now + 1, candidate, Event::Begin);
    }

    pub fn run_until(&mut self, until: Time) {
        while let Some(Reverse((at, order))) = self.queue.pop() {
            if at > until || self.violation.is_some() {
                self.queue.push(Reverse((at, order)));
                break;
            }
            self.now = at;
            let (candidate, run, event) = self.events.remove(&order).expect("each number in the queue has an event");
            let is_current = run == self.run_numbers[candidate];
            match event {
                // A request arrives, and the supervisor kills the command, even if the candidate has crashed.
                Event::RequestArrives { number, slot, request } => {
                    self.receive_request(candidate, run, number, slot, *request)
                }
                Event::Kill { slot } => self.kill(candidate, run, slot),
                event if is_current => self.handle_event(candidate, event),
                _ => {}
            }
        }
        self.now = until;
    }

    fn handle_event(&mut self, candidate: usize, event: Event) {
        match event {
            Event::Begin => self.run(candidate),
            Event::Wake => {
                if self.candidates[candidate].wakes_at.take_if(|at| *at == self.now).is_some() {
                    self.run(candidate);
                }
            }
            Event::ReplyArrives { number, slot, reply } => {
                let state = &mut self.candidates[candidate];
                if state.requests == number && state.in_flight == Some(slot) {
                    state.in_flight = None;
                    state.inputs.slots.push((slot, ElectionInputs::reply(*reply)));
                    self.run(candidate);
                }
            }
            Event::WatchEventArrives { number, slot, event } => {
                let state = &mut self.candidates[candidate];
                if state.watches[slot] == Some(number) {
                    if *event == WatchEvent::Broken {
                        state.watches[slot] = None;
                    }
                    state.inputs.slots.push((slot, ElectionInputs::watch_event(*event)));
                    self.run(candidate);
                }
            }
            Event::End { slot } => self.end(candidate, slot, true),
            Event::Crash => {
                self.replace(candidate);
                let at = self.now + self.rng.u64(0..5 * SECOND);
                self.schedule(at, candidate, Event::Begin);
            }
            Event::RequestArrives { .. } | Event::Kill { .. } => {}
        }
    }

    /// Runs one iteration of the candidate's loop.
    fn run(&mut self, candidate: usize) {
        let state = &mut self.candidates[candidate];
        let now = state.clock.now(self.now);
        let inputs = std::mem::take(&mut state.inputs);
        for action in state.election.step(now, inputs) {
            match action {
                SlotAction::In(slot, action) => self.carry_out(candidate, slot, action),
                SlotAction::Finish(_) => {
                    // leaderrun is started again, as if its pod restarted.
                    self.replace(candidate);
                    return self.schedule(self.now + 100 * MILLISECOND, candidate, Event::Begin);
                }
            }
        }
        self.send_next(candidate);
        let state = &mut self.candidates[candidate];
        if let Some(at) = state.election.next_timeout() {
            let at = state.clock.time_of(at).max(self.now + 1);
            if state.wakes_at.is_none_or(|current| at < current || current <= self.now) {
                state.wakes_at = Some(at);
                self.schedule(at, candidate, Event::Wake);
            }
        }
    }

    fn carry_out(&mut self, candidate: usize, slot: usize, action: ElectionAction) {
        let state = &mut self.candidates[candidate];
        match action {
            ElectionAction::Send(request) => {
                state.in_flight.take_if(|in_flight| *in_flight == slot);
                state.queue.retain(|(other, _)| *other != slot);
                match request {
                    Request::Get => state.queue.push_back((slot, request)),
                    _ => state.queue.push_front((slot, request)),
                }
            }
            ElectionAction::Watch(from) => {
                state.requests += 1;
                // The numbers of watches count down from the maximum, so they differ from the numbers of requests.
                let number = u32::MAX - state.requests;
                state.watches[slot] = Some(number);
                let events = self.stores[slot].events_since(from.as_ref());
                for event in events.unwrap_or_else(|| vec![WatchEvent::Broken]) {
                    let at = self.now + self.draw_delay();
                    self.schedule(at, candidate, Event::WatchEventArrives { number, slot, event: Box::new(event) });
                }
            }
            ElectionAction::Unwatch => state.watches[slot] = None,
            ElectionAction::StartLeading(leadership) => {
                if let Some((other, _)) = self.live_commands[slot] {
                    self.violation = Some(format!(
                        "the commands of candidates {other} and {candidate} are both alive in slot {slot}"
                    ));
                }
                if let Some(other) = state.leads_slot {
                    self.violation = Some(format!("candidate {candidate} leads in slots {other} and {slot}"));
                }
                (state.leads_slot, state.kill_at) = (Some(slot), leadership.tenure.kill);
                let kill = state.clock.time_of(state.kill_at);
                self.live_commands[slot] = Some((candidate, self.run_numbers[candidate]));
                self.commands += 1;
                self.schedule(kill, candidate, Event::Kill { slot });
                if self.now < self.healthy_from {
                    let life = self.rng.u64(0..60 * SECOND);
                    let end = if self.rng.bool() { Event::Crash } else { Event::End { slot } };
                    let at = (self.now + life).min(self.healthy_from);
                    self.schedule(at, candidate, end);
                }
            }
            ElectionAction::Extend(tenure) => {
                state.kill_at = tenure.kill;
                let kill = state.clock.time_of(tenure.kill);
                self.schedule(kill, candidate, Event::Kill { slot });
            }
            ElectionAction::Lose { .. } => self.end(candidate, slot, false),
            ElectionAction::Finish(_) => state.watches[slot] = None,
            ElectionAction::Claiming | ElectionAction::ClaimFailed | ElectionAction::Notify(_) => {}
            ElectionAction::StepDown => {
                self.requests_to_step_down += 1;
                self.schedule(self.now + 100 * MILLISECOND, candidate, Event::End { slot });
            }
        }
    }

    /// Kills the run's command if its tenure is over according to its machine's clock.
    fn kill(&mut self, candidate: usize, run: u32, slot: usize) {
        if run != self.run_numbers[candidate] {
            // The candidate has crashed, so the last scheduled kill ends the command.
            if self.live_commands[slot] == Some((candidate, run)) && !self.is_killed_later(candidate, run, slot) {
                self.live_commands[slot] = None;
            }
        } else if self.candidates[candidate].clock.boot_time(self.now) >= self.candidates[candidate].kill_at {
            self.end(candidate, slot, false);
        }
    }

    /// Returns whether another kill of this run's command in this slot is scheduled.
    fn is_killed_later(&self, candidate: usize, run: u32, slot: usize) -> bool {
        self.events.values().any(|(owner, owner_run, event)| {
            let is_kill = matches!(event, Event::Kill { slot: killed } if *killed == slot);
            (*owner, *owner_run) == (candidate, run) && is_kill
        })
    }

    /// Ends the candidate's command in this slot, if it is alive.
    fn end(&mut self, candidate: usize, slot: usize, succeeded: bool) {
        if self.live_commands[slot] != Some((candidate, self.run_numbers[candidate])) {
            return;
        }
        self.live_commands[slot] = None;
        self.candidates[candidate].inputs.command_gone = Some(CommandGone { succeeded });
        let at = self.now + 1;
        self.candidates[candidate].wakes_at = Some(at);
        self.schedule(at, candidate, Event::Wake);
    }
}
