//! The command line: options as given, checked for what can be checked without touching anything.

mod explain;
mod routing;
mod subcommands;
mod timing;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use clap::builder::FalseyValueParser;
use clap::{ArgAction, CommandFactory, FromArgMatches, Parser, ValueHint};
use leaderrun_core::election::ElectionConfig;
use leaderrun_core::record::RunId;
use leaderrun_core::supervisor::StopOptions;
use leaderrun_core::timing::Timing;
use tracing_subscriber::filter::LevelFilter;
use uuid::Uuid;

use self::explain::explain;
use self::routing::RoutingArguments;
use crate::elector::rejoin::{COUNTED_VARIABLE, LOSSES_VARIABLE};
use crate::elector::{ElectorConfig, OnLost};
use crate::kubernetes::ClusterOptions;
use crate::lock::LockName;
use crate::process::deadline::FD_VARIABLE;
use crate::process::signals::{self, MASK_VARIABLE};
use crate::subcommands::Subcommand;
use crate::supervisor::SupervisorConfig;
use crate::telemetry::http::HttpAddress;
use crate::telemetry::log::Format;
use crate::telemetry::state::ReadyWhen;

const LOCK: &str = "Lock";
const TIMES: &str = "Times";
const COMMAND: &str = "Command";
const CLUSTER: &str = "Cluster";
const MONITORING: &str = "Monitoring";
const LOG: &str = "Log";

/// Longer than any name of a pod with a UUID behind it.
const LONGEST_IDENTITY: usize = 1024;

/// Runs a command only while it is the leader.
///
/// leaderrun waits until it holds the lock, runs the command while it holds it, forwards signals, and
/// has every process of the command dead before anyone else may run it.
#[derive(Debug, Parser)]
#[command(
    name = "leaderrun",
    version,
    override_usage = "\
leaderrun --lock [KIND:][NAMESPACE/]NAME [OPTIONS] -- COMMAND [ARGUMENT]...
       leaderrun SUBCOMMAND --help",
    after_help = "\
Every option can also be set in the environment, as LEADERRUN_LOCK for --lock; the command line wins.

Exit status:
  the command's own, or
  75     not acquired within --wait
  76     leadership lost
  125    leaderrun itself failed
  126    the command cannot be executed
  127    the command was not found
  128+N  signal N ended the command, or leaderrun while it waited",
    max_term_width = 100
)]
pub struct Cli {
    /// The lock to hold: a Lease as [NAMESPACE/]NAME, a local file as file:PATH, or another kind as KIND:[NAMESPACE/]NAME
    #[arg(long, env = "LEADERRUN_LOCK", value_name = "LOCK", help_heading = LOCK)]
    lock: LockName,

    /// The name to hold it by [default: host name, _, UUID]
    #[arg(long, env = "LEADERRUN_IDENTITY", value_name = "NAME", value_parser = identity, help_heading = LOCK)]
    identity: Option<String>,

    /// Give up with status 75 when the lock is not acquired within this time; 0s does not queue behind a living holder
    #[arg(long, allow_hyphen_values = true, env = "LEADERRUN_WAIT", value_name = "DURATION", value_parser = duration, help_heading = LOCK)]
    wait: Option<Duration>,

    /// After the command has ended with status 0, nobody runs it until this long after the lock was acquired
    #[arg(long, env = "LEADERRUN_MIN_HOLD", value_name = "DURATION", value_parser = duration, help_heading = LOCK)]
    min_hold: Option<Duration>,

    /// What to do when the leadership was lost and the command is gone: exit or rejoin, which waits for the lock again
    #[arg(long, env = "LEADERRUN_ON_LOST", value_name = "ACTION", default_value = "exit", help_heading = LOCK)]
    on_lost: OnLost,

    #[command(flatten)]
    times: TimeArguments,

    /// The signal, by name or number, that tells the command to stop because the lease was lost
    #[arg(long, env = "LEADERRUN_STOP_SIGNAL", value_name = "SIGNAL", default_value = "TERM", value_parser = signals::parse, help_heading = COMMAND)]
    stop_signal: i32,

