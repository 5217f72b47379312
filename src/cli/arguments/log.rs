//! The options for the log on stderr.

use clap::{ArgAction, Args};

use super::{LOG, values};
use crate::telemetry::log::{LogFormat, LogTime};

/// The options for the log on stderr.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = LOG)]
pub struct LogArguments {
    /// The format of log lines on stderr: text or json
    #[arg(
        long,
        env = "LEADERRUN_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text",
        hide_possible_values = true
    )]
    pub log_format: LogFormat,

    /// The time at the beginning of a line in the text format: elapsed (since the start), wall (the clock, in UTC), or none
    #[arg(
        long,
        env = "LEADERRUN_LOG_TIME",
        value_name = "TIME",
        default_value = "elapsed",
        hide_possible_values = true
    )]
    pub log_time: LogTime,

    /// Log more; given twice, also log messages from the libraries that leaderrun uses
    #[arg(short, long, env = "LEADERRUN_VERBOSE", action = ArgAction::Count, value_parser = values::verbosity)]
    pub verbose: u8,

    /// Log only warnings and errors
    #[arg(short, long, env = "LEADERRUN_QUIET", action = ArgAction::SetTrue, value_parser = values::switch)]
    pub quiet: bool,
}
