//! Explores every reachable state once.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::time::Instant;

use crate::setting::Setting;
use crate::steps::Step;
use crate::world::{ViolationKind, World};

/// The order in which states are explored: depth first needs less memory, breadth first finds the shortest trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SearchOrder {
    DepthFirst,
    BreadthFirst,
}

#[derive(Debug)]
pub struct SearchStatistics {
    states: usize,
    transitions: usize,
    seconds: f64,
    /// The number of transitions that start a command.
    commands: usize,
}

impl fmt::Display for SearchStatistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { states, transitions, seconds, commands } = self;
        write!(f, "{states} states, {transitions} transitions ({commands} of which start a command), {seconds:.1} s")
    }
}

/// A sequence of steps that leads to a violation.
#[derive(Debug)]
pub struct Counterexample {
    pub violation: ViolationKind,
    steps: Vec<Step>,
}

impl Counterexample {
    /// Returns the trace of the steps.
    pub fn trace(&self, setting: &Setting) -> String {
        let mut world = World::with_trace(setting);
        for step in &self.steps {
            world.apply(*step);
        }
        let lines = world.into_trace().join("\n");
        format!("{lines}\n**** {:?}, after {} steps ****", self.violation, self.steps.len())
    }
}

/// Explores all states of a setting, until an invariant is violated.
pub fn search(setting: &Setting, order: SearchOrder) -> (Option<Counterexample>, SearchStatistics) {
    let started = Instant::now();
    let mut statistics = SearchStatistics { states: 1, transitions: 0, seconds: 0.0, commands: 0 };
    // Fingerprints have 64 bits: the probability of a collision among ten million states is about 1 in 370,000.
    let mut fingerprints = HashSet::new();
    // The parent of each state, and the step from the parent to the state. The first entry, for the initial state, is
    // not used.
    let mut parents = vec![(0, Step::Advance)];
    let initial = World::new(setting);
    let mut frontier = VecDeque::from([(initial, 0)]);
    let mut found = None;
    'search: while let Some((world, parent)) = match order {
        SearchOrder::DepthFirst => frontier.pop_back(),
        SearchOrder::BreadthFirst => frontier.pop_front(),
    } {
        for step in world.steps() {
            let mut next = world.clone();
            let violation = next.apply(step);
            statistics.transitions += 1;
            statistics.commands += usize::from(next.commands() > world.commands());
            if let Some(violation) = violation {
                found = Some(Counterexample { violation, steps: steps_to(&parents, parent, step) });
                break 'search;
            }
            if fingerprints.insert(fingerprint(&next)) {
                statistics.states += 1;
                parents.push((parent, step));
                frontier.push_back((next, parents.len() - 1));
            }
        }
    }
    statistics.seconds = started.elapsed().as_secs_f64();
    (found, statistics)
}

fn steps_to(parents: &[(usize, Step)], mut parent: usize, last: Step) -> Vec<Step> {
    let mut steps = vec![last];
    while parent != 0 {
        let (before, step) = parents[parent];
        steps.push(step);
        parent = before;
    }
    steps.reverse();
    steps
}

fn fingerprint(world: &World) -> u64 {
    let mut fingerprint = Fingerprint(0);
    world.state.hash(&mut fingerprint);
    fingerprint.finish()
}

/// A hasher that mixes words like wyhash. With the standard hasher, hashing would take most of the time of a search in
/// a debug build.
struct Fingerprint(u64);

impl Fingerprint {
    fn mix(&mut self, word: u64) {
        const WYHASH_SECRET: [u64; 2] = [0xa076_1d64_78bd_642f, 0xe703_7ed1_a0b4_28db];
        let product = u128::from(self.0 ^ WYHASH_SECRET[0]).wrapping_mul(u128::from(word ^ WYHASH_SECRET[1]));
        self.0 = (product as u64) ^ ((product >> 64) as u64) ^ self.0.rotate_left(23);
    }
}

impl Hasher for Fingerprint {
    fn finish(&self) -> u64 {
        let mut last = Self(self.0);
        last.mix(0);
        last.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word) ^ (chunk.len() as u64) << 56);
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.mix(value.into());
    }

    fn write_u32(&mut self, value: u32) {
        self.mix(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        self.mix(value);
    }

    fn write_usize(&mut self, value: usize) {
        self.mix(value as u64);
    }

    fn write_isize(&mut self, value: isize) {
        self.mix(value as u64);
    }
}
