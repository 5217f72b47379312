//! The output of subcommands.

use std::io::{self, ErrorKind, Write};

use anyhow::{Context, Result};

use crate::telemetry::log::on_one_line;

/// Writes to stdout without buffering. Returns false if no process reads the output any more, which is not an error.
///
/// # Errors
/// Fails if stdout cannot be written to for another reason.
pub fn print(text: &str) -> Result<bool> {
    let mut stdout = io::stdout();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(failure) if failure.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(failure) => Err(failure).context("cannot write to stdout"),
    }
}

/// Writes a warning to stderr.
pub fn warn(sentence: &str) {
    let _ = writeln!(io::stderr(), "leaderrun: warning: {}", on_one_line(sentence));
}
