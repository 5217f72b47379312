//! leaderrun in containers, as Docker runs it: PID 1, limits, and what an operator does to a container.
//!
//! Skipped where there is no Docker engine on this machine. The images are made here: an empty one, into which the
//! machine's own programs are mounted, and the one of the Dockerfile. Whether two commands were alive at once is
//! judged by what the commands recorded (see [`testkit::witness`]).

mod engine;
mod image;
mod lifecycle;
mod limits;
mod network;
mod package;
mod processes;

fn main() -> std::process::ExitCode {
    testkit::harness!().test_threads(4).rerun_after_stalls().run()
}
