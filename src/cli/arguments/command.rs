//! The options that determine how the command ends, and whether it gets the terminal.

use std::time::Duration;

use clap::{ArgAction, Args};

use super::{COMMAND, values};
use crate::supervisor::WaitFor;

/// The options that determine how the command ends, and whether it gets the terminal.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = COMMAND)]
pub struct CommandArguments {
    /// The signal (name or number) that stops the command when leadership is lost or --max-run has elapsed
    #[arg(long, env = "LEADERRUN_STOP_SIGNAL", value_name = "SIGNAL", default_value = "TERM", value_parser = values::signal)]
    pub stop_signal: i32,

    /// Kill the command if it has not ended this long after TERM, INT or the stop signal was sent to leaderrun [default: never]
    #[arg(long, env = "LEADERRUN_KILL_AFTER", value_name = "DURATION", value_parser = values::duration)]
    pub kill_after: Option<Duration>,

    /// When the command counts as ended: main (when its main process has ended) or all (when all of its processes have ended, including those that the main process leaves running, such as a daemon)
    #[arg(long, env = "LEADERRUN_WAIT_FOR", value_name = "PROCESSES", default_value = "main")]
    pub wait_for: WaitFor,

    /// Give the command the terminal even if leaderrun is part of a pipeline
    #[arg(long, env = "LEADERRUN_FOREGROUND", action = ArgAction::SetTrue, value_parser = values::switch)]
    pub foreground: bool,

    /// Stop the command when it has run for this long: send the stop signal, send SIGKILL after --kill-after or, without it, after --lost-grace, and exit with status 124 as in timeout(1) [default: never]
    #[arg(long, env = "LEADERRUN_MAX_RUN", value_name = "DURATION", value_parser = values::max_run)]
    pub max_run: Option<Duration>,
}
