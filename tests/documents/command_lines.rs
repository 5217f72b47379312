//! Checks the leaderrun command lines in the blocks that are not run as a whole: transcripts, cron tables and
//! Dockerfiles. Also checks the records in JSON.

use std::process::{Command, Stdio};

use serde_json::Value;
use testkit::exit_status::FAILED;
use testkit::{Cluster, leaderrun};

use crate::blocks::blocks_in;

/// Fails the test if leaderrun refuses this command line. No command is run and nothing is written: `doctor` checks the
/// options of a run, and the subcommands in the documents only read, except `step-down`, which finds no holder.
#[track_caller]
fn assert_accepted(words: &[&str]) {
    let mut command = Command::new(leaderrun());
    match words.split_first() {
        Some((&first, rest)) if !first.starts_with('-') => command.arg(first).args(rest),
        _ => command.arg("doctor").args(words),
    };
    command.env("KUBECONFIG", Cluster::shared().kubeconfig()).stdin(Stdio::null());
    let output = command.output().expect("leaderrun can be started");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_ne!(output.status.code(), Some(FAILED), "leaderrun {}: {stderr}", words.join(" "));
}

/// Returns whether a line runs leaderrun. If it does, checks the command line. In a cron table, other words precede the
/// command line.
fn check_line(line: &str) -> bool {
    let words = shlex::split(line).unwrap_or_else(|| panic!("a shell could not parse {line}"));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let Some(at) = words.iter().position(|word| *word == "leaderrun") else { return false };
    assert_accepted(&words[at + 1..]);
    true
}

#[testkit::test]
fn the_command_lines_in_transcripts_are_accepted() {
    let mut checked = 0;
    for block in blocks_in("console") {
        let prompted: Vec<&str> = block.text.lines().filter_map(|line| line.strip_prefix("$ ")).collect();
        let lines = if prompted.is_empty() { block.text.lines().collect() } else { prompted };
        checked += lines.into_iter().filter(|line| line.starts_with("leaderrun ") && check_line(line)).count();
    }
    assert!(checked >= 4, "only {checked} command lines were found");
}

#[testkit::test]
fn the_command_lines_in_cron_tables_are_accepted() {
    let mut checked = 0;
    for block in blocks_in("crontab") {
        checked += block.text.lines().filter(|line| !line.starts_with("PATH=") && check_line(line)).count();
    }
    assert!(checked >= 2, "only {checked} command lines were found");
}

#[testkit::test]
fn the_command_lines_in_dockerfiles_are_accepted() {
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
        assert_accepted(&words[1..]);
    }
}

#[testkit::test]
fn leaderrun_reads_the_records_in_the_documents() {
    for block in blocks_in("json") {
        let file = testkit::scratch::directory("record").join("job.lease");
        std::fs::write(&file, &block.text).expect("the record can be written");
        let lock = format!("file:{}", file.display());
        let status = Command::new(leaderrun()).args(["status", "--output", "json", "--lock", &lock]).output();
        let status = status.expect("leaderrun can be started").stdout;
        let status: Value = serde_json::from_slice(&status).unwrap_or_else(|error| panic!("{block}: {error}"));
        let document: Value = serde_json::from_str(&block.text).expect("the block is valid JSON");
        assert_eq!(status["holder"], document["record"]["holderIdentity"], "{block}: {status}");
    }
}
