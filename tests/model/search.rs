//! Looks at every state that can be reached, once.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::time::Instant;

use crate::setting::Setting;
use crate::world::{Broken, Step, World};

/// In which order states are looked at: depth first keeps few of them, breadth first finds the
/// shortest way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    DepthFirst,
    BreadthFirst,
}

#[derive(Debug)]
pub struct Explored {
    states: usize,
    transitions: usize,
    seconds: f64,
    commands: usize,
}

impl fmt::Display for Explored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { states, transitions, seconds, commands } = self;
        write!(f, "{states} states, {transitions} transitions, {commands} of them start a command, {seconds:.1} s")
    }
}

/// A way to a broken promise.
#[derive(Debug)]
pub struct Found {
    pub broken: Broken,
    steps: Vec<Step>,
}

impl Found {
    /// What happened, step by step.
    pub fn story(&self, setting: &Setting) -> String {
        let mut world = World::telling(setting);
        for step in &self.steps {
            world.take(*step);
        }
        let lines = world.told().join("\n");
        format!("{lines}\n**** {:?}, after {} steps ****", self.broken, self.steps.len())
    }
}

/// Looks at everything that can happen in this setting, until a promise is broken.
pub fn search(setting: &Setting, order: Order) -> (Option<Found>, Explored) {
    let started = Instant::now();
    let mut explored = Explored { states: 1, transitions: 0, seconds: 0.0, commands: 0 };
    // Fingerprints of 64 bits: of ten million states, two share one with a chance of 1 in 400,000.
    let mut seen = HashSet::new();
    let mut ways = vec![(0, Step::Pass)];
    let first = World::new(setting);
    let mut ahead = VecDeque::from([(first, 0)]);
    let mut found = None;
    'search: while let Some((world, way)) = match order {
        Order::DepthFirst => ahead.pop_back(),
        Order::BreadthFirst => ahead.pop_front(),
    } {
        for step in world.steps() {
            let mut next = world.clone();
            let broken = next.take(step);
            explored.transitions += 1;
            explored.commands += usize::from(next.commands() > world.commands());
            if let Some(broken) = broken {
                found = Some(Found { broken, steps: steps_to(&ways, way, step) });
                break 'search;
            }
            if seen.insert(fingerprint(&next)) {
                explored.states += 1;
                ways.push((way, step));
                ahead.push_back((next, ways.len() - 1));
            }
        }
    }
    explored.seconds = started.elapsed().as_secs_f64();
    (found, explored)
}

fn steps_to(ways: &[(usize, Step)], mut way: usize, last: Step) -> Vec<Step> {
    let mut steps = vec![last];
    while way != 0 {
        let (before, step) = ways[way];
        steps.push(step);
        way = before;
    }
    steps.reverse();
    steps
}

fn fingerprint(world: &World) -> u64 {
    let mut fingerprint = Fingerprint(0);
    world.state.hash(&mut fingerprint);
    fingerprint.finish()
}

/// wyhash's mixing, word by word: the standard hasher takes most of a search's time in a debug build.
struct Fingerprint(u64);

impl Fingerprint {
    fn mix(&mut self, word: u64) {
        const ODD: [u64; 2] = [0xa076_1d64_78bd_642f, 0xe703_7ed1_a0b4_28db];
        let product = u128::from(self.0 ^ ODD[0]).wrapping_mul(u128::from(word ^ ODD[1]));
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
