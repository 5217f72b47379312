//! Tests of the documents: every block works as it stands, and all files and events that are referred to exist.

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
