//! The subcommands: what else leaderrun does with a lock.

use std::ffi::OsString;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Parser, Subcommand as _};

use super::routing::{RoutingTargetArguments, check_lock};
use super::{ClusterArguments, LOCK, TimeArguments, duration};
use crate::lock::{LockName, check_name};
use crate::subcommands::{Output, Place, Subcommand};

/// leaderrun without a command to run.
#[derive(Debug, Parser)]
#[command(name = "leaderrun", max_term_width = 100, disable_help_subcommand = true)]
struct Tools {
    #[command(subcommand)]
    subcommand: Arguments,
}

#[derive(Debug, clap::Subcommand)]
enum Arguments {
    /// Show who holds a lock, since when and for how long
    #[command(
        override_usage = "leaderrun status --lock [KIND:][NAMESPACE/]NAME [OPTIONS]",
        after_help = "\
Times come from the holder's clock and are compared with this machine's: they are off by as much as the two differ. \
Candidates use none of them, and go by how long they themselves saw no change.

Exit status:
  0    held
  1    free: released, or never held
  2    run out, by this machine's clock: held by somebody who did not renew it in time
  125  not found out"
    )]
    Status {
        #[command(flatten)]
        place: PlaceArguments,

        /// How it is shown: text or json
        #[arg(short, long, value_name = "FORMAT", default_value = "text")]
        output: Output,
    },

    /// Print the service account, its rights and its priority for a lock, to be piped into kubectl apply -f -
    #[command(override_usage = "leaderrun manifest --lock [KIND:]NAMESPACE/NAME [OPTIONS]")]
    Manifest {
        /// The lock: a Lease as NAMESPACE/NAME, or another kind as KIND:NAMESPACE/NAME
        #[arg(long, env = "LEADERRUN_LOCK", value_name = "LOCK", help_heading = LOCK)]
        lock: LockName,

        /// The service account that the pods have [default: the name of the lock]
        #[arg(long, value_name = "NAME", value_parser = service_account)]
        service_account: Option<String>,

        #[command(flatten)]
        target: RoutingTargetArguments,
    },

    /// Ask whoever holds a lock to stop its command and to hand over
    #[command(
        override_usage = "leaderrun step-down --lock [KIND:][NAMESPACE/]NAME [OPTIONS]",
        after_help = "\
It asks once and does not wait. The holder finds the request at its next renewal and then does as on SIGTERM: its command \
gets SIGTERM and, with --kill-after, SIGKILL; when nothing is left of it the lock is given back, and that leaderrun ends.

Exit status:
  0    asked
  1    nobody holds it
  125  not asked: held by another program than leaderrun, or not reached"
    )]
    StepDown {
        #[command(flatten)]
        place: PlaceArguments,
    },

    /// Check what running a command under a lock will need, and say what to do about what is missing
    #[command(
        override_usage = "leaderrun doctor --lock [KIND:][NAMESPACE/]NAME [OPTIONS]",
        after_help = "\
Nothing is written. A line begins with ok, with note for what could be better, or with FAILED.

Exit status:
  0    nothing failed
  1    something failed
  125  wrong usage"
    )]
    Doctor {
        #[command(flatten)]
        place: PlaceArguments,

        #[command(flatten)]
        times: TimeArguments,

        #[command(flatten)]
        target: RoutingTargetArguments,
    },

    /// Run by the command: is the lock still held?
    #[command(
        override_usage = "leaderrun check [--min-remaining DURATION]",
        after_help = "\
It sends nothing and prints nothing. It reads an inherited file descriptor, whose number is LEADERRUN_TENURE_FD.

Exit status:
  0    held for at least this long
  1    lost, or not known to be held for this long
  125  not found out: the descriptor or the variables are missing"
    )]
    Check {
        /// How long it must still be held, whatever happens
        #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
        min_remaining: Duration,
    },
}

#[derive(Debug, Args)]
struct PlaceArguments {
    /// The lock: a Lease as [NAMESPACE/]NAME, a local file as file:PATH, or another kind as KIND:[NAMESPACE/]NAME
    #[arg(long, env = "LEADERRUN_LOCK", value_name = "LOCK", help_heading = LOCK)]
    lock: LockName,

    #[command(flatten)]
    cluster: ClusterArguments,
}

impl From<PlaceArguments> for Place {
    fn from(PlaceArguments { lock, cluster }: PlaceArguments) -> Self {
        Self { lock, cluster: cluster.into() }
    }
}

/// Whether there is a subcommand of that name.
pub fn is_subcommand(name: &str) -> bool {
    Arguments::has_subcommand(name)
}

/// Reads a command line that begins with a subcommand.
///
/// # Errors
/// What clap found; what it cannot know is in the result.
pub fn parse(arguments: Vec<OsString>) -> Result<Result<Subcommand>, clap::Error> {
    Ok(Ok(match Tools::try_parse_from(arguments)?.subcommand {
        Arguments::Status { place, output } => Subcommand::Status(place.into(), output),
        Arguments::Manifest { lock, service_account, target } => {
            Subcommand::Manifest(lock, service_account, target.target())
        }
        Arguments::StepDown { place } => Subcommand::StepDown(place.into()),
        Arguments::Doctor { place, times, target } => {
            let target = target.target();
            let is_possible = target.as_ref().map_or(Ok(()), |_| check_lock(&place.lock));
            return Ok(is_possible.and_then(|()| Ok(Subcommand::Doctor(place.into(), times.timing()?, target))));
        }
        Arguments::Check { min_remaining } => Subcommand::Check(min_remaining),
    }))
}

/// Adds the subcommands to a definition, for its help and what is generated from it.
pub fn augment(definition: clap::Command) -> clap::Command {
    Arguments::augment_subcommands(definition)
        .args_conflicts_with_subcommands(true)
        .subcommand_negates_reqs(true)
        .disable_help_subcommand(true)
        .subcommand_help_heading("Subcommands")
}

fn service_account(name: &str) -> Result<String, String> {
    check_name(name).map_err(|reason| format!("it {reason}; my-job would do"))?;
    Ok(name.to_owned())
}
