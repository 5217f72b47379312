//! Many candidates for one lock: how many writes a hand-over costs the API server, and how long it takes.

automod::dir!("tests/contention");

fn main() -> std::process::ExitCode {
    // Two hundred processes are load enough for a machine.
    testkit::harness!().test_threads(1).run()
}
