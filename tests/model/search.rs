//! Looks at every state that can be reached, once.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
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
    let mut hasher = DefaultHasher::new();
    world.state.hash(&mut hasher);
    hasher.finish()
}
