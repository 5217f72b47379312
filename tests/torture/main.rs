//! Torture: candidates with misbehaving commands, under every fault that leaderrun's promise covers, in an order that a
//! seed decides.
//!
//! ```text
//! LEADERRUN_TORTURE=1h LEADERRUN_TORTURE_SEED=42 cargo test --test torture -- --nocapture
//! ```
//!
//! The seed decides which faults come ([`plan`]); [`rules`] says which of them may come together. Whether two commands
//! were ever alive at once is decided by what they recorded themselves and by listing all processes ([`checker`]).
//! Without the variable it takes a minute. The seed is printed.

mod arena;
mod candidate;
mod checker;
mod faults;
mod misbehaving_command;
mod observer;
mod plan;
mod processes;
mod record;
mod rules;
mod statistics;

use std::process::ExitCode;
use std::time::Duration;

use crate::arena::Arena;
use crate::record::LockKind;

const DEFAULT_DURATION: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    testkit::harness!().command(misbehaving_command::run).run()
}

#[testkit::test]
fn a_lease() {
    torture(LockKind::Lease);
}

#[testkit::test]
fn a_file() {
    torture(LockKind::File);
}

fn torture(kind: LockKind) {
    let variable = |name| std::env::var(name).ok();
    let duration = variable("LEADERRUN_TORTURE").map_or(DEFAULT_DURATION, |duration| {
        humantime::parse_duration(&duration).expect("LEADERRUN_TORTURE: a duration, for example 1h")
    });
    let seed = variable("LEADERRUN_TORTURE_SEED")
        .map_or_else(|| fastrand::u64(..), |seed| seed.parse().expect("LEADERRUN_TORTURE_SEED: a number"));
    Arena::open(kind, seed).torture(duration);
}
