//! All interleavings of two candidates, within bounds: the production machines
//! [`leaderrun_core::election::Election`], [`leaderrun_core::elector::Elector`] and
//! [`leaderrun_core::supervisor::Supervisor`], an API server with one object in it, and every order in
//! which requests, answers and watch events can arrive, with everything going wrong that a bounded number
//! of disturbances can make go wrong (see [`disturbance`]).
//!
//! The search is our own (`search.rs`), not `stateright`'s: it takes a page, the bound is on
//! disturbances and on time rather than on depth, and stateright brings an HTTP server, a concurrent map
//! and a second random number generator along to be kept up to date.
//!
//! What the simulation has and this has not: more than two machines at a time, requests that are
//! doubled, suspended machines, implementations with looser rules, third parties that go on meddling,
//! clocks in between the extremes. Time moves from one instant that somebody waits for to the next one,
//! or to just before it, so it is a sample of all times, though of the tightest: what is quick takes no
//! time at all, and killing takes as long as it may. Jitter is that of one seed.
//!
//! Deeper: `LEADERRUN_DISTURBANCES=2 cargo test --release --test model -- bounds --nocapture`.

#[path = "../simulation/clock.rs"]
mod clock;
mod detection;
mod disturbance;
mod run;
mod search;
mod setting;
mod store;
mod supervisor;

mod world;

use search::{Order, search};
use setting::Setting;

/// Everything that can happen within the bounds.
#[test]
fn no_interleaving_within_the_bounds_breaks_a_promise() {
    let disturbances = std::env::var("LEADERRUN_DISTURBANCES").ok().and_then(|count| count.parse().ok()).unwrap_or(1);
    let setting = Setting { disturbances, ..Setting::everything() };
    let (found, explored) = search(&setting, Order::DepthFirst);
    println!("{disturbances} disturbances: {explored}");
    if found.is_some() {
        // Again, for the shortest story.
        let (found, _) = search(&setting, Order::BreadthFirst);
        panic!("{}", found.expect("what was found is found again").story(&setting));
    }
}
