//! Tests of the documents: the code blocks work when they are copied, and the files and log events that the documents
//! mention exist. Other tests cover the parts of a release that can be checked without publishing one.

mod blocks;
mod command_lines;
mod demo;
mod manifests;
mod process_tree;
mod references;
mod release;
mod shell;

fn main() -> std::process::ExitCode {
    testkit::harness!().run()
}
