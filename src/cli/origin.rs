//! The origins of option values, and the names that messages use for options.

use std::ffi::{OsStr, OsString};
use std::iter;

use clap::ArgMatches;
use clap::parser::ValueSource;

use crate::telemetry::log::shell_word;

/// An option with the source of its value.
#[derive(Clone, Debug)]
pub struct Origin<'a> {
    option: &'a clap::Arg,
    source: ValueSource,
    /// The option's name as it was given, for example `-E` or `--conflict-exit-code`.
    name: String,
    /// The value as it was given. Several values are joined by commas.
    value: String,
}

impl<'a> Origin<'a> {
    /// Returns the origin of a value on a command line that the parser refused. clap returns no matches for such a
    /// command line, so the source of the value is determined from the arguments and the environment.
    pub fn of_refused(option: &'a clap::Arg, arguments: &[OsString], value: &str) -> Self {
        let given = given_name(option, arguments);
        let source = match given {
            None if option.get_env().and_then(std::env::var_os).is_some() => ValueSource::EnvVariable,
            _ => ValueSource::CommandLine,
        };
        Self { option, source, name: given.unwrap_or_else(|| option_name(option)), value: value.to_owned() }
    }

    /// Returns whether the user has set the value. Otherwise it is the default.
    pub fn is_chosen(&self) -> bool {
        self.source != ValueSource::DefaultValue
    }

    /// Returns whether the value was given on the command line.
    pub fn is_on_command_line(&self) -> bool {
        self.source == ValueSource::CommandLine
    }

    /// Returns the option or the variable with its value: `--wait soon` (even if it was given as `--wait=soon`),
    /// `LEADERRUN_WAIT=soon`, or `the default --renew-deadline 10s`.
    pub fn given(&self) -> String {
        match self.source {
            ValueSource::DefaultValue => format!("the default {}", self.with(&self.value)),
            _ => self.with(&self.value),
        }
    }

    /// Returns the option or the variable without its value.
    pub fn name(&self) -> String {
        match (self.source, self.option.get_env()) {
            (ValueSource::EnvVariable, Some(variable)) => variable.to_string_lossy().into_owned(),
            _ => self.name.clone(),
        }
    }

    /// Returns the option or the variable with another value, quoted so that it can be pasted into a shell.
    pub fn with(&self, value: &str) -> String {
        let takes_value = self.option.get_action().takes_values();
        match self.source {
            ValueSource::EnvVariable => format!("{}={}", self.name(), shell_word(value)),
            _ if takes_value => format!("{} {}", self.name, shell_word(value)),
            _ => self.name.clone(),
        }
    }
}

/// The origins of all option values on a command line that the parser accepted.
#[derive(Clone, Copy, Debug)]
pub struct Origins<'a> {
    pub definition: &'a clap::Command,
    pub matches: &'a ArgMatches,
    /// The command line.
    pub arguments: &'a [OsString],
}

impl<'a> Origins<'a> {
    /// Returns the origin of an option's value. The source of an option that was not given is the default, even if the
    /// option has no default.
    ///
    /// # Panics
    /// Panics if there is no option with this id.
    pub fn of(&self, id: &str) -> Origin<'a> {
        let option = self.definition.get_arguments().find(|option| option.get_id() == id);
        let option = option.expect("an option has this id");
        let values = self.matches.get_raw(id).map(|values| values.map(OsStr::to_string_lossy).collect::<Vec<_>>());
        let source = self.matches.value_source(id).unwrap_or(ValueSource::DefaultValue);
        let name = given_name(option, self.arguments).unwrap_or_else(|| option_name(option));
        Origin { option, source, name, value: values.unwrap_or_default().join(",") }
    }
}

/// Returns the option's name as it is written on leaderrun's own command line, before `--`. Returns `None` if it is not
/// given there.
pub fn given_name(option: &clap::Arg, arguments: &[OsString]) -> Option<String> {
    let long = option_name(option);
    let short = option.get_short().map(|short| format!("-{short}"));
    let own_arguments =
        arguments.iter().map(|argument| argument.to_string_lossy()).take_while(|argument| argument != "--");
    own_arguments.into_iter().find_map(|argument| {
        let is_long = argument.split('=').next() == Some(&long);
        let short = short.clone().filter(|short| !argument.starts_with("--") && argument.starts_with(short));
        is_long.then(|| long.clone()).or(short)
    })
}

/// Returns the leaderrun command line with these arguments, quoted for a shell.
pub fn leaderrun_with(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> String {
    let words = arguments.into_iter().map(|argument| shell_word(&argument.as_ref().to_string_lossy()));
    iter::once("leaderrun".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

/// Returns the long name of an option, with its dashes; empty for a positional argument.
pub fn option_name(option: &clap::Arg) -> String {
    option.get_long().map(|long| format!("--{long}")).unwrap_or_default()
}
