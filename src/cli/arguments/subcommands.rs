//! The subcommands with their options.

use std::ffi::OsString;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueHint};

use super::{
    ClusterArguments, LockArguments, OwnerArguments, RoutingTargetArguments, RunArguments, SlotArguments, values,
};
use crate::cli::documents::Shell;
use crate::lock::SlotCount;
use crate::subcommands::OutputFormat;

/// A command line that begins with a subcommand.
#[derive(Clone, Debug, Parser)]
#[command(name = "leaderrun", max_term_width = 100, disable_help_subcommand = true)]
pub struct SubcommandLine {
    #[command(subcommand)]
    pub subcommand: SubcommandArguments,
}

/// A subcommand with its options.
#[derive(Clone, Debug, Subcommand)]
#[command(about = super::ABOUT, long_about = super::LONG_ABOUT)]
pub enum SubcommandArguments {
    /// Show who holds a lock, since when and for how long
    #[command(
        override_usage = "leaderrun status --lock [KIND:][NAMESPACE/]NAME [OPTIONS]",
        after_help = "\
The holder takes the times from its own clock, and this command compares them with the clock of this machine, so the result is \
off by the difference between the two clocks. Candidates do not use these times: each measures how long the record has stayed \
unchanged.

Exit status:
  0    held; with --slots, every slot is held
  1    free: never held, released, or not due yet (--min-hold, --every); with --slots, at least one slot is free
  2    expired, by this machine's clock; with --slots, no slot is free, and at least one has expired
  125  unknown: usage error, or the lock cannot be reached"
    )]
    Status {
        /// Show all slots of a lock with this number of slots [default: the lock has no slots]
        #[arg(long, env = "LEADERRUN_SLOTS", value_name = "COUNT", value_parser = values::slots)]
        slots: Option<SlotCount>,

        /// The output format: text or json
        #[arg(short, long, value_name = "FORMAT", default_value = "text", hide_possible_values = true)]
        output: OutputFormat,

        /// Keep running and print a line for each change, until Ctrl-C
        #[arg(short, long)]
        watch: bool,

        #[command(flatten)]
        target: TargetArguments,
    },

    /// List the locks in a namespace: all Leases, and the locks that older programs keep in ConfigMaps and Endpoints
    #[command(
        override_usage = "leaderrun list [-n NAMESPACE | -A] [OPTIONS]",
        after_help = "\
This command requires the permission to list leases in the namespace. leaderrun status --help explains the states and their times.

Exit status:
  0    listed, even if there are none
  125  not listed: usage error, or the API server cannot be reached or refuses the request"
    )]
    List {
        /// The namespace [default: the namespace of the kubeconfig's context or of the pod]
        #[arg(short, long, env = "LEADERRUN_NAMESPACE", value_name = "NAMESPACE", value_parser = values::namespace)]
        namespace: Option<String>,

        /// List the locks of all namespaces
        #[arg(short = 'A', long)]
        all_namespaces: bool,

        /// The output format: text or json
        #[arg(short, long, value_name = "FORMAT", default_value = "text", hide_possible_values = true)]
        output: OutputFormat,

        /// Keep running and print a line for each lock that changes, until Ctrl-C
        #[arg(short, long)]
        watch: bool,

        #[command(flatten)]
        cluster: ClusterArguments,
    },

    /// Print a service account with the permissions for a lock, as input for kubectl apply -f -
    #[command(
        override_usage = "leaderrun manifest --lock [KIND:][NAMESPACE/]NAME [OPTIONS]",
        after_help = "\
No request is sent to the API server. Objects that only a cluster administrator may create come last, with a comment.

Exit status:
  0    printed
  125  not printed: usage error, or the namespace is not known"
    )]
    Manifest {
        /// The service account of the pods [default: the name of the lock]
        #[arg(long, value_name = "NAME", value_parser = values::object_name)]
        service_account: Option<String>,

        /// Also print a FlowSchema that lets a busy API server serve renewals before other requests; only a cluster
        /// administrator can apply it
        #[arg(long)]
        priority: bool,

        #[command(flatten)]
        target: TargetArguments,

        #[command(flatten)]
        slots: SlotArguments,

        #[command(flatten)]
        owner: OwnerArguments,

        #[command(flatten)]
        routing: RoutingTargetArguments,
    },

    /// Ask the holder of a lock to stop its command and to release the lock
    #[command(
        override_usage = "leaderrun step-down --lock [KIND:][NAMESPACE/]NAME [OPTIONS]",
        after_help = "\
This command asks once, and waits only with --wait. The holder finds the request at its next renewal and acts as if \
it had received SIGTERM: its command gets SIGTERM and, with --kill-after, SIGKILL. When no process of the command is left, the \
holder releases the lock and exits.

