//! Everything at once, and at random: candidates with commands that misbehave, under every fault that
//! leaderrun's promise covers, in an order that a seed decides.
//!
//! ```text
//! LEADERRUN_TORTURE=1h LEADERRUN_TORTURE_SEED=42 cargo test --test torture -- --nocapture
//! ```
//!
//! Which faults come is the seed's ([`plan`]), what may come together is written down in [`rules`], and
//! whether two commands were ever alive at once is judged by what they wrote themselves and by looking
//! at all processes ([`judge`]). A minute without the variable; the seed is printed.
//!
//! This binary is a command, too: `--witness` makes it one.

mod arena;
mod entrant;
mod judge;
mod monster;
mod observer;
mod place;
mod plan;
mod processes;
mod rules;
mod tally;

use std::process::ExitCode;
use std::time::Duration;

use crate::arena::Arena;
use crate::place::Kind;

const USUAL_LENGTH: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    testkit::harness!().command(monster::run).run()
}

#[testkit::test]
fn a_lease() {
    torture(Kind::Lease);
}

#[testkit::test]
fn a_file() {
    torture(Kind::File);
}

fn torture(kind: Kind) {
    let variable = |name| std::env::var(name).ok();
    let length = variable("LEADERRUN_TORTURE").map_or(USUAL_LENGTH, |length| {
        humantime::parse_duration(&length).expect("LEADERRUN_TORTURE: a duration, such as 1h")
    });
    let seed = variable("LEADERRUN_TORTURE_SEED")
        .map_or_else(|| fastrand::u64(..), |seed| seed.parse().expect("LEADERRUN_TORTURE_SEED: a number"));
    Arena::open(kind, seed).torture(length);
}
