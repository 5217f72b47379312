//! leaderrun as people run it: real processes, real sockets, real signals.
//!
//! What must never happen, two commands at once, is judged by the commands themselves (see
//! [`testkit::witness`]), never by leaderrun's log. The API server is ours, or a real one where
//! `KUBEBUILDER_ASSETS` is set; faults are made by a proxy in front of either.
//!
//! This binary is a command, too: `--witness` makes it one. That is why it has a `main` of its own.

automod::dir!("tests/processes");

fn main() -> std::process::ExitCode {
    // Most of a test is waiting for a lease to run out.
    testkit::harness!().test_threads(8).rerun_after_stalls().run()
}