Exit status:
  0    asked; with --wait, the holder has released the lock
  1    nobody holds the lock
  2    with --wait, the holder still holds the lock
  125  not asked: usage error, the holder is another program, or the lock cannot be reached"
    )]
    StepDown {
        /// Wait until the holder has released the lock, for at most DURATION if it is given, and print the next leader
        /// [default: do not wait]
        #[arg(long, value_name = "DURATION", num_args = 0..=1, value_parser = values::duration)]
        wait: Option<Option<Duration>>,

        #[command(flatten)]
        target: TargetArguments,
    },

    /// Release a lock whose holder is known to be dead, so that no candidate waits until it expires
    #[command(
        override_usage = "leaderrun release --force --lock [KIND:][NAMESPACE/]NAME [OPTIONS]",
        after_help = "\
Use this command if the lease is long and its holder does not come back. leaderrun release waits for a renewal, and \
releases the lock if there is none. Standbys can then acquire the lock immediately. If the holder is in fact alive \
and only cut off from the lock, its command may keep running until the renew deadline has passed and the grace period \
(--lost-grace) has ended, so two commands may run at the same time. To ask a holder that is alive to release the \
lock, use leaderrun step-down.

Exit status:
  0    released
  1    nobody holds the lock
  2    not released: the holder is still renewing it
  125  not released: usage error, or the lock cannot be reached"
    )]
    Release {
        /// Declare that the holder is known to be dead; leaderrun cannot verify this (required)
        #[arg(long, required = true)]
        force: bool,

        /// How long to wait for a renewal [default: twice the holder's retry period if the record contains it,
        /// otherwise a third of the lease duration; at least 2s]
        #[arg(long, value_name = "DURATION", value_parser = values::duration)]
        observe: Option<Duration>,

        #[command(flatten)]
        target: TargetArguments,
    },

    /// Check whether a leaderrun command line would work, and print what to do if it would not
    #[command(
        override_usage = "leaderrun doctor --lock [KIND:][NAMESPACE/]NAME [OPTIONS] [-- COMMAND [ARGUMENT]...]",
        after_help = "\
This command accepts every option that leaderrun accepts without a subcommand: insert doctor after leaderrun in a \
command line that does not work. \
leaderrun doctor changes nothing. Each line of its output begins with ok, with note (something could be better), or with FAILED.

Exit status:
  0    nothing failed
  1    something failed
  125  usage error"
    )]
    Doctor {
        #[command(flatten)]
        run: Box<RunArguments>,

        /// The command that would be run, and its arguments
        #[arg(last = true, value_name = "COMMAND", value_hint = ValueHint::CommandWithArguments)]
        command: Vec<OsString>,
    },

    /// Report by exit status whether the lock is still held (for use in the command)
    #[command(
        override_usage = "leaderrun check [--min-remaining DURATION]",
        after_help = "\
This command sends no request and prints nothing. It reads an inherited file descriptor, whose number is in LEADERRUN_TENURE_FD.

Exit status:
  0    held, for at least --min-remaining longer
  1    lost, or not known to be held for that much longer
  125  unknown: usage error, or leaderrun's file descriptor or environment variables are missing"
    )]
    Check {
        /// The minimum time for which the lock must still be held
        #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = values::duration)]
        min_remaining: Duration,
    },

    /// Print the completion script for a shell
    #[command(
        override_usage = "leaderrun completion bash|zsh|fish",
        after_help = "\
For one session:
  bash  source <(leaderrun completion bash)
  zsh   source <(leaderrun completion zsh)
  fish  leaderrun completion fish | source

Permanently, in a directory that the shell searches:
  bash  leaderrun completion bash > /etc/bash_completion.d/leaderrun
  zsh   leaderrun completion zsh > /usr/local/share/zsh/site-functions/_leaderrun
  fish  leaderrun completion fish > ~/.config/fish/completions/leaderrun.fish"
    )]
    Completion {
        /// The shell: bash, zsh or fish
        #[arg(value_name = "SHELL", hide_possible_values = true)]
        shell: Shell,
    },

    /// Print the man page
    #[command(override_usage = "leaderrun man", after_help = "To read it:\n  leaderrun man | man -l -")]
    Man,
}

/// The options that select a lock, and give access to its cluster.
#[derive(Clone, Debug, Args)]
pub struct TargetArguments {
    #[command(flatten)]
    pub lock: LockArguments,

    #[command(flatten)]
    pub cluster: ClusterArguments,
}

/// Returns whether there is a subcommand with this name.
pub fn is_subcommand(name: &str) -> bool {
    SubcommandArguments::has_subcommand(name)
}

/// Returns the names of all subcommands.
pub fn subcommand_names() -> Vec<String> {
    SubcommandLine::command().get_subcommands().map(|subcommand| subcommand.get_name().to_owned()).collect()
}

/// Adds the subcommands to a definition, for its help and the generated documents.
pub fn add_subcommands(definition: clap::Command) -> clap::Command {
    SubcommandArguments::augment_subcommands(definition)
        .args_conflicts_with_subcommands(true)
        .subcommand_negates_reqs(true)
        .disable_help_subcommand(true)
        .subcommand_help_heading("Subcommands")
}
