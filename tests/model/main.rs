//! A model checker: it explores all interleavings of two candidates, within bounds. The model consists of the
//! production state machines [`leaderrun_core::election::Election`], [`leaderrun_core::elector::Elector`] and
//! [`leaderrun_core::supervisor::Supervisor`] and of an API server with one object. Requests, replies and watch events
//! arrive in every order, under every combination of a bounded number of disturbances (see [`disturbance`]).
//!
//! The search bounds the number of disturbances and the simulated time, not the depth. Its code, `search.rs`, is too
//! small to justify a dependency on the crate `stateright`, which needs an HTTP server, a concurrent map and another
//! random number generator.
//!
//! Unlike the simulation in `tests/simulation/`, the model has only two machines, and contains no duplicated requests,
//! suspended machines, client-go candidates, repeated outside edits, or clock rates between the extremes. Time only
//! advances to the next timeout or to just before it. This includes the worst case: it only matters whether a message
//! arrives before or after a timeout, a kill takes the longest time that is allowed, and all other operations take no
//! time. The jitter of each run comes from a fixed seed.
//!
//! To explore with more disturbances:
//! `LEADERRUN_DISTURBANCES=2 cargo test --release --test model -- bounds --nocapture`.

mod detection;
mod disturbance;
mod elector;
mod run;
mod search;
mod setting;
mod steps;
mod store;
mod supervisor;
mod world;

use search::{SearchOrder, search};
use setting::Setting;

/// Explores all states that can be reached within the bounds.
#[test]
fn no_interleaving_within_the_bounds_violates_an_invariant() {
    let max_disturbances =
        std::env::var("LEADERRUN_DISTURBANCES").ok().and_then(|count| count.parse().ok()).unwrap_or(1);
    let setting = Setting { max_disturbances, ..Setting::with_all_disturbances() };
    let (found, statistics) = search(&setting, SearchOrder::DepthFirst);
    println!("{max_disturbances} disturbances: {statistics}");
    if found.is_some() {
        // Search again, to find the shortest trace.
        let (found, _) = search(&setting, SearchOrder::BreadthFirst);
        panic!("{}", found.expect("the violation is found again").trace(&setting));
    }
}
