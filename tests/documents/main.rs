//! Tests of the documents: every code block works as it stands, and the files and log events that they mention exist.

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