    /// Kill the command this long after a TERM or INT was forwarded to it [default: never]
    #[arg(long, env = "LEADERRUN_KILL_AFTER", value_name = "DURATION", value_parser = duration, help_heading = COMMAND)]
    kill_after: Option<Duration>,

    #[command(flatten)]
    cluster: ClusterArguments,

    #[command(flatten)]
    routing: RoutingArguments,

    /// Answer HTTP there, with /healthz, /readyz, /leader and /metrics: IP:PORT, or :PORT for all addresses [default: nowhere]
    #[arg(long, env = "LEADERRUN_HTTP", value_name = "ADDR", help_heading = MONITORING)]
    http: Option<HttpAddress>,

    /// When /readyz answers 200: waiting (while waiting or leading) or leading (only while leading)
    #[arg(long, env = "LEADERRUN_READY_WHEN", value_name = "STATE", default_value = "waiting", help_heading = MONITORING)]
    ready_when: ReadyWhen,

    /// How log lines on stderr look: text or json
    #[arg(long, env = "LEADERRUN_LOG_FORMAT", value_name = "FORMAT", default_value = "text", help_heading = LOG)]
    log_format: Format,

    /// Log more; given twice, also what the libraries log
    #[arg(short, long, env = "LEADERRUN_VERBOSE", action = ArgAction::Count, value_parser = verbosity, help_heading = LOG)]
    verbose: u8,

    /// Log only what goes wrong
    #[arg(short, long, env = "LEADERRUN_QUIET", action = ArgAction::SetTrue, value_parser = FalseyValueParser::new(), help_heading = LOG)]
    quiet: bool,

    /// The command to run and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND", value_hint = ValueHint::CommandWithArguments)]
    command: Vec<OsString>,
}

/// How long what may take.
#[derive(Debug, clap::Args)]
struct TimeArguments {
    /// How long the lease holds without being renewed, in whole seconds
    #[arg(long, env = "LEADERRUN_LEASE_DURATION", value_name = "DURATION", default_value = "15s", value_parser = duration, help_heading = TIMES)]
    lease_duration: Duration,

    /// How long after the last renewal the command is told to stop
    #[arg(long, env = "LEADERRUN_RENEW_DEADLINE", value_name = "DURATION", default_value = "10s", value_parser = duration, help_heading = TIMES)]
    renew_deadline: Duration,

    /// How often the lease is renewed
    #[arg(long, env = "LEADERRUN_RETRY_PERIOD", value_name = "DURATION", default_value = "2s", value_parser = duration, help_heading = TIMES)]
    retry_period: Duration,

    /// How long the command may take after the stop signal, or what it left running after SIGTERM, before SIGKILL [default: half of the time between renew deadline and lease duration]
    #[arg(long, env = "LEADERRUN_LOST_GRACE", value_name = "DURATION", value_parser = duration, help_heading = TIMES)]
    lost_grace: Option<Duration>,
}

impl TimeArguments {
    fn timing(&self) -> Result<Timing> {
        let Self { lease_duration, renew_deadline, retry_period, lost_grace } = *self;
        let timing = Timing::new(lease_duration, renew_deadline, retry_period, lost_grace);
        timing.map_err(|invalid| anyhow!(timing::explain(&invalid)))
    }
}

/// Which API server, and as whom.
#[derive(Debug, clap::Args)]
struct ClusterArguments {
    /// The kubeconfig to use [default: KUBECONFIG, ~/.kube/config, or the pod's service account]
    #[arg(long, env = "LEADERRUN_KUBECONFIG", value_name = "PATH", help_heading = CLUSTER)]
    kubeconfig: Option<PathBuf>,

    /// The context of the kubeconfig to use
    #[arg(long, env = "LEADERRUN_CONTEXT", value_name = "NAME", help_heading = CLUSTER)]
    context: Option<String>,

    /// The user to act as
    #[arg(long = "as", env = "LEADERRUN_AS", value_name = "USER", help_heading = CLUSTER)]
    impersonate: Option<String>,
}

