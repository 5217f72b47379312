//! Fuzz tests with invalid bytes, wrong types, huge values and hostile text in all input from other programs.
//!
//! Each execution has its own seed, which a failure prints:
//!
//! ```text
//! LEADERRUN_FUZZ_SEED=42 LEADERRUN_FUZZ_RUNS=1 cargo test --test fuzz -- NAME --nocapture
//! ```
//!
//! The same two variables also set the number of executions and the first seed of longer runs.

automod::dir!("tests/fuzz");

fn main() -> std::process::ExitCode {
    testkit::harness!().run()
}
