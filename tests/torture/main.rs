//! The torture test: candidates run misbehaving commands while random faults are injected. leaderrun's promise covers
//! all of these faults.
//!
//! ```text
//! LEADERRUN_TORTURE=1h LEADERRUN_TORTURE_SEED=42 cargo test --test torture -- --nocapture
//! ```
//!
//! The seed determines the faults ([`plan`]), and [`rules`] states which of them may be combined. The [`checker`] reads
//! the lifetimes that the commands have written and lists all processes, to detect two commands for the same lock, or
//! for the same slot, that are alive at the same time. Without the variables, each run takes a minute, with a random
//! seed that it prints.

mod candidate;
mod checker;
mod detection;
mod faults;
mod misbehaving_command;
mod observer;
mod plan;
mod processes;
mod record;
mod rules;
mod statistics;
mod torture_run;

use std::process::ExitCode;
use std::time::Duration;

use crate::record::{LockKind, TorturedLock};
use crate::torture_run::TortureRun;

const DEFAULT_DURATION: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    testkit::harness!().command(misbehaving_command::run).run()
}

#[testkit::test]
fn commands_never_overlap_with_a_lease() {
    torture(LockKind::Lease, None);
}

#[testkit::test]
fn commands_never_overlap_with_a_file() {
    torture(LockKind::File, None);
}

#[testkit::test]
fn commands_never_overlap_in_a_slot_with_leases() {
    torture(LockKind::Lease, Some(3));
}

#[testkit::test]
fn commands_never_overlap_in_a_slot_with_files() {
    torture(LockKind::File, Some(3));
}

fn torture(kind: LockKind, slots: Option<usize>) {
    let variable = |name| std::env::var(name).ok();
    let duration = variable("LEADERRUN_TORTURE").map_or(DEFAULT_DURATION, |duration| {
        humantime::parse_duration(&duration).expect("LEADERRUN_TORTURE should be a duration, for example 1h")
    });
    let seed = variable("LEADERRUN_TORTURE_SEED")
        .map_or_else(|| fastrand::u64(..), |seed| seed.parse().expect("LEADERRUN_TORTURE_SEED should be a number"));
    TortureRun::new(TorturedLock { kind, slots }, seed).run(duration);
}