impl From<ClusterArguments> for ClusterOptions {
    fn from(ClusterArguments { kubeconfig, context, impersonate }: ClusterArguments) -> Self {
        Self { kubeconfig, context, impersonate }
    }
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Invocation {
    /// To run a command: what each of the two processes has to know.
    Run(Box<ElectorConfig>, SupervisorConfig),
    /// To do something else about a lock.
    Subcommand(Subcommand),
    /// To print this: the help or the version.
    Print(String),
}

/// Reads a command line and the environment.
///
/// # Errors
/// One sentence that names the option, the value, the reason and a value that would do.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Invocation> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    // A subcommand is one as the first argument only: everywhere else the word may mean something else.
    let subcommand =
        arguments.get(1).and_then(|first| first.to_str()).filter(|first| subcommands::is_subcommand(first));
    let subcommand = subcommand.map(str::to_owned);
    let asked = match subcommand {
        Some(_) => subcommands::parse(arguments).map(|subcommand| subcommand.map(Invocation::Subcommand)),
        None => parse_run(arguments),
    };
    match asked {
        Ok(asked) => asked,
        Err(error) if !error.use_stderr() => Ok(Invocation::Print(error.render().to_string())),
        Err(error) => Err(anyhow!(explain(&error, subcommand.as_deref()))),
    }
}

fn parse_run(arguments: Vec<OsString>) -> Result<Result<Invocation>, clap::Error> {
    let mut matches = definition().try_get_matches_from(arguments)?;
    Ok(Cli::from_arg_matches_mut(&mut matches)?.plan())
}

/// The definition of the command line, for completions and the man page.
pub fn definition() -> clap::Command {
    subcommands::augment(Cli::command())
}

impl Cli {
    fn plan(self) -> Result<Invocation> {
        let timing = self.times.timing()?;
        if self.command.first().is_some_and(|name| name.is_empty()) {
            bail!("the command is empty; a program's name or path after -- would do");
        }
        let run = RunId::new(Uuid::new_v4().to_string());
        let host = nix::unistd::gethostname()?.to_string_lossy().into_owned();
        let routing = self.routing.routing(&self.lock, &host)?;
        let identity = self.identity.unwrap_or_else(|| format!("{host}_{run}"));
        let log_level = match (self.quiet, self.verbose) {
            (true, _) => LevelFilter::WARN,
            (false, 0) => LevelFilter::INFO,
            (false, 1) => LevelFilter::DEBUG,
            (false, _) => LevelFilter::TRACE,
        };
        let command_line = definition();
        let ours = command_line.get_arguments().filter_map(|argument| argument.get_env()?.to_str());
        let handed_down = [LOSSES_VARIABLE, COUNTED_VARIABLE, MASK_VARIABLE, FD_VARIABLE];
        let own_variables = ours.chain(handed_down).map(str::to_owned).collect();
        let stop_options =
            StopOptions { stop_signal: self.stop_signal, lost_grace: timing.lost_grace(), kill_after: self.kill_after };
        let config = ElectorConfig {
            lock: self.lock,
            cluster: self.cluster.into(),
            election: ElectionConfig { identity, run: run.clone(), timing, wait: self.wait, min_hold: self.min_hold },
            on_lost: self.on_lost,
            routing,
            http: self.http,
            ready_when: self.ready_when,
            log_format: self.log_format,
            log_level,
        };
        Ok(Invocation::Run(
            Box::new(config),
            SupervisorConfig { command: self.command, stop_options, own_variables, run },
        ))
    }
}

fn duration(text: &str) -> Result<Duration, &'static str> {
    humantime::parse_duration(text).map_err(|_| "it is no duration; 15s or 1m30s would do")
}

fn verbosity(text: &str) -> Result<u8, &'static str> {
    text.parse().map_err(|_| "it is no number of times; 1 would do")
}

fn identity(text: &str) -> Result<String, &'static str> {
    match text {
        "" => Err("nobody holds a lease by an empty name; billing-1 would do"),
        _ if text.chars().any(char::is_control) => Err("a name has no control characters; billing-1 would do"),
        _ if text.len() > LONGEST_IDENTITY => Err("a name has at most 1024 bytes; billing-1 would do"),
        _ => Ok(text.to_owned()),
    }
}
