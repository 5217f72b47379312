//! A deterministic simulation of several candidates under frequent faults. It runs the production state machines
//! [`leaderrun_core::election::Election`], [`leaderrun_core::elector::Elector`],
//! [`leaderrun_core::supervisor::Supervisor`] and [`leaderrun_core::routing::Route`].
//!
//! One run of the simulation is called a schedule, and its seed determines all of its events. If a schedule violates an
//! invariant, the test prints the seed and the trace of the schedule. This command replays it:
//!
//! ```text
//! LEADERRUN_SEED=123 cargo test --test simulation -- one_seed --nocapture
//! ```
//!
//! This command runs a million schedules. `LEADERRUN_SEED` sets the first seed, and `LEADERRUN_SEEDS` the number of
//! seeds.
//!
//! ```text
//! cargo test --release --test simulation -- --ignored a_million_seeds --nocapture
//! ```

mod client_go;
mod command;
mod detection;
mod election;
mod elector;
mod events;
mod faults;
mod invariants;
mod migration;
mod mutation;
mod network;
mod observation;
mod outside_edits;
mod pair_client;
mod plan;
mod processes;
mod routing;
mod runner;
mod slots;
mod store;
mod supervisor;
mod world;

use mutation::Mutation;
use plan::Constraints;
use runner::{replay, run_all};

/// Replays the schedule of `LEADERRUN_SEED` and prints its trace.
#[test]
fn one_seed_violates_no_invariant() {
    let seed = std::env::var("LEADERRUN_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let violation = replay(seed, &Constraints::default(), Mutation::None);
    assert!(violation.is_none(), "seed {seed}: {}", violation.unwrap());
}

#[test]
fn thousands_of_seeds_violate_no_invariant() {
    run_all(0..2000).unwrap();
}

#[test]
#[ignore = "takes minutes"]
fn a_million_seeds_violate_no_invariant() {
    let count = std::env::var("LEADERRUN_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(1_000_000);
    let from = std::env::var("LEADERRUN_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    println!("{}", run_all(from..from + count).unwrap());
    println!("{}", slots::run_all(from..from + count, Mutation::None).unwrap());
}
