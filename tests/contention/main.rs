//! Many candidates wait for one lease: what its release costs the API server, and how long it takes.

automod::dir!("tests/contention");

fn main() -> std::process::ExitCode {
    // One after another: the herd of processes is load enough.
    testkit::harness!().test_threads(1).run()
}
