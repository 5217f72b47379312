//! Tests of the documents: the code blocks work when they are copied, and the files and log events that the documents
//! mention exist. The parts of a release that need no publication are tested as well.

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
