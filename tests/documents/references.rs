//! Checks that the files, sections and log events that the documents refer to exist, and that quoted log lines are in
//! the source.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use crate::blocks::{documents, package_directory, read};

/// Returns the targets of a document's links to files in this repository: the path relative to the package's directory,
/// and the section, which is empty for a whole file.
fn links(file: &Path) -> Vec<(PathBuf, String)> {
    let text = read(file);
    let targets = text.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0.to_owned()));
    let local = targets.filter(|target| !target.contains("://"));
    local
        .map(|target| {
            let (path, section) = target.split_once('#').unwrap_or((&target, ""));
            let path = match path {
                "" => file.to_owned(),
                path => normalize(&file.parent().expect("each document is in a directory").join(path)),
            };
            (path, section.to_owned())
        })
        .collect()
}

fn normalize(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut normal, component| {
        match component {
            Component::ParentDir => drop(normal.pop()),
            component => normal.push(component),
        }
        normal
    })
}

/// Returns the headings of a document. Lines in fenced code blocks are not headings.
fn headings(text: &str) -> Vec<&str> {
    let mut in_code = false;
    let is_outside_code = |line: &&str| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        !in_code && !is_fence
    };
    let lines = text.lines().filter(is_outside_code).filter(|line| line.starts_with('#'));
    lines.filter_map(|line| line.trim_start_matches('#').strip_prefix(' ')).collect()
}

/// Returns the anchors of a document's headings, as GitHub generates them.
fn sections(file: &Path) -> BTreeSet<String> {
    let anchor = |heading: &str| -> String {
        let heading = heading.to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings(&read(file)).into_iter().map(anchor).collect()
}

#[testkit::test]
fn a_heading_is_outside_code_and_begins_with_number_signs_and_a_space() {
    let text = "# One\n indented\n#no space\n```sh\n# a comment\n```\n### Two words\n- item\n  ```\n# code\n  ```\n";
    assert_eq!(headings(text), ["One", "Two words"]);
}

#[testkit::test]
fn the_targets_of_links_exist() {
    let mut checked = 0;
    for file in documents() {
        for (target, section) in links(&file) {
            assert!(
                package_directory().join(&target).exists(),
                "{}: {} does not exist",
                file.display(),
                target.display()
            );
            if !section.is_empty() {
                let sections = sections(&target);
                assert!(
                    sections.contains(&section),
                    "{}: {}#{section} does not exist",
                    file.display(),
                    target.display()
                );
            }
            checked += 1;
        }
    }
    assert!(checked > 40, "only {checked} links were found");
}

#[testkit::test]
fn the_files_that_the_documents_name_exist() {
    for file in documents() {
        for quoted in read(&file).split('`').skip(1).step_by(2) {
            let is_file_name = ["src/", "crates/", "tests/", "docs/", "examples/", "benches/", "completions/", ".ci/"]
                .iter()
                .any(|directory| quoted.starts_with(directory));
            let path = quoted.split(['*', ' ']).next().unwrap_or_default();
            // A path with a capital letter may be a template, such as `src/lock/KIND.rs`.
            let is_template = path.chars().any(char::is_uppercase);
            assert!(
                !is_file_name || is_template || package_directory().join(path).exists(),
                "{}: {quoted} does not exist",
                file.display()
            );
        }
    }
}

#[testkit::test]
fn troubleshooting_has_a_row_for_every_warning_and_error() {
    let (reference, troubleshooting) = (read("docs/reference.md"), read("docs/troubleshooting.md"));
    let events = reference.lines().filter_map(|line| {
        let cells: Vec<&str> = line.split(" | ").collect();
        let name = cells.first()?.strip_prefix("| `")?.strip_suffix('`')?;
        ["warn", "error"].contains(cells.get(1)?).then_some(name)
    });
    let events: Vec<&str> = events.collect();
    assert!(events.len() > 15, "{events:?}");
    for event in events {
        assert!(troubleshooting.contains(&format!("| `{event}` |")), "docs/troubleshooting.md has no row for {event}");
    }
}

/// Returns the text of all files in a directory and its subdirectories. String literals that continue on the next line
/// are joined.
fn source(directory: &Path) -> String {
    let entries = std::fs::read_dir(package_directory().join(directory)).expect("the directory can be read").flatten();
    let text: String = entries
        .map(|entry| {
            let path = entry.path();
            if path.is_dir() { source(&path) } else { read(path) }
        })
        .collect();
    let mut lines = text.split("\\\n");
    let first = lines.next().unwrap_or_default().to_owned();
    lines.fold(first, |text, line| text + line.trim_start())
}

/// In a quoted line, `…` stands for text that varies. The parts before and after a colon may come from different places
/// in the source. Parts of up to three characters are not checked.
#[testkit::test]
fn the_lines_that_troubleshooting_quotes_are_in_the_source() {
    let (document, source) = (read("docs/troubleshooting.md"), source(Path::new("src")));
    let rows = document.lines().filter(|line| line.starts_with("| `"));
    let (mut checked, mut missing) = (0, Vec::new());
    for quoted in rows.filter_map(|row| row.split(" | ").nth(1)).flat_map(|line| line.split('`').skip(1).step_by(2)) {
        for part in quoted.split('…').flat_map(|part| part.split(": ")).map(str::trim).filter(|part| part.len() > 3) {
            checked += 1;
            if !source.contains(part) {
                missing.push(part);
            }
        }
    }
    assert!(checked > 40, "only {checked} parts were found");
    assert!(missing.is_empty(), "these parts are not in the source: {missing:#?}");
}
