//! Runs a test with many seeds.

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Instant;

use fastrand::Rng;

/// Calls `test` once for each of `default_runs` seeds, and prints how long that took. If a call panics, prints its seed
/// and stops.
///
/// The variable `LEADERRUN_FUZZ_SEED` sets the first seed, and `LEADERRUN_FUZZ_RUNS` the number of seeds.
pub fn fuzz(name: &str, default_runs: u64, test: impl Fn(Rng)) {
    let variable = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().expect("the variable is a number"));
    let first = variable("LEADERRUN_FUZZ_SEED").unwrap_or(1);
    let runs = variable("LEADERRUN_FUZZ_RUNS").unwrap_or(default_runs);
    let start = Instant::now();
    for seed in first..first.saturating_add(runs) {
        let outcome = catch_unwind(AssertUnwindSafe(|| test(Rng::with_seed(seed))));
        if let Err(panic) = outcome {
            eprintln!("{name} failed: LEADERRUN_FUZZ_SEED={seed} LEADERRUN_FUZZ_RUNS=1");
            resume_unwind(panic);
        }
    }
    println!("{name}: {runs} runs in {:?}", start.elapsed());
}
