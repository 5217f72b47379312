//! The environment variables whose names begin with `LEADERRUN_`.

use std::ffi::OsString;
use std::sync::LazyLock;

use crate::elector::SLOT_VARIABLE;
use crate::elector::rejoin::{COUNTERS_VARIABLE, LOSSES_VARIABLE};
use crate::process::deadline::{FD_VARIABLE, OUTER_RUNS_VARIABLE, RUN_VARIABLE};
use crate::process::signals::MASK_VARIABLE;
use crate::telemetry::log::LOG_START_VARIABLE;

use super::suggest;

const PREFIX: &str = "LEADERRUN_";

/// The variables that the command gets, with their meanings.
pub const COMMAND_VARIABLES: [(&str, &str); 8] = [
    ("LEADERRUN_HELD_LOCK", "the lock, with its namespace if it has one"),
    ("LEADERRUN_HOLDER", "the identity of this candidate, as in the record of the lock"),
    (SLOT_VARIABLE, "with `--slots`: the slot number, from 0"),
    (RUN_VARIABLE, "a UUID, new for every start of leaderrun"),
    (OUTER_RUNS_VARIABLE, "if leaderrun runs inside a command of leaderrun: the run IDs of the outer runs"),
    ("LEADERRUN_TRANSITIONS", "how many times the lock was acquired before, as counted in its record"),
    (
        "LEADERRUN_FENCING_TOKEN",
        "a decimal integer of any length that grows with every acquisition. A store that refuses each token smaller than \
         the greatest one it has seen is safe even from a command that should be dead",
    ),
    (FD_VARIABLE, "the number of the descriptor that `leaderrun check` reads"),
];

/// The variables that leaderrun sets when it re-executes itself. The command does not inherit them.
const INTERNAL: [&str; 4] = [LOSSES_VARIABLE, COUNTERS_VARIABLE, MASK_VARIABLE, LOG_START_VARIABLE];

/// The variables that set options. They are collected only if the environment contains a variable with the [`PREFIX`],
/// because collecting them takes as long as parsing the command line.
static OPTION_VARIABLES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let definition = super::definition();
    let clap_commands = std::iter::once(&definition).chain(definition.get_subcommands());
    let variables =
        clap_commands.flat_map(clap::Command::get_arguments).filter_map(|option| option.get_env()?.to_str());
    let mut variables: Vec<String> = variables.map(str::to_owned).collect();
    variables.sort_unstable();
    variables.dedup();
    variables
});

/// Returns which of these variables the command does not inherit: those that set leaderrun's own options, those that
/// leaderrun sets for itself, and those that leaderrun sets for some commands only, because their values may come from
/// an outer leaderrun.
pub fn not_inherited(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Vec<String> {
    let is_removed = |name: &String| {
        let is_not_always_set = name == FD_VARIABLE || name == SLOT_VARIABLE;
        INTERNAL.contains(&name.as_str()) || is_not_always_set || OPTION_VARIABLES.contains(name)
    };
    with_prefix(variables).map(|(name, _)| name).filter(is_removed).collect()
}

/// Returns the variables whose names begin with the [`PREFIX`].
fn with_prefix(variables: impl IntoIterator<Item = (OsString, OsString)>) -> impl Iterator<Item = (String, OsString)> {
    let variables = variables.into_iter().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    variables.filter(|(name, _)| name.starts_with(PREFIX))
}

/// Returns a warning for each variable whose name begins with `LEADERRUN_` but is unknown to leaderrun.
pub fn warnings_about_unknown(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Vec<String> {
    let is_known = |name: &str| {
        let set_by_leaderrun = COMMAND_VARIABLES.iter().map(|(name, _)| *name).chain(INTERNAL);
        OPTION_VARIABLES.iter().any(|known| known == name) || set_by_leaderrun.into_iter().any(|known| known == name)
    };
    let unknown = with_prefix(variables)
        .filter(|(name, value)| !is_known(name) && !is_service_link(name, &value.to_string_lossy()));
    let without_prefix = |name: &str| name.trim_start_matches(PREFIX).to_owned();
    let sentence = |name: &str| {
        let known: Vec<String> = OPTION_VARIABLES.iter().map(|name| without_prefix(name)).collect();
        match suggest::nearest(&without_prefix(name), known.iter().map(String::as_str)) {
            Some(meant) => format!("{name}: this variable sets no option; try {PREFIX}{meant}"),
            None => format!("{name}: this variable sets no option"),
        }
    };
    unknown.map(|(name, _)| sentence(&name)).collect()
}

/// Returns whether the variable looks like one of those that Kubernetes sets in every pod of a namespace with a Service
/// `leaderrun` or `leaderrun-x`: `…_SERVICE_HOST`, `…_SERVICE_PORT`, `…_SERVICE_PORT_HTTP`, `…_PORT=tcp://…`,
/// `…_PORT_80_TCP` or `…_PORT_80_TCP_ADDR`.
fn is_service_link(name: &str, value: &str) -> bool {
    let is_named_service_port = name.contains("_SERVICE_PORT_");
    let is_address = ["tcp://", "udp://", "sctp://"].iter().any(|protocol| value.starts_with(protocol));
    let words: Vec<&str> = name.split('_').collect();
    let has_port_and_protocol = words.windows(3).any(|words| match words {
        ["PORT", number, protocol] => {
            number.bytes().all(|byte| byte.is_ascii_digit()) && ["TCP", "UDP", "SCTP"].contains(protocol)
        }
        _ => false,
    });
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || is_named_service_port
        || has_port_and_protocol
        || (name.ends_with("_PORT") && is_address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings_about(names: &[(&str, &str)]) -> Vec<String> {
        warnings_about_unknown(names.iter().map(|(name, value)| (name.into(), value.into())))
    }

    #[test]
    fn a_mistyped_variable_is_reported_with_a_suggestion() {
        let warnings =
            warnings_about(&[("LEADERRUN_LOKC", "x"), ("LEADERRUN_PORT", "8080"), ("LEADERRUN_COLOUR", "red")]);
        assert_eq!(
            warnings,
            [
                "LEADERRUN_LOKC: this variable sets no option; try LEADERRUN_LOCK",
                "LEADERRUN_PORT: this variable sets no option; try LEADERRUN_PORTS",
                "LEADERRUN_COLOUR: this variable sets no option",
            ]
        );
    }

    #[test]
    fn service_links_and_known_variables_are_not_reported() {
        let known = [
            ("LEADERRUN_SERVICE_HOST", "10.0.0.1"),
            ("LEADERRUN_SERVICE_PORT", "80"),
            ("LEADERRUN_SERVICE_PORT_HTTP", "80"),
            ("LEADERRUN_PORT", "tcp://10.0.0.1:80"),
            ("LEADERRUN_PORT_80_TCP", "tcp://10.0.0.1:80"),
            ("LEADERRUN_PORT_80_TCP_PROTO", "tcp"),
            ("LEADERRUN_PORT_53_UDP_ADDR", "10.0.0.1"),
            ("LEADERRUN_METRICS_SERVICE_HOST", "10.0.0.2"),
            ("LEADERRUN_METRICS_PORT", "tcp://10.0.0.2:9090"),
            ("LEADERRUN_HELD_LOCK", "default/x"),
            ("LEADERRUN_TENURE_FD", "10"),
            ("LEADERRUN_LOCK", "default/x"),
            ("LEADERRUN_PORTS", "80"),
            ("PATH", "/bin"),
        ];
        assert_eq!(warnings_about(&known), Vec::<String>::new());
    }
}
