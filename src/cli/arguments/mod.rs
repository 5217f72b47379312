//! The options as they were given, in one struct for each topic.
//!
//! The definitions do not depend on this machine: [`plan`](super::plan) decides what the options mean on it. The
//! parser, the help, the man page, the completions and `docs/reference.md` are all generated from the definitions.

mod cluster;
mod command;
mod lock;
mod log;
mod monitoring;
mod routing;
mod subcommands;
mod times;
pub mod values;

use std::ffi::OsString;

use clap::{Args, Parser, ValueHint};

pub use self::cluster::ClusterArguments;
pub use self::command::CommandArguments;
pub use self::lock::{ElectionArguments, LockArguments, OwnerArguments, SlotArguments};
pub use self::log::LogArguments;
pub use self::monitoring::MonitoringArguments;
pub use self::routing::{RoutingArguments, RoutingTargetArguments};
pub use self::subcommands::{SubcommandArguments, SubcommandLine, add_subcommands, is_subcommand, subcommand_names};
pub use self::times::TimeArguments;
use crate::exit::{STATUSES, StatusDescription};

// The headings in the help, in the order in which they appear there.
const LOCK: &str = "Lock";
const TIMES: &str = "Times";
const COMMAND: &str = "Command";
const CLUSTER: &str = "Cluster";
const ROUTING: &str = "Routing";
const MONITORING: &str = "Monitoring";
const LOG: &str = "Log";

const ABOUT: &str = "Runs a command only while it is the leader";

const LONG_ABOUT: &str = "\
Runs a command only while it is the leader.

leaderrun waits until it holds the lock, runs the command while it holds the lock, and forwards signals to it. No \
other candidate may run the command until every process of the command is dead.";

/// Returns the text below the options in the help.
fn after_help() -> String {
    let statuses = STATUSES.map(|StatusDescription { status, meaning, .. }| format!("  {status:<6} {meaning}"));
    format!(
        "\
Every option can also be set through an environment variable, for example LEADERRUN_LOCK for --lock. The \
command line takes precedence.

Exit status:
  that of the command, or one of these:
{}",
        statuses.join("\n")
    )
}

/// The command line that runs a command.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "leaderrun",
    version,
    about = ABOUT,
    long_about = LONG_ABOUT,
    override_usage = "\
leaderrun --lock [KIND:][NAMESPACE/]NAME [OPTIONS] -- COMMAND [ARGUMENT]...
       leaderrun SUBCOMMAND --help",
    after_help = after_help(),
    max_term_width = 100
)]
pub struct RunLine {
    #[command(flatten)]
    pub run: RunArguments,

    /// The command to run and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND", value_hint = ValueHint::CommandWithArguments)]
    pub command: Vec<OsString>,
}

/// All options of a run, without its command.
#[derive(Clone, Debug, Args)]
pub struct RunArguments {
    #[command(flatten)]
    pub lock: LockArguments,

    #[command(flatten)]
    pub slots: SlotArguments,

    #[command(flatten)]
    pub owner: OwnerArguments,

    #[command(flatten)]
    pub election: ElectionArguments,

    #[command(flatten)]
    pub times: TimeArguments,

    #[command(flatten)]
    pub command: CommandArguments,

    #[command(flatten)]
    pub cluster: ClusterArguments,

    #[command(flatten)]
    pub routing: RoutingArguments,

    #[command(flatten)]
    pub monitoring: MonitoringArguments,

    #[command(flatten)]
    pub log: LogArguments,
}
