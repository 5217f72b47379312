//! Writes `completions/`: shell completions and the man page, all from the definition of the command line.

use std::fs;
use std::io;
use std::path::Path;

use clap::builder::ValueHint;
use clap_complete::{Shell, generate};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use leaderrun::cli;
use leaderrun::exit;

/// Where the files belong.
pub const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/completions");

fn main() -> io::Result<()> {
    fs::create_dir_all(FOLDER)?;
    for (name, contents) in files()? {
        fs::write(Path::new(FOLDER).join(name), contents)?;
    }
    Ok(())
}

/// What `completions/` contains, by name.
///
/// # Errors
/// When the man page cannot be rendered; it is written to memory.
pub fn files() -> io::Result<Vec<(&'static str, String)>> {
    Ok(vec![
        ("leaderrun.bash", completion(Shell::Bash)),
        ("_leaderrun", completion(Shell::Zsh)),
        ("leaderrun.fish", completion(Shell::Fish)),
        ("leaderrun.1", man_page()?),
    ])
}

fn completion(shell: Shell) -> String {
    // After -- the shell completes as it does for any other command.
    let mut definition =
        cli::definition().mut_arg("command", |command| command.value_hint(ValueHint::CommandWithArguments));
    let mut script = Vec::new();
    generate(shell, &mut definition, "leaderrun", &mut script);
    String::from_utf8(script).expect("a definition is text")
}

fn man_page() -> io::Result<String> {
    // One sentence about the environment says what would otherwise be said of every option.
    let definition = cli::definition().mut_args(|argument| argument.hide_env(true));
    let man = Man::new(definition).title("LEADERRUN").manual("User Commands");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    let mut options = Vec::new();
    man.render_options_section(&mut options)?;
    page.extend(options_in_one_section(&options));
    subcommands().to_writer(&mut page)?;
    environment().to_writer(&mut page)?;
    exit_status().to_writer(&mut page)?;
    signals().to_writer(&mut page)?;
    examples().to_writer(&mut page)?;
    Ok(String::from_utf8(page).expect("a definition is text"))
}

/// The groups of options as parts of one section, rather than as sections.
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
        "A subcommand is the first argument. The lock and the cluster are chosen as above, by variables too.",
    )]);
    for mut subcommand in cli::definition().get_subcommands().cloned() {
        let text = |styled: Option<&clap::builder::StyledStr>| styled.map(ToString::to_string).unwrap_or_default();
        let usage = subcommand.render_usage().to_string();
        roff.control("SS", [usage.trim_start_matches("Usage: ")]);
        roff.text([roman(format!("{}.", text(subcommand.get_about())))]);
        let repeated = ["lock", "kubeconfig", "context", "impersonate", "help"];
        for option in subcommand.get_arguments().filter(|option| !repeated.contains(&option.get_id().as_str())) {
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
        roman("Every option can also be set by a variable: "),
        bold("LEADERRUN_RENEW_DEADLINE"),
        roman(" for "),
        bold("--renew-deadline"),
        roman(", and so on. The command line wins. The command does not inherit these variables. It sees:"),
    ]);
    for (variable, meaning) in [
        ("LEADERRUN_HELD_LOCK", "The lock that is held."),
        ("LEADERRUN_HOLDER", "The name that it is held by."),
        ("LEADERRUN_RUN_ID", "A UUID; every start of leaderrun has another one."),
        ("LEADERRUN_TRANSITIONS", "How often the lock was acquired after somebody else had held it."),
        (
            "LEADERRUN_FENCING_TOKEN",
            "A decimal integer of any length that grows with every acquisition. A store that refuses a smaller \
             token than the greatest it has seen is safe even from a command that should be dead.",
        ),
        ("LEADERRUN_TENURE_FD", "The number of the descriptor that leaderrun check reads."),
    ] {
        roff.control("TP", []);
        roff.text([bold(variable)]);
        roff.text([roman(meaning)]);
    }
    roff
}

fn exit_status() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["EXIT STATUS"]);
    roff.text([roman("The command's own, and:")]);
    let signaled = format!("{}+N", exit::SIGNALED);
    for (status, meaning) in [
        (exit::NOT_ACQUIRED.to_string(), "The lock was not acquired within --wait."),
        (exit::LOST.to_string(), "The leadership was lost, and the command was stopped for it."),
        (exit::FAILED.to_string(), "leaderrun itself failed, wrong usage included."),
        (exit::NOT_EXECUTABLE.to_string(), "The command was found and cannot be executed."),
        (exit::NOT_FOUND.to_string(), "The command was not found."),
        (signaled, "Signal N ended the command, or leaderrun while it waited."),
    ] {
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
        "While leaderrun waits, TERM, INT, HUP and QUIT end it. While the command runs, signals are passed on to its \
         process group. The lock is given back when no process of the command is left.",
    )]);
    roff
}

fn examples() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["EXAMPLES"]);
    for (what, command) in [
        ("Run a worker on one pod at a time:", "leaderrun --lock default/my-job -- ./worker"),
        (
            "From cron on several machines, never two at a time; give up where another one is at it:",
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
