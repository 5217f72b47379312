//! What clap found wrong, in one sentence.

use std::error::Error as _;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::subcommands;

/// One sentence for what clap found, with an example for the subcommand that was asked for.
pub fn explain(error: &clap::Error, subcommand: Option<&str>) -> String {
    let example = match subcommand {
        None => "leaderrun --lock default/my-job -- ./job.sh".to_owned(),
        Some("check") => "leaderrun check --min-remaining 3s".to_owned(),
        Some(name) => format!("leaderrun {name} --lock default/my-job"),
    };
    let help = subcommand.map_or("leaderrun --help".to_owned(), |name| format!("leaderrun {name} --help"));
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        Some(ContextValue::Strings(texts)) => texts.first().map(String::as_str),
        _ => None,
    };
    let option = context(ContextKind::InvalidArg).unwrap_or_default();
    let name = option_name(option);
    match error.kind() {
        ErrorKind::ValueValidation => {
            let value = context(ContextKind::InvalidValue).unwrap_or_default();
            let reason = error.source().map(ToString::to_string).unwrap_or_default();
            format!("{name} {value:?}: {reason}")
        }
        ErrorKind::InvalidValue => format!("{name}: a value is missing; see {help} for one that would do"),
        ErrorKind::MissingRequiredArgument if option.contains("COMMAND") => {
            format!("the command is missing; it comes last, after --, as in: {example}")
        }
        ErrorKind::MissingRequiredArgument => format!("{name} is missing, as in: {example}"),
        ErrorKind::UnknownArgument => match context(ContextKind::SuggestedArg) {
            Some(suggested) => format!("{name}: there is no such option; {suggested} would do"),
            None if name.starts_with('-') => format!("{name}: there is no such option; see {help}"),
            None if subcommand.is_some() => format!("{name:?}: only options here, as in: {example}"),
            None if subcommands::is_subcommand(name) => {
                format!("{name:?}: a subcommand comes first, and a command after --: leaderrun {name} …, or: {example}")
            }
            None => format!("{name:?}: options only before --; the command comes after it: {example}"),
        },
        ErrorKind::ArgumentConflict => match error.get(ContextKind::PriorArg) {
            Some(ContextValue::String(other)) if option_name(other) != name => {
                format!("{name}: not together with {}; one of the two would do", option_name(other))
            }
            _ => format!("{name}: given more than once; once would do"),
        },
        _ => error.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned(),
    }
}

/// An option without what stands behind it.
fn option_name(option: &str) -> &str {
    option.split([' ', '=']).next().unwrap_or_default().trim_end_matches('.')
}
