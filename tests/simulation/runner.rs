//! Runs many schedules, on all processors.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use crate::invariants::{Excuse, Violation};
use crate::mutation::Mutation;
use crate::plan::Constraints;
use crate::world::{Statistics, World};
use testkit::simulated_time::SECOND;

/// The number of seeds that a thread takes at a time.
const BATCH: u64 = 16;

/// The counts of all schedules.
#[derive(Debug, Default)]
pub struct Summary {
    schedules: u64,
    statistics: Statistics,
    /// The simulated time of all schedules, in hours.
    hours: f64,
    /// The real time that all schedules took, in seconds.
    seconds: f64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { schedules, statistics, hours, seconds } = self;
        writeln!(f, "{schedules} schedules, {:.0} a second, {hours:.0} simulated hours", *schedules as f64 / seconds)?;
        writeln!(
            f,
            "{} events, {} faults, {} requests, {} commands started",
            statistics.events, statistics.faults, statistics.requests, statistics.commands
        )?;
        let excused: u64 = statistics.excused.iter().sum();
        write!(f, "0 violations; {excused} overlaps that the promise does not cover:")?;
        Excuse::ALL.into_iter().try_for_each(|excuse| write!(f, " {excuse:?} {}", statistics.excused[excuse as usize]))
    }
}

/// Runs the schedule of one seed.
pub fn run_schedule(seed: u64, constraints: &Constraints, mutation: Mutation) -> (Statistics, Option<Violation>) {
    let mut world = World::new(seed, constraints, mutation, false);
    world.run_schedule();
    (world.statistics, world.violation)
}

/// Runs the schedule of one seed and prints its trace.
pub fn replay(seed: u64, constraints: &Constraints, mutation: Mutation) -> Option<Violation> {
    let mut world = World::new(seed, constraints, mutation, true);
    world.run_schedule();
    for line in world.trace.iter().flatten() {
        println!("{line}");
    }
    world.violation
}

/// Runs the schedules of all these seeds without mutations. Prints the trace of the first one with a violation.
///
/// # Errors
/// Returns the first violation.
pub fn run_all(seeds: Range<u64>) -> Result<Summary, String> {
    let started = Instant::now();
    let constraints = Constraints::default();
    match find_violation(seeds, &constraints, Mutation::None) {
        (Some((seed, violation)), _) => {
            replay(seed, &constraints, Mutation::None);
            Err(format!("LEADERRUN_SEED={seed}: {violation}"))
        }
        (None, summary) => Ok(Summary { seconds: started.elapsed().as_secs_f64(), ..summary }),
    }
}

/// Returns the first seed with a violation, and the counts of all schedules that were run.
pub fn find_violation(
    seeds: Range<u64>,
    constraints: &Constraints,
    mutation: Mutation,
) -> (Option<(u64, Violation)>, Summary) {
    let run = |seed, summary: &mut Summary| {
        let (statistics, violation) = run_schedule(seed, constraints, mutation);
        summary.add(&statistics);
        violation
    };
    search(seeds, run, Summary::merge)
}

/// Runs the schedules of these seeds on all processors. `run` runs the schedule of one seed, adds its counts, and
/// returns its violation. The result is the first seed with a violation, and the merged counts of all schedules that
/// were run.
pub fn search<V: Send, S: Default + Send>(
    seeds: Range<u64>,
    run: impl Fn(u64, &mut S) -> Option<V> + Sync,
    merge: impl Fn(&mut S, &S),
) -> (Option<(u64, V)>, S) {
    let (next, stop_at) = (AtomicU64::new(seeds.start), AtomicU64::new(seeds.end));
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let (mut first, mut counts) = (None::<(u64, V)>, S::default());
        loop {
            let batch = next.fetch_add(BATCH, Ordering::Relaxed);
            for seed in batch..batch + BATCH {
                if seed >= stop_at.load(Ordering::Relaxed) {
                    return (first, counts);
                }
                if let Some(violation) = run(seed, &mut counts) {
                    stop_at.fetch_min(seed, Ordering::Relaxed);
                    first = Some((seed, violation));
                }
            }
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut all = (None::<(u64, V)>, S::default());
        for worker in workers {
            let (first, counts) = worker.join().expect("no schedule panics");
            merge(&mut all.1, &counts);
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
    fn add(&mut self, statistics: &Statistics) {
        self.schedules += 1;
        self.hours += statistics.simulated as f64 / (3600 * SECOND) as f64;
        self.add_counts(statistics);
    }

    fn merge(&mut self, other: &Self) {
        self.schedules += other.schedules;
        self.hours += other.hours;
        self.add_counts(&other.statistics);
    }

    fn add_counts(&mut self, statistics: &Statistics) {
        self.statistics.events += statistics.events;
        self.statistics.commands += statistics.commands;
        self.statistics.faults += statistics.faults;
        self.statistics.requests += statistics.requests;
        for (sum, count) in self.statistics.excused.iter_mut().zip(statistics.excused) {
            *sum += count;
        }
    }
}
