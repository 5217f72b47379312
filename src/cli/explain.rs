//! Turns each error of the command-line parser into one sentence.

use std::error::Error as _;
use std::ffi::{OsStr, OsString};
use std::iter;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::arguments::subcommand_names;
use super::arguments::values::InvalidValue;
use super::origin::{Origin, given_name, leaderrun_with, option_name};
use super::usage_error::UsageError;
use super::{CommandLine, Refusal, suggest};
use crate::telemetry::log::shell_word;

/// A command line that works on every machine.
const EXAMPLE: &str = "leaderrun --lock file:/tmp/my-job.lease -- echo leading";

/// Returns an example value for an option that has neither a default nor a list of possible values.
fn example_value(option: &clap::Arg) -> &'static str {
    match option.get_id().as_str() {
        "lock" => "default/my-job",
        "namespace" => "default",
        "wait" | "observe" => "30s",
        "slots" => "3",
        "owner" => "deployment/my-job",
        "preempt" => "1m",
        "min_hold" | "every" => "10m",
        "lost_grace" => "2s",
        "kill_after" => "50s",
        "max_run" => "2h",
        "identity" | "pod" => "worker-0",
        "pod_label" => "role=leader",
        "service" => "my-service",
        "ports" => "8080",
        "addresses" => "10.1.2.3",
        "http" => ":8080",
        "unhealthy_after" => "5m",
        "service_account" => "my-job",
        "kubeconfig" => "/etc/my-job.kubeconfig",
        "context" => "my-context",
        "impersonate" => "system:serviceaccount:default:my-job",
        _ => "1",
    }
}

/// Explains an error that the parser found in this command line.
pub fn explain(error: &clap::Error, command_line: &CommandLine) -> UsageError {
    Explanation { error, command_line, options: command_line.options() }.explain()
}

struct Explanation<'a> {
    error: &'a clap::Error,
    command_line: &'a CommandLine,
    options: clap::Command,
}

