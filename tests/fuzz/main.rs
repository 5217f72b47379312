//! Fuzz tests. In most of them, the input from other programs contains invalid bytes, wrong types, huge values and
//! hostile text.
//!
//! Each execution has its own seed. When one fails, its seed is printed, and this command repeats it:
//!
//! ```text
//! LEADERRUN_FUZZ_SEED=42 LEADERRUN_FUZZ_RUNS=1 cargo test --test fuzz -- NAME --nocapture
//! ```
//!
//! For longer runs, the same two variables set the first seed and the number of executions.

automod::dir!("tests/fuzz");

fn main() -> std::process::ExitCode {
    testkit::harness!().run()
}
