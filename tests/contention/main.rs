//! Tests with many candidates for one lock. They check that few writes are refused and that hand-overs are short.

automod::dir!("tests/contention");

fn main() -> std::process::ExitCode {
    // The two hundred candidates of one test are enough load for a machine.
    testkit::harness!().test_threads(1).run()
}
