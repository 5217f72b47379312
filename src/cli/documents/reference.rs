//! Generates `docs/reference.md` from the definitions of options, subcommands, exit statuses, log events and metrics.

use clap::builder::StyledStr;

use crate::cli::{definition, variables};
use crate::exit::{STATUSES, StatusDescription};
use crate::telemetry::log_event::LogEvent;
use crate::telemetry::metrics::{METRICS, MetricDescription, MetricLabel};
use crate::{elector, events, kubernetes, lock, routing, telemetry};

const INTRODUCTION: &str = "\
# Reference

<!-- Generated from the definitions in the source: UPDATE=1 cargo test --bin leaderrun documents -->

- [Options](#options)
- [Subcommands](#subcommands)
- [Exit status](#exit-status)
- [What the command sees](#what-the-command-sees)
- [Log events](#log-events)
- [Metrics](#metrics)

The command line has the form

```
leaderrun [OPTIONS] -- COMMAND [ARGUMENT]...
leaderrun SUBCOMMAND [OPTIONS]
```
";

const OPTIONS: &str = "\
## Options

Each option can also be set by its environment variable; the command line takes precedence. The command does not inherit these variables. leaderrun warns
about a variable that begins with `LEADERRUN_` but sets no option. Durations are written like `15s`, `1m30s` or `500ms`.
";

const LOG: &str = "\
## Log events

The log goes to stderr; stdout belongs to the command. With `--log-format json` each line is an object with the keys `timestamp`, `level`, `message` and
`event` (the name of the event), and one key for each field. A field that has no value is omitted. Events of level `detail` have the level `INFO` in JSON; the
text format shows them only with `-v`. Events of level `debug` are logged only with `-v`. `-v -v` also logs messages from the libraries that leaderrun uses.

leaderrun never waits for stderr: lines are queued, and when the queue is full they are dropped. In JSON, a `dropped` event then reports how many, in `lines`.
A failure that lasts is logged once when it begins and once when it ends. Control characters in names from outside, such as holder identities, are escaped.
";

const METRICS_INTRODUCTION: &str = "\
## Metrics

`--http` serves the metrics at `/metrics`. Each sample has a label `name` with the name of the lock. A metric whose value is not known yet is omitted.
";

/// Returns the document.
pub fn document() -> String {
    [INTRODUCTION.to_owned(), options(), subcommands(), exit_status(), environment(), log_events(), metrics()]
        .join("\n")
}

fn options() -> String {
    let definition = definition();
    let mut text = OPTIONS.to_owned();
    let options: Vec<&clap::Arg> = definition.get_arguments().filter(|option| !option.is_positional()).collect();
    let mut headings: Vec<&str> = options.iter().filter_map(|option| option.get_help_heading()).collect();
    headings.dedup();
    for heading in headings {
        text += &format!("\n### {heading}\n\n| Option | Variable | Default | Meaning |\n|---|---|---|---|\n");
        let rows = options.iter().filter(|option| option.get_help_heading() == Some(heading));
        rows.for_each(|option| text += &option_row(option, true));
    }
    text
}

fn option_row(option: &clap::Arg, with_variable: bool) -> String {
    let help = option.get_help().map(ToString::to_string).unwrap_or_default();
    let (meaning, default_in_words) = match help.split_once(" [default: ") {
        Some((meaning, default)) => (meaning.to_owned(), default.trim_end_matches(']').to_owned()),
        None => (help, String::new()),
    };
    let takes_value = option.get_action().takes_values();
    let default = option.get_default_values().first().filter(|_| takes_value);
    let default = default.map_or(default_in_words, |default| format!("`{}`", default.to_string_lossy()));
    let mut names = vec![];
    names.extend(option.get_short().map(|short| format!("-{short}")));
    names.extend(option.get_long().map(|long| format!("--{long}")));
    let value = option.get_value_names().filter(|_| takes_value).unwrap_or_default();
    let value = value.first().map(|value| format!(" {value}")).unwrap_or_default();
    let names = format!("`{}{value}`", names.join("`, `"));
    let variable = option.get_env().map(|variable| format!("`{}`", variable.to_string_lossy())).unwrap_or_default();
    let variable = if with_variable { format!(" {variable} |") } else { String::new() };
    format!("| {names} |{variable} {} | {} |\n", cell(&default), cell(&meaning))
}

fn subcommands() -> String {
    let definition = definition();
    let shown = |styled: Option<&StyledStr>| styled.map(ToString::to_string).unwrap_or_default();
    let run_options: Vec<&clap::Arg> = definition.get_arguments().filter(|option| !option.is_positional()).collect();
    // `step-down --wait`, for example, has the same name as a main option, but another meaning.
    let is_run_option = |option: &&clap::Arg| {
        let is_same = |other: &&clap::Arg| other.get_id() == option.get_id() && other.get_help() == option.get_help();
        run_options.iter().any(is_same)
    };
    let mut text = "## Subcommands\n\nA subcommand is the first argument.\n".to_owned();
    for subcommand in definition.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        let usage = subcommand.clone().render_usage().to_string();
        let usage = usage.trim_start_matches("Usage: ");
        let name = subcommand.get_name();
        let about = shown(subcommand.get_about());
        let end = if about.ends_with('?') { "" } else { "." };
        text += &format!("\n### {name}\n\n{about}{end}\n\n```\n{usage}\n```\n");
        let (shared, own): (Vec<_>, Vec<_>) =
            subcommand.get_arguments().filter(|option| !option.is_positional()).partition(is_run_option);
        let shared: Vec<String> =
            shared.iter().filter_map(|option| option.get_long()).map(|long| format!("`--{long}`")).collect();
        match shared.len() {
            0 => {}
            // The notes of such a subcommand already say that it accepts every option.
            count if count == run_options.len() => {}
            _ => text += &format!("\nIt accepts these of the [options](#options) above: {}.\n", shared.join(", ")),
        }
        if !own.is_empty() {
            let with_variable = own.iter().any(|option| option.get_env().is_some());
            text += if with_variable {
                "\n| Option | Variable | Default | Meaning |\n|---|---|---|---|\n"
            } else {
                "\n| Option | Default | Meaning |\n|---|---|---|\n"
            };
            own.iter().for_each(|option| text += &option_row(option, with_variable));
        }
        let after_help = shown(subcommand.get_after_help());
        let (notes, statuses) = after_help.split_once("Exit status:").unwrap_or((&after_help, ""));
        text += &with_code_blocks(notes);
        if !statuses.is_empty() {
            text += "\n| Status | Meaning |\n|---|---|\n";
            for (status, meaning) in statuses.lines().filter_map(|line| line.trim().split_once(' ')) {
                text += &format!("| {status} | {} |\n", cell(meaning.trim()));
            }
        }
    }
    text
}

/// Turns each group of indented lines into a code block.
fn with_code_blocks(notes: &str) -> String {
    let mut text = String::new();
    for paragraph in notes.trim().split("\n\n").filter(|paragraph| !paragraph.is_empty()) {
        let lines: Vec<&str> = paragraph.lines().collect();
        let (prose, code): (Vec<&str>, Vec<&str>) = lines.iter().partition(|line| !line.starts_with("  "));
        text += &format!("\n{}\n", prose.join("\n"));
        if !code.is_empty() {
            text += &format!("\n```\n{}\n```\n", code.join("\n"));
        }
    }
    text
}

fn exit_status() -> String {
    let mut text =
        "## Exit status\n\nleaderrun exits with the exit status of the command, or with one of these:\n\n".to_owned();
    text += "| Status | Meaning | What a script should do |\n|---|---|---|\n";
    for StatusDescription { status, meaning, advice } in STATUSES {
        text += &format!("| {status} | {} | {} |\n", options_as_code(meaning), options_as_code(advice));
    }
    text
}

fn environment() -> String {
    let mut text = "## What the command sees\n\n| Variable | Meaning |\n|---|---|\n".to_owned();
    for (variable, meaning) in variables::COMMAND_VARIABLES {
        text += &format!("| `{variable}` | {} |\n", cell(meaning));
    }
    text
}

fn log_events() -> String {
    let mut text = format!("{LOG}\n| Event | Level | Fields | Logged |\n|---|---|---|---|\n");
    let events = [
        elector::log_events::EVENTS,
        events::log_events::EVENTS,
        kubernetes::log_events::EVENTS,
        lock::log_events::EVENTS,
        routing::log_events::EVENTS,
        telemetry::log_events::EVENTS,
    ]
    .into_iter()
    .flatten();
    for LogEvent { name, level, fields, meaning } in events {
        let fields: Vec<String> = fields.iter().map(|field| format!("`{field}`")).collect();
        let when = meaning.trim().strip_prefix("Logged ");
        let when = when.unwrap_or_else(|| panic!("the doc comment of the log event {name} must begin with \"Logged\""));
        text += &format!("| `{name}` | {level} | {} | {} |\n", fields.join(", "), cell(when.trim_end_matches('.')));
    }
    text
}

fn metrics() -> String {
    let mut text = format!("{METRICS_INTRODUCTION}\n| Metric | Type | Label | Meaning |\n|---|---|---|---|\n");
    for metric in METRICS {
        let MetricDescription { name, help, label, .. } = metric;
        let label = label.map(|MetricLabel { name, values, is_open }| {
            let more = if is_open { ", …" } else { "" };
            format!("`{name}`: {}{more}", values.join(", "))
        });
        let label = label.unwrap_or_default();
        text += &format!("| `{name}` | {} | {label} | {} |\n", metric.kind(), cell(help));
    }
    text
}

/// Puts the options in a sentence into backquotes.
fn options_as_code(text: &str) -> String {
    let words = text.split(' ').map(|word| match word.trim_end_matches([',', ';']) {
        option if option.starts_with("--") => word.replacen(option, &format!("`{option}`"), 1),
        _ => word.to_owned(),
    });
    cell(&words.collect::<Vec<_>>().join(" "))
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
