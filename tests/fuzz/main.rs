//! Garbage, wrong types, huge values and hostile text, wherever leaderrun reads what others wrote.
//!
//! Each execution has its own seed, which a failure prints:
//!
//! ```text
//! LEADERRUN_FUZZ_SEED=42 LEADERRUN_FUZZ_RUNS=1 cargo test --test fuzz -- NAME --nocapture
//! ```
//!
//! The same two variables make it longer, or choose other seeds.

automod::dir!("tests/fuzz");

fn main() -> std::process::ExitCode {
    testkit::harness!().run()
}
