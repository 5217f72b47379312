//! A simulation of candidates for several slots. It drives the production state machine
//! [`leaderrun_core::slots::SlotElection`] as the production loop does: a candidate has one request in flight at a
//! time, which is for one of the slots.
//!
//! The tests check these invariants: no slot ever has two commands, and no candidate leads in two slots. With enough
//! candidates, every slot is filled within a bound after the faults have ended. Starting many candidates at the same
//! time causes few refused writes.

mod preference;
mod world;

use std::fmt;
use std::time::Duration;

use fastrand::Rng;
use leaderrun_core::election::Preference;

use self::world::World;
use crate::mutation::Mutation;
use crate::runner::search;
use testkit::simulated_time::{MILLISECOND, SECOND, Time};

/// The time at which the faults of a schedule end.
const FAULTS_END: Time = 60 * SECOND;

/// The number of different claim delays of candidates that preempt. The delays are 0 s, 1 s and so on.
const CLAIM_DELAY_COUNT: u64 = 3;

/// The time after which a standby asks a leader with a longer claim delay to step down.
const PREEMPT_AFTER: Duration = Duration::from_secs(10);

/// The pause between two checks of whether every slot is filled.
const CHECK_INTERVAL: Time = 100 * MILLISECOND;

/// Totals over one or more schedules.
#[derive(Debug, Default)]
pub struct Summary {
    schedules: u64,
    commands: u64,
    conflicts: u64,
    requests_to_step_down: u64,
}

impl Summary {
    fn add(&mut self, other: &Self) {
        self.schedules += other.schedules;
        self.commands += other.commands;
        self.conflicts += other.conflicts;
        self.requests_to_step_down += other.requests_to_step_down;
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { schedules, commands, conflicts, requests_to_step_down } = self;
        write!(
            f,
            "{schedules} schedules with slots: {commands} commands started, {conflicts} writes refused, \
             {requests_to_step_down} requests to step down"
        )
    }
}

/// Runs the schedules of all these seeds.
///
/// # Errors
/// Returns the first violation.
pub fn run_all(seeds: std::ops::Range<u64>, mutation: Mutation) -> Result<Summary, String> {
    let run = |seed, summary: &mut Summary| {
        let (counts, violation) = run_schedule(seed, mutation);
        summary.add(&counts);
        violation
    };
    match search(seeds, run, Summary::add) {
        (Some((seed, violation)), _) => Err(format!("LEADERRUN_SEED={seed}, with slots: {violation}")),
        (None, summary) => Ok(summary),
    }
}

/// Runs the schedule of one seed. In every third schedule the candidates have claim delays and preempt each other.
///
/// After the faults, every slot must be filled within a bound. It consists of:
/// - two lease durations and five retry periods, because a lost read may have to time out before a candidate observes
///   the record of a dead holder, which then has to expire;
/// - the longest claim delay;
/// - one preemption for each claim delay above zero: the candidate that waits for a record to expire may instead
///   preempt the leader of another slot, which has a longer claim delay and then begins to wait itself.
fn run_schedule(seed: u64, mutation: Mutation) -> (Summary, Option<String>) {
    let mut rng = Rng::with_seed(seed);
    let slots = rng.usize(2..=6);
    let candidates = slots + rng.usize(0..4);
    let preference = |_| match seed % 3 {
        0 => Preference {
            claim_delay: Duration::from_secs(rng.u64(0..CLAIM_DELAY_COUNT)),
            preempt_after: Some(PREEMPT_AFTER),
        },
        _ => Preference::default(),
    };
    let preferences: Vec<Preference> = (0..candidates).map(preference).collect();
    let longest_delay = preferences.iter().map(|preference| preference.claim_delay).max().unwrap_or_default();
    let mut world = World::with_preferences(seed, slots, &preferences, FAULTS_END).with_mutation(mutation);
    let preemption_time = PREEMPT_AFTER * longest_delay.as_secs() as u32;
    let bound = 2 * world.timing.lease_duration() + 5 * world.timing.retry_period() + longest_delay + preemption_time;
    world.run_until(FAULTS_END);
    let end = FAULTS_END + bound.as_nanos() as Time;
    while !world.is_filled() && world.now < end && world.violation.is_none() {
        world.run_until(world.now + CHECK_INTERVAL);
    }
    if !world.is_filled() {
        let not_filled = || format!("{candidates} candidates did not fill {slots} slots within {bound:?}");
        world.violation.get_or_insert_with(not_filled);
    }
    let World { commands, conflicts, requests_to_step_down, violation, .. } = world;
    let counts = Summary {
        schedules: 1,
        commands: commands.into(),
        conflicts: conflicts.into(),
        requests_to_step_down: requests_to_step_down.into(),
    };
    (counts, violation)
}

#[test]
fn hundreds_of_seeds_violate_no_invariant() {
    let summary = run_all(0..300, Mutation::None).unwrap();
    println!("{summary}");
    assert!(summary.commands > 3_000, "too few commands to test hand-overs: {summary}");
    assert!(summary.requests_to_step_down > 50, "too few requests to test preemption: {summary}");
}

#[test]
fn writes_that_are_not_compare_and_swap_are_detected() {
    let violation = run_all(0..2_000, Mutation::NoCompareAndSwap).unwrap_err();
    assert!(violation.contains("both alive in slot"), "{violation}");
}

#[test]
fn starting_many_candidates_at_the_same_time_causes_few_refused_writes() {
    for (slots, candidates, max_conflicts_per_candidate) in [(3, 5, 2.0), (10, 20, 2.0), (64, 80, 4.0)] {
        let (mut conflicts, seeds) = (0, 200 / candidates as u64);
        for seed in 0..seeds {
            let mut world = World::new(seed, slots, candidates, 0);
            world.run_until(30 * SECOND);
            assert!(world.is_filled(), "seed {seed}");
            assert_eq!(world.violation, None, "seed {seed}");
            conflicts += world.conflicts;
        }
        let conflicts_per_candidate = f64::from(conflicts) / seeds as f64 / candidates as f64;
        println!("{conflicts_per_candidate:.2} refused writes for each of {candidates} candidates on {slots} slots");
        assert!(
            conflicts_per_candidate < max_conflicts_per_candidate,
            "{conflicts_per_candidate} refused writes for each of {candidates} candidates on {slots} slots"
        );
    }
}
