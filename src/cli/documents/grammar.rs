//! The syntax of the command line as completions need it: words, options and the kinds of their values.

use clap::builder::ValueHint;

use crate::cli::definition;

/// The signals that are offered for an option whose value is a signal.
const SIGNALS: [&str; 6] = ["TERM", "INT", "HUP", "QUIT", "USR1", "USR2"];

/// The syntax of all command lines.
pub struct Grammar {
    /// A run, which has no subcommand.
    pub run: Syntax,
    pub subcommands: Vec<Syntax>,
}

/// The syntax of a run or of one subcommand.
pub struct Syntax {
    /// The name of the subcommand; empty for a run.
    pub name: String,
    pub about: String,
    pub options: Vec<OptionSyntax>,
    /// The values of positional arguments, such as the names of shells.
    pub words: Vec<String>,
    /// `true` if a command with its arguments can follow `--`.
    pub takes_command: bool,
}

/// The syntax of an option.
pub struct OptionSyntax {
    pub short: Option<char>,
    pub long: String,
    pub about: String,
    pub value: OptionValue,
    /// `true` if the option can be given more than once.
    pub repeats: bool,
}

/// The kind of the value of an option.
pub enum OptionValue {
    /// The option has no value.
    None,
    /// These words are offered. An option whose value is a signal also accepts others.
    Words(Vec<String>),
    File,
    /// No values are offered. The string is the value's name in the help.
    Other(String),
}

impl Grammar {
    /// Reads the definition of the command line.
    pub fn new() -> Self {
        let mut definition = definition();
        definition.build();
        let subcommands = definition.get_subcommands().filter(|subcommand| !subcommand.is_hide_set());
        Self {
            run: Syntax::new(&definition, ""),
            subcommands: subcommands.map(|subcommand| Syntax::new(subcommand, subcommand.get_name())).collect(),
        }
    }

    /// Returns the syntax of each subcommand, and finally the syntax of a run.
    pub fn syntaxes(&self) -> impl Iterator<Item = &Syntax> {
        self.subcommands.iter().chain([&self.run])
    }
}

impl Syntax {
    fn new(command: &clap::Command, name: &str) -> Self {
        let positionals = || command.get_positionals();
        let words = positionals().flat_map(clap::Arg::get_possible_values);
        let options = command.get_arguments().filter(|argument| !argument.is_positional());
        Self {
            name: name.to_owned(),
            about: command.get_about().map(ToString::to_string).unwrap_or_default(),
            options: options.filter_map(OptionSyntax::new).collect(),
            words: words.map(|word| word.get_name().to_owned()).collect(),
            takes_command: positionals().any(clap::Arg::is_last_set),
        }
    }
}

impl OptionSyntax {
    fn new(option: &clap::Arg) -> Option<Self> {
        Some(Self {
            short: option.get_short(),
            long: option.get_long()?.to_owned(),
            about: first_phrase(&option.get_help().map(ToString::to_string).unwrap_or_default()),
            value: OptionValue::new(option),
            repeats: matches!(option.get_action(), clap::ArgAction::Append | clap::ArgAction::Count),
        })
    }

    /// Returns the names, with their dashes.
    pub fn names(&self) -> impl Iterator<Item = String> {
        self.short.map(|short| format!("-{short}")).into_iter().chain([format!("--{}", self.long)])
    }
}

impl OptionValue {
    fn new(option: &clap::Arg) -> Self {
        if !option.get_action().takes_values() {
            return Self::None;
        }
        let words: Vec<String> = option.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
        let name =
            option.get_value_names().and_then(|names| names.first()).map(ToString::to_string).unwrap_or_default();
        match (words.is_empty(), option.get_value_hint()) {
            (false, _) => Self::Words(words),
            (true, ValueHint::FilePath) => Self::File,
            (true, _) if name == "SIGNAL" => Self::Words(SIGNALS.map(str::to_owned).to_vec()),
            (true, _) => Self::Other(name),
        }
    }
}

/// Returns a help text up to its first bracket, colon, semicolon or comma, as completions show it beside an option.
fn first_phrase(help: &str) -> String {
    let phrase_ends = [" [", ": ", "; ", ", "].into_iter().filter_map(|end| help.find(end));
    help[..phrase_ends.min().unwrap_or(help.len())].to_owned()
}
