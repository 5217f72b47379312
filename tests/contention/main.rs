//! Tests with many candidates for one lock. They check that few writes are refused and that hand-overs are short.

automod::dir!("tests/contention");

fn main() -> std::process::ExitCode {
    // One test with two hundred candidates is enough load for a machine.
    testkit::harness!().test_threads(1).run()
}
