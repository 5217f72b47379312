//! Runs the shell blocks of the documents. The blocks of one document run in order, in one directory and with one
//! cluster.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use testkit::{Cluster, leaderrun, scratch};

use crate::blocks::{Block, blocks_of, documents};

/// A replacement for cargo that runs the leaderrun under test instead of building and installing it.
const CARGO: &str = r#"#!/bin/sh
case "$1" in
install) exit ;;
run) shift 2; exec leaderrun "$@" ;;
*) echo "the replacement for cargo cannot run: cargo $*" >&2; exit 1 ;;
esac
"#;

/// Creates a directory with the programs that the blocks find first in `PATH`. Returns the directory.
fn create_programs() -> PathBuf {
    let directory = scratch::directory("programs");
    symlink(leaderrun(), directory.join("leaderrun")).expect("the link can be created");
    let cargo = directory.join("cargo");
    fs::write(&cargo, CARGO).expect("the script can be written");
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).expect("the file mode can be changed");
    directory
}

fn run(block: &Block, directory: &Path, programs: &Path, cluster: &Cluster) {
    let script = directory.join("block.sh");
    fs::write(&script, &block.text).expect("the script can be written");
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").expect("PATH is set"));
    let mut shell = Command::new("timeout");
    shell.args(["60", "sh", "-e"]).arg(&script).current_dir(directory);
    shell.env("PATH", path).env("HOME", directory).env("KUBECONFIG", cluster.kubeconfig());
    let output = shell.output().expect("the shell can be started");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{block}: {}\n{stdout}{stderr}", output.status);
    fs::remove_file(script).expect("the script can be removed");
}

/// Returns whether one of these blocks uses kubectl.
fn uses_kubectl(blocks: &[&Block]) -> bool {
    blocks.iter().any(|block| block.text.contains("kubectl"))
}

/// Runs the shell blocks of each document whose shell blocks meet `condition`.
fn run_documents(condition: impl Fn(&[&Block]) -> bool) {
    let programs = create_programs();
    let mut count = 0;
    for file in documents() {
        let blocks = blocks_of(&file);
        let blocks: Vec<&Block> = blocks.iter().filter(|block| block.language == "sh").collect();
        if !condition(&blocks) {
            continue;
        }
        let (directory, cluster) = (scratch::directory("document"), Cluster::start());
        for block in blocks {
            run(block, &directory, &programs, &cluster);
            count += 1;
        }
    }
    assert!(count > 0, "no shell block was run");
}

#[testkit::test]
fn the_shell_blocks_of_documents_without_kubectl_succeed() {
    run_documents(|blocks| !uses_kubectl(blocks));
}

#[testkit::test(requires = testkit::check_installed("kubectl"))]
fn the_shell_blocks_of_documents_with_kubectl_succeed() {
    run_documents(uses_kubectl);
}
