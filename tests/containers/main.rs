//! Tests of leaderrun in Docker containers: as PID 1, under limits, and while an operator stops or kills the container.
//!
//! They are skipped without a Docker engine on this machine. They use three images: an empty one, into which this
//! machine's programs are mounted; that of the Dockerfile; and one with Debian, in which the package is installed.
//! Whether two commands overlapped is decided by the times that the commands themselves wrote to files (see
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
