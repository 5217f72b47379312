//! Garbage, wrong types, huge values and hostile text wherever something comes from others.
//!
//! Each execution has a seed of its own; a failure names it:
//!
//! ```text
//! LEADERRUN_FUZZ_SEED=42 LEADERRUN_FUZZ_RUNS=1 cargo test --test fuzz -- NAME --nocapture
//! ```
//!
//! More executions, or others, by the same two variables.

automod::dir!("tests/fuzz");

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    testkit::harness!().run()
}

/// Runs `execution` with so many seeds, or as many as the environment says, and counts them.
fn fuzz(name: &str, usual_runs: u64, execution: impl Fn(fastrand::Rng)) {
    let variable = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let first = variable("LEADERRUN_FUZZ_SEED").unwrap_or(1);
    let runs = variable("LEADERRUN_FUZZ_RUNS").unwrap_or(usual_runs);
    let start = Instant::now();
    for seed in first..first.saturating_add(runs) {
        let outcome = catch_unwind(AssertUnwindSafe(|| execution(fastrand::Rng::with_seed(seed))));
        if let Err(panic) = outcome {
            eprintln!("{name} failed: LEADERRUN_FUZZ_SEED={seed} LEADERRUN_FUZZ_RUNS=1");
            resume_unwind(panic);
        }
    }
    println!("{name}: {runs} executions in {:?}", start.elapsed());
}
