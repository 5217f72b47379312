//! leaderrun: parse, part in two, elect or supervise, exit.

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use leaderrun::cli::{self, Invocation};
use leaderrun::process::part::{Side, part};
use leaderrun::process::signals::Inherited;
use leaderrun::subcommands::{self, CommandOutput};
use leaderrun::telemetry::log::printable_cause;
use leaderrun::{channel, elector, exit, supervisor};

fn main() -> ExitCode {
    let status = run().unwrap_or_else(|failure| {
        let _ = writeln!(io::stderr(), "leaderrun: {}", printable_cause(&failure));
        exit::FAILED
    });
    ExitCode::from(status)
}

fn run() -> Result<u8> {
    let (elector_config, supervisor_config) = match cli::parse(std::env::args_os())? {
        Invocation::Run(elector, supervisor) => (elector, supervisor),
        Invocation::Subcommand(subcommand) => {
            let CommandOutput { text, status } = subcommands::run(subcommand)?;
            print(&text)?;
            return Ok(status);
        }
        Invocation::Print(text) => {
            print(&text)?;
            return Ok(0);
        }
    };
    // Executed again after a loss, the process would be called after /proc/self/exe.
    nix::sys::prctl::set_name(c"leaderrun")?;
    let inherited = Inherited::take()?;
    let (to_supervisor, to_elector) = channel::pair()?;
    match part()? {
        Side::Outer { inner } => {
            drop(to_elector);
            elector::run(*elector_config, to_supervisor, inner, inherited)
        }
        Side::Inner { outer } => {
            drop(to_supervisor);
            supervisor::run(supervisor_config, to_elector, outer, inherited)
        }
    }
}

/// Writes to stdout; whoever has stopped reading it does not mind.
fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(failure) if failure.kind() != ErrorKind::BrokenPipe => Err(failure).context("cannot write to stdout"),
        _ => Ok(()),
    }
}
