//! Tests with many candidates for one lock. They limit how many writes are refused, and how long hand-overs take.

automod::dir!("tests/contention");

fn main() -> std::process::ExitCode {
    // The two hundred processes of one test are enough load for a machine.
    testkit::harness!().test_threads(1).run()
}
