//! Checks that the README shows what the demonstration script prints.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use testkit::{leaderrun, scratch};

use crate::blocks::{blocks_in, package_directory, read};

/// Replaces each number with `0`, because times, pids and tokens differ in each run.
fn without_numbers(text: &str) -> String {
    let mut result = String::new();
    for character in text.chars() {
        match (character.is_ascii_digit(), result.ends_with('0')) {
            (true, true) => {}
            (true, false) => result.push('0'),
            (false, _) => result.push(character),
        }
    }
    result
}

/// Returns the lines without numbers. The lines between two steps of the script are sorted by candidate, because either
/// candidate may print first; the lines of each candidate keep their order.
fn comparable_lines(text: &str) -> Vec<String> {
    let text = without_numbers(text);
    let mut lines: Vec<&str> = text.lines().collect();
    for step in lines.split_mut(|line| line.starts_with("---")) {
        step.sort_by_key(|line| line.split_once(" | ").map(|(candidate, _)| candidate));
    }
    lines.into_iter().map(str::to_owned).collect()
}

/// If the variable `UPDATE` is set, the test writes the script's output into the README.
#[testkit::test(requires = testkit::check_installed("pgrep"))]
fn the_readme_shows_what_the_script_prints() {
    let programs = scratch::directory("programs");
    symlink(leaderrun(), programs.join("leaderrun")).expect("the link can be created");
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").expect("PATH is set"));
    let script = package_directory().join("docs/demo.sh");
    let output = Command::new(script).env("PATH", path).output().expect("the script can be started");
    let printed = String::from_utf8(output.stdout).expect("the output is UTF-8");
    assert!(output.status.success(), "{}: {printed}", output.status);
    let blocks = blocks_in("text");
    let shown =
        blocks.iter().find(|block| block.file.ends_with("README.md")).expect("the README contains a demonstration");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(package_directory().join("README.md"), read("README.md").replace(&shown.text, &printed))
            .expect("the README can be written");
    } else {
        assert_eq!(
            comparable_lines(&printed),
            comparable_lines(&shown.text),
            "the README (right) differs from the script's output (left); run the test with UPDATE=1 to update it"
        );
    }
}
