//! Many candidates for one lock: the refused writes and the duration of hand-overs.

automod::dir!("tests/contention");

fn main() -> std::process::ExitCode {
    // Two hundred processes are enough load for a machine.
    testkit::harness!().test_threads(1).run()
}
