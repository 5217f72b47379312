//! Checks that the page about safety shows the real tree of processes.

use std::fs;

use nix::unistd::{Pid, getpgid};
use testkit::{Candidate, TestLock, children, eventually};

use crate::blocks::blocks_in;

/// Returns the name of a process.
fn name_of(process: Pid) -> String {
    fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default().trim_end().to_owned()
}

#[testkit::test]
fn the_page_about_safety_shows_the_real_process_tree() {
    let block = blocks_in("text")
        .into_iter()
        .find(|block| block.file.ends_with("safety.md"))
        .expect("the page shows a process tree");
    let shown: Vec<_> = block.text.lines().map(|line| line.trim_start_matches([' ', '└', '─'])).collect();
    let shown: Vec<_> = shown.iter().filter_map(|line| line.split_whitespace().next()).collect();
    let indents = block.text.lines().map(|line| line.find(|first: char| first.is_ascii_alphabetic()));
    assert!(indents.is_sorted_by(|outer, inner| outer < inner), "{block} should show a chain: {}", block.text);

    let leader = Candidate::new("a", &TestLock::file()).run(["sleep", "1000"]);
    let supervisor = leader.supervisor();
    let is_command = |process: &&Pid| name_of(**process) == "sleep";
    eventually("the command runs", || children(supervisor).iter().any(|process| is_command(&process)));
    let command = *children(supervisor).iter().find(is_command).expect("the command runs");
    let names = [name_of(leader.elector()), name_of(supervisor), "command".to_owned()];
    assert_eq!(shown, names, "{block}");
    let line = block.text.lines().last().unwrap_or_default();
    assert!(line.contains("its own process group") && getpgid(Some(command)) == Ok(command), "{line}");
}
