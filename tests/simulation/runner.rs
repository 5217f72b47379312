//! Many schedules, on all processors.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use crate::clock::SECOND;
use crate::invariants::{Excuse, Violation};
use crate::mutation::Mutation;
use crate::plan::Wishes;
use crate::world::{Tally, World};

/// Seeds that a thread takes at a time.
const BATCH: u64 = 16;

/// What all schedules amounted to.
#[derive(Debug, Default)]
pub struct Summary {
    schedules: u64,
    tally: Tally,
    hours: f64,
    seconds: f64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { schedules, tally, hours, seconds } = self;
        writeln!(f, "{schedules} schedules, {:.0} a second, {hours:.0} simulated hours", *schedules as f64 / seconds)?;
        writeln!(
            f,
            "{} events, {} faults, {} requests, {} commands started",
            tally.events, tally.faults, tally.requests, tally.commands
        )?;
        let excused: u64 = tally.excused.iter().sum();
        write!(f, "0 violations; {excused} overlaps of the kinds the promise does not cover:")?;
        Excuse::ALL.into_iter().try_for_each(|excuse| write!(f, " {excuse:?} {}", tally.excused[excuse as usize]))
    }
}

/// Plays one schedule.
pub fn play(seed: u64, wishes: &Wishes, mutation: Mutation) -> (Tally, Option<Violation>) {
    let mut world = World::new(seed, wishes, mutation, false);
    world.play();
    (world.tally, world.violation)
}

/// Plays one schedule and tells its story.
pub fn retell(seed: u64, wishes: &Wishes, mutation: Mutation) -> Option<Violation> {
    let mut world = World::new(seed, wishes, mutation, true);
    world.play();
    for line in world.story.iter().flatten() {
        println!("{line}");
    }
    world.violation
}

/// Plays the schedules of all these seeds under the production rules.
pub fn run_all(seeds: Range<u64>) -> Result<Summary, String> {
    let started = Instant::now();
    let wishes = Wishes::default();
    match play_all(seeds, &wishes, Mutation::None) {
        (Some((seed, violation)), _) => {
            retell(seed, &wishes, Mutation::None);
            Err(format!("LEADERRUN_SEED={seed}: {violation}"))
        }
        (None, summary) => Ok(Summary { seconds: started.elapsed().as_secs_f64(), ..summary }),
    }
}

/// The first seed that breaks a promise, and what was played until it was found.
pub fn play_all(seeds: Range<u64>, wishes: &Wishes, mutation: Mutation) -> (Option<(u64, Violation)>, Summary) {
    let (next, stop_at) = (AtomicU64::new(seeds.start), AtomicU64::new(seeds.end));
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let (mut first, mut summary) = (None::<(u64, Violation)>, Summary::default());
        loop {
            let batch = next.fetch_add(BATCH, Ordering::Relaxed);
            for seed in batch..batch + BATCH {
                if seed >= stop_at.load(Ordering::Relaxed) {
                    return (first, summary);
                }
                let (tally, violation) = play(seed, wishes, mutation);
                summary.add(&tally);
                if let Some(violation) = violation {
                    stop_at.fetch_min(seed, Ordering::Relaxed);
                    first = Some((seed, violation));
                }
            }
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut all = (None::<(u64, Violation)>, Summary::default());
        for worker in workers {
            let (first, summary) = worker.join().expect("a schedule does not panic");
            all.1.merge(&summary);
            if let Some(found) = first
                && all.0.as_ref().is_none_or(|(seed, _)| found.0 < *seed)
            {
                all.0 = Some(found);
            }
        }
        all
    })
}

impl Summary {
    fn add(&mut self, tally: &Tally) {
        self.schedules += 1;
        self.hours += tally.simulated as f64 / (3600 * SECOND) as f64;
        self.count(tally);
    }

    fn merge(&mut self, other: &Self) {
        self.schedules += other.schedules;
        self.hours += other.hours;
        self.count(&other.tally);
    }

    fn count(&mut self, tally: &Tally) {
        self.tally.events += tally.events;
        self.tally.commands += tally.commands;
        self.tally.faults += tally.faults;
        self.tally.requests += tally.requests;
        for (sum, count) in self.tally.excused.iter_mut().zip(tally.excused) {
            *sum += count;
        }
    }
}
