//! A deterministic simulation of many candidates, most of whose parts fail most of the time, over the
//! production machines: [`leaderrun_core::election::Election`], [`leaderrun_core::elector::Elector`] and
//! [`leaderrun_core::supervisor::Supervisor`].
//!
//! A seed decides everything. One that fails prints its story, and is told again by
//! `LEADERRUN_SEED=123 cargo test --test simulation -- one_seed --nocapture`. A million of them:
//! `cargo test --release --test simulation -- --ignored million --nocapture`.

mod both;
mod client_go;
mod clock;
mod command;
mod detection;
mod election;
mod elector;
mod faults;
mod invariants;
mod meddling;
mod moving;
mod mutation;
mod network;
mod observation;
mod plan;
mod processes;
mod routing;
mod runner;
mod slots;
mod store;
mod supervisor;
mod world;

use mutation::Mutation;
use plan::Wishes;
use runner::{retell, run_all};

/// Tells the story of the schedule that `LEADERRUN_SEED` decides.
#[test]
fn one_seed() {
    let seed = std::env::var("LEADERRUN_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let violation = retell(seed, &Wishes::default(), Mutation::None);
    assert!(violation.is_none(), "seed {seed}: {}", violation.unwrap());
}

#[test]
fn thousands_of_seeds() {
    run_all(0..2000).unwrap();
}

#[test]
#[ignore = "takes minutes"]
fn million() {
    let count = std::env::var("LEADERRUN_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(1_000_000);
    let from = std::env::var("LEADERRUN_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    println!("{}", run_all(from..from + count).unwrap());
}
