//! Tests of leaderrun in Docker containers: as PID 1, under limits, and under the commands of an operator.
//!
//! They are skipped without a Docker engine on this machine. They build their images: an empty one, into which this
//! machine's programs are mounted, and that of the Dockerfile. Overlaps of two commands are detected from the records of
//! the commands themselves (see [`testkit::witness`]).

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
