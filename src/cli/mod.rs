//! The command line.
//!
//! [`arguments`] contains the options as they were given, in one struct for each topic, and `plan` turns them into the
//! configuration of the two processes. An error about a command line is one sentence. If it contains a suggestion, the
//! suggestion works when it is pasted as it stands.

mod arguments;
mod documents;
mod explain;
mod origin;
mod owner;
mod plan;
mod routing;
mod slots;
mod suggest;
mod timing;
mod usage_error;
mod variables;

use std::ffi::OsString;

use clap::{CommandFactory, FromArgMatches};

use self::arguments::{RunLine, SubcommandLine, add_subcommands, is_subcommand};
use self::origin::Origins;
pub use self::usage_error::UsageError;
use crate::elector::ElectorConfig;
use crate::subcommands::Subcommand;
use crate::supervisor::SupervisorConfig;

/// The action that a command line requests.
#[derive(Debug)]
pub enum Invocation {
    /// Run a command. The fields are the configurations of the elector and of the supervisor.
    Run(Box<ElectorConfig>, SupervisorConfig),
    /// Carry out a subcommand.
    Subcommand(Subcommand),
    /// Print this text: the help, the version, a completion script or the man page.
    Print(String),
}

/// Parses a command line and the environment.
///
/// # Errors
/// Fails if the command line is invalid. The error is one sentence: the option or variable as it was given, the reason,
/// and usually what to do.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Invocation, UsageError> {
    let command_line = CommandLine::new(arguments.into_iter().collect());
    match command_line.plan() {
        Ok(invocation) => Ok(invocation),
        Err(Refusal::Usage(error)) => Err(error),
        Err(Refusal::Clap(error)) if !error.use_stderr() => Ok(Invocation::Print(error.render().to_string())),
        Err(Refusal::Clap(error)) => Err(explain::explain(&error, &command_line)),
    }
}

/// Returns the definition of the command line, from which help and documents are generated.
pub fn definition() -> clap::Command {
    add_subcommands(RunLine::command())
}

/// A command line as it was given.
struct CommandLine {
    arguments: Vec<OsString>,
    subcommand: Option<String>,
}

/// The reason why a command line is refused.
enum Refusal {
    /// The parser refused the command line, or it contains `--help` or `--version`, whose text clap returns as an
    /// error.
    Clap(clap::Error),
    /// The parser accepted the command line, but the options contradict each other or cannot be used.
    Usage(UsageError),
}

impl From<UsageError> for Refusal {
    fn from(error: UsageError) -> Self {
        Self::Usage(error)
    }
}

impl From<clap::Error> for Refusal {
    fn from(error: clap::Error) -> Self {
        Self::Clap(error)
    }
}

impl CommandLine {
    fn new(arguments: Vec<OsString>) -> Self {
        // Only the first argument can be a subcommand. A later one may be the value of an option.
        let first = arguments.get(1).and_then(|first| first.to_str());
        let subcommand = first.filter(|first| is_subcommand(first)).map(str::to_owned);
        Self { arguments, subcommand }
    }

    /// Returns the definition of the options that are permitted on this command line.
    fn options(&self) -> clap::Command {
        match &self.subcommand {
            None => definition(),
            Some(name) => SubcommandLine::command().find_subcommand(name).cloned().unwrap_or_default(),
        }
    }

    fn plan(&self) -> Result<Invocation, Refusal> {
        if self.subcommand.is_some() {
            let options = self.options();
            let matches = SubcommandLine::command().try_get_matches_from(&self.arguments)?;
            let arguments = SubcommandLine::from_arg_matches(&matches)?.subcommand;
            let (_, matches) = matches.subcommand().expect("a subcommand was parsed");
            let origins = Origins { definition: &options, matches, arguments: &self.arguments };
            return Ok(plan::plan_subcommand(arguments, origins)?);
        }
        // Without the subcommands, the definition is much smaller and accepts the same command lines. Help and errors
        // come from the whole definition.
        let mut options = RunLine::command();
        let matches = options.try_get_matches_from_mut(&self.arguments);
        let matches = matches.or_else(|_| definition().try_get_matches_from(&self.arguments))?;
        let RunLine { run, command } = RunLine::from_arg_matches(&matches)?;
        let origins = Origins { definition: &options, matches: &matches, arguments: &self.arguments };
        Ok(plan::plan_run(run, command, origins)?)
    }
}

#[cfg(test)]
mod tests;
