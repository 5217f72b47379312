//! Tests of leaderrun in Docker containers: as PID 1, under limits, and under the commands of an operator.
//!
//! They are skipped without a Docker engine on this machine. They build two images: that of the Dockerfile, and an empty
//! one, into which this machine's programs are mounted. The records of the commands themselves show whether two
//! commands overlap (see [`testkit::witness`]).

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
