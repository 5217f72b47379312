//! The README's tables are those of the program.

use leaderrun::cli;
use leaderrun::exit;
use leaderrun::kubernetes::role;
use leaderrun::lock::{self, Kind};

const README: &str = include_str!("../README.md");

#[test]
fn every_option_has_its_row() {
    let definition = cli::definition();
    let expected: Vec<String> = definition.get_arguments().filter_map(row).collect();
    let is_row = |line: &&str| line.starts_with("| `-") && line.contains("| `LEADERRUN_");
    let present: Vec<&str> = README.lines().filter(is_row).collect();
    assert!(present == expected, "README.md: the rows of the table of options must be\n{}\n", expected.join("\n"));
}

/// What the table says of an option; nothing for those that cannot be set in the environment.
fn row(option: &clap::Arg) -> Option<String> {
    let variable = option.get_env()?.to_str()?;
    let mut names = format!("--{}", option.get_long()?);
    if let Some(short) = option.get_short() {
        names = format!("-{short}, {names}");
    }
    if option.get_action().takes_values() {
        names = format!("{names} {}", option.get_value_names()?.join(" "));
    }
    let defaults: Vec<_> = option.get_default_values().iter().filter_map(|value| value.to_str()).collect();
    let default = match defaults[..] {
        [default] if option.get_action().takes_values() => format!(" [default: {default}]"),
        _ => String::new(),
    };
    Some(format!("| `{names}` | `{variable}` | {}{default} |", option.get_help()?))
}

#[test]
fn every_exit_status_has_its_row() {
    let own = [exit::NOT_ACQUIRED, exit::LOST, exit::FAILED, exit::NOT_EXECUTABLE, exit::NOT_FOUND]
        .map(|own| own.to_string());
    for status in own.into_iter().chain([format!("{}+N", exit::SIGNALED)]) {
        assert!(README.contains(&format!("\n| {status} | ")), "README.md: no row for exit status {status}");
    }
}

#[test]
fn the_role_is_the_one_that_leaderrun_prints() {
    let objects = Kind::Lease.objects("default", "my-job");
    let role = role("default", "my-job", &lock::rules(&objects[0]));
    assert!(README.contains(&role), "README.md: the Role must be\n{role}");
}
