//! The documents: every block of them works as it stands, and what they refer to exists.

mod blocks;
mod command_lines;
mod demo;
mod manifests;
mod references;
mod release;
mod shell;

fn main() -> std::process::ExitCode {
    testkit::harness!().run()
}