impl Explanation<'_> {
    fn explain(&self) -> UsageError {
        match self.error.kind() {
            ErrorKind::ValueValidation | ErrorKind::InvalidValue => self.invalid_value(),
            ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand => self.unknown_argument(),
            ErrorKind::MissingRequiredArgument => self.missing(),
            ErrorKind::ArgumentConflict => self.conflict(),
            ErrorKind::TooManyValues => {
                let option = self.name();
                UsageError::new(format!("{option}={}", self.value()), "this option takes no value").try_instead(option)
            }
            ErrorKind::InvalidUtf8 => UsageError::new(self.not_unicode(), "the value is not valid UTF-8"),
            _ => {
                let text = self.error.to_string();
                let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
                UsageError::new("", first).remedy(format!("see {}", self.help()))
            }
        }
    }

    fn invalid_value(&self) -> UsageError {
        let (value, name) = (self.value(), self.name());
        let Some(option) = self.option(&name) else { return self.invalid_word(&name) };
        let origin = Origin::of_refused(option, &self.command_line.arguments, &value);
        let example = origin.with(&example_of(option));
        if self.value_is_missing(&value, &origin) {
            return UsageError::new(origin.name(), "the value is missing").try_instead(example);
        }
        let invalid = self.error.source().and_then(|source| source.downcast_ref::<InvalidValue>());
        let possible = option.get_possible_values();
        let possible: Vec<&str> = possible.iter().map(clap::builder::PossibleValue::get_name).collect();
        let reason = match (self.error.source(), &possible[..]) {
            (Some(reason), _) => reason.to_string(),
            (None, [all @ .., last]) => format!("the value must be {} or {last}", all.join(", ")),
            (None, []) if value.is_empty() => "the value is empty".to_owned(),
            (None, []) => "not a valid value".to_owned(),
        };
        let meant = match invalid {
            Some(invalid) => invalid.suggestion.clone(),
            None => suggest::nearest(&value.to_lowercase(), possible).map(str::to_owned),
        };
        let error = UsageError::new(origin.given(), reason);
        match meant.filter(|meant| self.is_accepted(option, meant)) {
            Some(meant) => error.try_instead(origin.with(&meant)),
            None => error.for_example(example),
        }
    }

    /// Explains that an argument of a subcommand is not one of the permitted words.
    fn invalid_word(&self, name: &str) -> UsageError {
        let possible = match self.error.get(ContextKind::ValidValue) {
            Some(ContextValue::Strings(possible)) => possible.join(", "),
            _ => String::new(),
        };
        let example = possible.split(", ").next().unwrap_or_default();
        let name = name.trim_matches(['<', '>']).to_lowercase();
        UsageError::new(shell_word(&self.value()), format!("the {name} must be one of {possible}"))
            .for_example(format!("{} {example}", self.program()))
    }

    /// Returns whether the value of this option is missing, because `--` or nothing follows the option.
    fn value_is_missing(&self, value: &str, origin: &Origin<'_>) -> bool {
        value == "--" || (value.is_empty() && origin.is_on_command_line() && !self.has_empty_value())
    }

    /// Returns whether any option may have been given an empty value, as in `--wait ''` or `--wait=`.
    fn has_empty_value(&self) -> bool {
        self.command_line
            .arguments
            .iter()
            .any(|argument| argument.is_empty() || argument.to_string_lossy().ends_with('='))
    }

    /// Returns whether the option would be accepted with this value instead of the given one. The command line may
    /// still be refused for another reason.
    fn is_accepted(&self, option: &clap::Arg, value: &str) -> bool {
        let name = option_name(option);
        let own_count = self.command_line.arguments.iter().take_while(|argument| *argument != "--").count();
        let (own_arguments, command) = self.command_line.arguments.split_at(own_count);
        let mut arguments: Vec<OsString> = Vec::new();
        let mut is_old_value = false;
        for argument in own_arguments {
            let text = argument.to_string_lossy();
            let is_option = text == name || text.starts_with(&format!("{name}="));
            let short = option.get_short().map(|short| format!("-{short}"));
            let is_short = short.as_ref().is_some_and(|short| text.starts_with(short) && !text.starts_with("--"));
            if !is_old_value && !is_option && !is_short {
                arguments.push(argument.clone());
            }
            is_old_value = text == name || short.is_some_and(|short| text == short);
        }
        arguments.push(format!("{name}={value}").into());
        arguments.extend(command.iter().cloned());
        match CommandLine::new(arguments).plan() {
            Ok(_) => true,
            Err(Refusal::Usage(error)) => !error.subject.contains(&name),
            Err(Refusal::Clap(error)) => first_word(context(&error, ContextKind::InvalidArg)) != name,
        }
    }

    fn unknown_argument(&self) -> UsageError {
        let name = self.name();
        let known = self.options.get_arguments().map(option_name).filter(|option| !option.is_empty());
        let built_in: &[&str] =
            if self.command_line.subcommand.is_some() { &["--help"] } else { &["--help", "--version"] };
        let known: Vec<String> = known.chain(built_in.iter().map(|option| (*option).to_owned())).collect();
        if let Some((option, value)) = self.negative_value(&name) {
            let origin = Origin::of_refused(option, &self.command_line.arguments, value);
            let error = UsageError::new(origin.given(), "the value cannot be negative");
            return error.for_example(origin.with(&example_of(option)));
        }
        if name.starts_with('-') {
            // The parser reads `-lock` as the short option -l with a value.
            let is_read_as_short = |argument: &&str| !name.starts_with("--") && argument.starts_with(&name);
            let mut arguments = self.command_line.arguments.iter().filter_map(|argument| argument.to_str());
            let with_one_dash = arguments.find(is_read_as_short);
            let with_two_dashes = with_one_dash.map(|argument| format!("-{}", first_word(argument)));
            if let Some(meant) = with_two_dashes.filter(|meant| known.contains(meant)) {
                return UsageError::new(&meant[1..], "a long option begins with --").try_instead(meant);
            }
            let error = UsageError::new(&name, format!("{} has no such option", self.program()));
            return match suggest::nearest(&name, known.iter().map(String::as_str)) {
                Some(meant) => error.try_instead(meant),
                None => error.remedy(format!("see {}", self.help())),
            };
        }
        let word = shell_word(&name);
        if self.command_line.subcommand.is_some() {
            let error = UsageError::new(word, format!("{} takes only options", self.program()));
            return error.remedy(format!("see {}", self.help()));
        }
        if let Some(option) = self.option_before_double_dash() {
            let origin = Origin::of_refused(option, &self.command_line.arguments, "");
            return UsageError::new(origin.name(), "the value is missing")
                .try_instead(origin.with(&example_of(option)));
        }
        let subcommands = subcommand_names();
        let is_first = self.command_line.arguments.get(1).is_some_and(|first| *first == *name);
        match suggest::nearest(&name, subcommands.iter().map(String::as_str)) {
            _ if is_first && known.contains(&format!("--{name}")) => {
                self.as_option(&name, UsageError::new(word, "leaderrun has no such subcommand"))
            }
            Some(meant) if is_first => {
                UsageError::new(word, "leaderrun has no such subcommand").try_instead(self.as_subcommand(meant, &name))
            }
            Some(meant) if meant == name => UsageError::new(word, "a subcommand must be the first argument")
                .try_instead(self.as_subcommand(meant, &name)),
            _ => {
                let error = UsageError::new(&word, "the command must come after --");
                if self.is_valid_with_double_dash(&name) {
                    error.try_instead(format!("-- {word}"))
                } else {
                    error.for_example(EXAMPLE)
                }
            }
        }
    }

    /// Returns the option right before `--`, if it expects a value.
    fn option_before_double_dash(&self) -> Option<&clap::Arg> {
        self.option_before(self.command_line.arguments.iter().position(|argument| argument == "--")?)
    }

    /// Returns an option and its value, if the value is a negative number. The parser has read the beginning of such a
    /// value as the short option `name`.
    fn negative_value(&self, name: &str) -> Option<(&clap::Arg, &str)> {
        let arguments = &self.command_line.arguments;
        let is_number =
            |text: &str| text.strip_prefix('-').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        let is_value = |argument: &OsString| argument.to_str().is_some_and(|text| text.starts_with(name));
        let index = arguments.iter().position(is_value).filter(|_| is_number(name))?;
        Some((self.option_before(index)?, arguments[index].to_str()?))
    }

    /// Returns the option right before the argument with this index, if it takes a value.
    fn option_before(&self, index: usize) -> Option<&clap::Arg> {
        let argument = self.command_line.arguments.get(index.checked_sub(1)?)?.to_str()?;
        let is_before = |option: &&clap::Arg| {
            given_name(option, &self.command_line.arguments[index - 1..]).is_some_and(|name| name == argument)
        };
        self.options.get_arguments().find(is_before).filter(|option| option.get_action().takes_values())
    }

    /// Returns whether the command line would be valid with `--` before this word.
    fn is_valid_with_double_dash(&self, word: &str) -> bool {
        let Some(index) = self.command_line.arguments.iter().position(|argument| argument == word) else {
            return false;
        };
        let mut arguments = self.command_line.arguments.clone();
        arguments.insert(index, "--".into());
        CommandLine::new(arguments).plan().is_ok()
    }

    /// Returns the command line without this word, and with a subcommand as the first argument.
    fn as_subcommand(&self, subcommand: &str, word: &str) -> String {
        let others = self.command_line.arguments.iter().skip(1).filter(|argument| *argument != word);
        leaderrun_with(iter::once(OsStr::new(subcommand)).chain(others.map(OsString::as_os_str)))
    }

    /// Adds a suggestion: the command line with the first argument, `name`, as an option. If that command line is
    /// invalid, suggests only the option, or an example if the option takes a value.
    fn as_option(&self, name: &str, error: UsageError) -> UsageError {
        let option = format!("--{name}");
        let mut arguments = self.command_line.arguments.clone();
        arguments[1] = option.clone().into();
        let line = leaderrun_with(&arguments[1..]);
        let takes_value = self.option(&option).is_some_and(|option| option.get_action().takes_values());
        match CommandLine::new(arguments).plan() {
            Ok(_) => error.try_instead(line),
            Err(_) if takes_value => error.for_example(EXAMPLE),
            Err(_) => error.try_instead(format!("leaderrun {option}")),
        }
    }

    fn missing(&self) -> UsageError {
        let missing = match self.error.get(ContextKind::InvalidArg) {
            Some(ContextValue::Strings(missing)) => missing.iter().map(String::as_str).collect(),
            _ => vec![context(self.error, ContextKind::InvalidArg)],
        };
        let (command, options): (Vec<&str>, Vec<&str>) = missing.into_iter().partition(|name| name.contains("COMMAND"));
        match (&command[..], &options[..]) {
            ([], [word, ..]) if word.starts_with('<') => {
                let name = word.trim_matches(['<', '>']).to_lowercase();
                UsageError::new("", format!("the {name} is missing")).remedy(format!("see {}", self.help()))
            }
            ([], [option, ..]) => {
                let name = first_word(option);
                let error = UsageError::new("", format!("{name} is missing"));
                match self.option(name).filter(|option| option.get_action().takes_values()) {
                    Some(option) => error.try_instead(format!("{name} {}", example_of(option))),
                    None => error.remedy(format!("add {name}")),
                }
            }
            (_, []) => UsageError::new("", "no command is given").for_example("-- echo leading"),
            _ => UsageError::new("", "neither a lock nor a command is given").for_example(EXAMPLE),
        }
    }

    fn conflict(&self) -> UsageError {
        let name = self.name();
        let other = match self.error.get(ContextKind::PriorArg) {
            Some(ContextValue::String(other)) => first_word(other),
            Some(ContextValue::Strings(others)) => others.first().map(|other| first_word(other)).unwrap_or_default(),
            _ => name.as_str(),
        };
        let shown = |name: &str| match self.option(name) {
            Some(option) => Origin::of_refused(option, &self.command_line.arguments, "").name(),
            None => name.to_owned(),
        };
        if other == name {
            return UsageError::new(shown(&name), "given more than once").remedy("give it once");
        }
        let reason = format!("cannot be used together with {}", shown(other));
        UsageError::new(shown(&name), reason).remedy("leave one of them out")
    }

    /// Returns the argument that is not UTF-8, with the argument before it, or the name of the variable whose value is
    /// not UTF-8; empty if neither is found.
    fn not_unicode(&self) -> String {
        let pairs = self.command_line.arguments.windows(2);
        let argument = pairs.filter(|pair| pair[1].to_str().is_none()).map(|pair| pair.join(OsStr::new(" "))).next();
        let variables = self.options.get_arguments().filter_map(|option| option.get_env());
        let mut variables =
            variables.filter(|name| std::env::var_os(name).is_some_and(|value| value.to_str().is_none()));
        match (argument, variables.next()) {
            (Some(argument), _) => argument.to_string_lossy().into_owned(),
            (None, Some(variable)) => variable.to_string_lossy().into_owned(),
            (None, None) => String::new(),
        }
    }

    fn option(&self, name: &str) -> Option<&clap::Arg> {
        self.options.get_arguments().find(|option| option_name(option) == name)
    }

    /// Returns the option or the word that the error is about.
    fn name(&self) -> String {
        first_word(context(self.error, ContextKind::InvalidArg)).to_owned()
    }

    /// Returns the value that the parser refused; empty if the error is not about a value.
    fn value(&self) -> String {
        context(self.error, ContextKind::InvalidValue).to_owned()
    }

    fn program(&self) -> String {
        self.command_line.subcommand.as_ref().map_or("leaderrun".to_owned(), |name| format!("leaderrun {name}"))
    }

    fn help(&self) -> String {
        format!("{} --help", self.program())
    }
}

/// Returns a valid value for an option: its default, one of its possible values, or an example. An option that takes no
/// value on the command line can be set to `true` by its variable.
fn example_of(option: &clap::Arg) -> String {
    if !option.get_action().takes_values() {
        return "true".to_owned();
    }
    let default = option.get_default_values().first().map(|value| value.to_string_lossy().into_owned());
    let possible = || option.get_possible_values().first().map(|value| value.get_name().to_owned());
    default.or_else(possible).unwrap_or_else(|| example_value(option).to_owned())
}

/// Returns the first text of this kind that the error contains.
fn context(error: &clap::Error, kind: ContextKind) -> &str {
    match error.get(kind) {
        Some(ContextValue::String(text)) => text,
        Some(ContextValue::Strings(texts)) => texts.first().map(String::as_str).unwrap_or_default(),
        _ => "",
    }
}

/// Returns the name of an option in the parser's message, without the value or the `...` that follows it.
fn first_word(option: &str) -> &str {
    option.split([' ', '=']).next().unwrap_or_default().trim_end_matches('.')
}
