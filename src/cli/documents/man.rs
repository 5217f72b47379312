//! Generates the man page.

use clap::builder::StyledStr;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::cli::{definition, variables};
use crate::exit::{STATUSES, StatusDescription};

/// The IDs of the options for the lock and the cluster, and of `--help`. The page describes these options once, for a
/// run, and not again for each subcommand.
const SHARED: [&str; 6] = ["lock", "namespace", "kubeconfig", "context", "impersonate", "help"];

/// Returns the man page.
pub fn page() -> String {
    // The page describes the variables once, in their own section, instead of with every option.
    let definition = definition().mut_args(|argument| argument.hide_env(true));
    let man = Man::new(definition).title("LEADERRUN").manual("User Commands");
    let mut page = Vec::new();
    let mut options = Vec::new();
    let rendered = man
        .render_title(&mut page)
        .and_then(|()| man.render_name_section(&mut page))
        .and_then(|()| man.render_synopsis_section(&mut page))
        .and_then(|()| man.render_description_section(&mut page))
        .and_then(|()| man.render_options_section(&mut options));
    rendered.expect("writing to memory succeeds");
    page.extend(options_in_one_section(&options));
    for section in [subcommands(), environment(), exit_status(), signals(), examples()] {
        section.to_writer(&mut page).expect("writing to memory succeeds");
    }
    String::from_utf8_lossy(&page).into_owned()
}

/// Turns the section of each group of options into a subsection of one section.
fn options_in_one_section(rendered: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(rendered);
    let lines = text.lines().map(|line| match line.strip_prefix(".SH ") {
        Some("OPTIONS") | None => line.to_owned(),
        Some(group) => format!(".SS {}{}", &group[..1], group[1..].to_lowercase()),
    });
    lines.flat_map(|line| (line + "\n").into_bytes()).collect()
}

fn subcommands() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["SUBCOMMANDS"]);
    roff.text([roman(
        "A subcommand is the first argument. The options and variables for the lock and the cluster are the same as \
         without a subcommand.",
    )]);
    let definition = definition();
    for mut subcommand in definition.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()).cloned() {
        let text = |styled: Option<&StyledStr>| styled.map(ToString::to_string).unwrap_or_default();
        let usage = subcommand.render_usage().to_string();
        roff.control("SS", [usage.trim_start_matches("Usage: ")]);
        roff.text([roman(format!("{}.", text(subcommand.get_about())))]);
        let has_all_run_options = subcommand.get_arguments().any(|option| option.get_id() == "lease_duration");
        let is_described = |option: &&clap::Arg| SHARED.contains(&option.get_id().as_str()) || option.is_positional();
        for option in subcommand.get_arguments().filter(|option| !has_all_run_options && !is_described(option)) {
            roff.control("TP", []);
            roff.text([bold(option.to_string())]);
            roff.text([roman(text(option.get_help()))]);
        }
        for line in text(subcommand.get_after_help()).lines() {
            let is_row = line.starts_with(' ');
            roff.control(if is_row { "nf" } else { "PP" }, []);
            roff.text([roman(line)]);
            if is_row {
                roff.control("fi", []);
            }
        }
    }
    roff
}

fn environment() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["ENVIRONMENT"]);
    roff.text([
        roman("Every option can also be set through an environment variable: "),
        bold("LEADERRUN_RENEW_DEADLINE"),
        roman(" for "),
        bold("--renew-deadline"),
        roman(
            ", and so on. The command line takes precedence. The command does not inherit these variables, but gets these:",
        ),
    ]);
    for (variable, meaning) in variables::COMMAND_VARIABLES {
        roff.control("TP", []);
        roff.text([bold(variable)]);
        roff.text([roman(meaning.replace('`', ""))]);
    }
    roff
}

fn exit_status() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["EXIT STATUS"]);
    roff.text([roman("leaderrun exits with the exit status of the command, or with one of these:")]);
    for StatusDescription { status, meaning, .. } in STATUSES {
        roff.control("TP", []);
        roff.text([bold(status)]);
        roff.text([roman(meaning)]);
    }
    roff
}

fn signals() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["SIGNALS"]);
    roff.text([roman(
        "While leaderrun waits, almost every signal ends it. While the command runs, signals are forwarded to its \
         process group. The lock is released when no process of the command is left.",
    )]);
    roff
}

fn examples() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["EXAMPLES"]);
    for (what, command) in [
        ("Run a worker on one pod at a time:", "leaderrun --lock default/my-job -- ./worker"),
        (
            "From cron on several machines, but only on one at a time, without waiting for a job that is still running:",
            "leaderrun --quiet --lock default/my-job --wait 0s -- ./job.sh",
        ),
        (
            "Without a cluster, among the processes of one machine:",
            "leaderrun --lock file:/run/my-job.lease -- ./job.sh",
        ),
    ] {
        roff.control("PP", []);
        roff.text([roman(what)]);
        roff.control("PP", []);
        roff.control("RS", ["4"]);
        roff.control("nf", []);
        roff.text([bold(command)]);
        roff.control("fi", []);
        roff.control("RE", []);
    }
    roff
}
