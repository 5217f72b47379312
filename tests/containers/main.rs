//! Tests of leaderrun in Docker containers: as PID 1, under limits, and when an operator stops or kills the container.
//!
//! The tests are skipped without a Docker engine on this machine. They use three images: an empty one, into which this
//! machine's programs are mounted; the one that the Dockerfile builds; and one with Debian, in which the package is
//! installed. The commands themselves record when they are alive, which shows whether two of them overlapped (see
//! [`testkit::witness`]).

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
