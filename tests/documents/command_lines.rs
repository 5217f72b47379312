//! Command lines of leaderrun in blocks that are not run: transcripts, cron tables, Dockerfiles.

use std::process::{Command, Stdio};

use serde_json::Value;
use testkit::{Cluster, leaderrun};

use crate::blocks::blocks_in;

/// The exit status of wrong usage.
const WRONG_USAGE: i32 = 125;

/// Fails unless leaderrun understands these words. Nothing is run or written: `doctor` takes the command line of a run,
/// and the subcommands in the documents only read.
#[track_caller]
pub fn assert_understood(words: &[&str]) {
    let mut command = Command::new(leaderrun());
    match words.split_first() {
        Some((&first, rest)) if !first.starts_with('-') => command.arg(first).args(rest),
        _ => command.arg("doctor").args(words),
    };
    command.env("KUBECONFIG", Cluster::shared().kubeconfig()).stdin(Stdio::null());
    let output = command.output().expect("leaderrun");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_ne!(output.status.code(), Some(WRONG_USAGE), "leaderrun {}: {stderr}", words.join(" "));
}

/// Checks a command line in which leaderrun may come after other words, as in a cron table. Returns whether it does.
fn check(line: &str) -> bool {
    let words = shlex::split(line).unwrap_or_else(|| panic!("not for a shell: {line}"));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let Some(at) = words.iter().position(|word| *word == "leaderrun") else { return false };
    assert_understood(&words[at + 1..]);
    true
}

#[testkit::test]
fn transcripts_have_command_lines_that_leaderrun_takes() {
    let mut checked = 0;
    for block in blocks_in("console") {
        let prompted: Vec<&str> = block.text.lines().filter_map(|line| line.strip_prefix("$ ")).collect();
        let lines = if prompted.is_empty() { block.text.lines().collect() } else { prompted };
        checked += lines.into_iter().filter(|line| line.starts_with("leaderrun ") && check(line)).count();
    }
    assert!(checked >= 4, "{checked}");
}

#[testkit::test]
fn cron_tables_have_command_lines_that_leaderrun_takes() {
    let mut checked = 0;
    for block in blocks_in("crontab") {
        checked += block.text.lines().filter(|line| !line.starts_with("PATH=") && check(line)).count();
    }
    assert!(checked >= 2, "{checked}");
}

#[testkit::test]
fn dockerfiles_start_leaderrun_as_it_wants_to_be_started() {
    let blocks = blocks_in("dockerfile");
    assert!(!blocks.is_empty());
    for block in blocks {
        let list = |instruction: &str| -> Vec<String> {
            let list = block.text.lines().find_map(|line| line.strip_prefix(instruction));
            serde_json::from_str(list.unwrap_or("[]")).unwrap_or_else(|error| panic!("{block}: {error}"))
        };
        let words = [list("ENTRYPOINT "), list("CMD ")].concat();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        assert_eq!(words.first(), Some(&"leaderrun"), "{block}");
        assert_understood(&words[1..]);
    }
}

/// The record in the documents is one: leaderrun reads it from a file.
#[testkit::test]
fn records_are_records() {
    for block in blocks_in("json") {
        let file = testkit::scratch::folder("record").join("job.lease");
        std::fs::write(&file, &block.text).expect("a file");
        let lock = format!("file:{}", file.display());
        let status = Command::new(leaderrun()).args(["status", "--output", "json", "--lock", &lock]).output();
        let status = status.expect("leaderrun").stdout;
        let status: Value = serde_json::from_slice(&status).unwrap_or_else(|error| panic!("{block}: {error}"));
        let document: Value = serde_json::from_str(&block.text).expect("JSON");
        assert_eq!(status["holder"], document["record"]["holderIdentity"], "{block}: {status}");
    }
}
