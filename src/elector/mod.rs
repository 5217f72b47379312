//! The outer process. It takes part in the election, relays signals, and kills the command if the supervisor fails.
//!
//! The election runs on its own thread, which uses the network. The main loop never waits for that thread.
//! [`leaderrun_core::elector`] decides what the main thread does.

pub mod command_hint;
mod election_log;
mod election_loop;
mod election_thread;
mod election_updates;
mod error_throttle;
pub mod log_events;
mod log_notices;
mod main_loop;
mod memory_locking;
mod monitoring;
mod open_lock;
pub mod outer_runs;
pub mod rejoin;
mod reminder;
mod request_queue;
mod role_advice;

use std::time::Duration;

use anyhow::Context;
use leaderrun_core::election::ElectionConfig;
use leaderrun_core::elector::{Elector, ExitReason};
use leaderrun_core::messages::End;
use leaderrun_core::updates::Update;
use tracing_subscriber::filter::LevelFilter;

use self::election_thread::ElectionThread;
use self::main_loop::{LoopResult, MainLoop};
use self::memory_locking::MemoryLocking;
use self::monitoring::Monitoring;
use self::rejoin::{NotRejoined, RejoinAfter};
use crate::channel::ElectorEnd;
use crate::events::{Events, EventsConfig};
use crate::exit::{self, Exit, PermanentFailure};
use crate::kubernetes::{ClusterAccess, ClusterOptions};
use crate::lock::{LockConfig, LockName, OwnerConfig, SlotCount};
use crate::process::memory::{self, FileMappings};
use crate::process::pidfd::PidFd;
use crate::process::signals::InheritedSignals;
use crate::process::tree::{self, SharedNested, Tree};
use crate::process::{clock, signal_permission};
use crate::routing::{Router, RouterConfig, Routing};
use crate::telemetry::http::HttpAddress;
use crate::telemetry::log::{self, LogFormat, LogTime};
use crate::telemetry::state::ReadyWhen;
use crate::telemetry::systemd::NotifyBy;

/// The variable that passes the slot number to the command, if the lock has slots.
pub const SLOT_VARIABLE: &str = "LEADERRUN_SLOT";

/// The longest time that the exit waits for traffic to be routed away and for the last Event to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The configuration of the elector, from the command line.
#[derive(Debug)]
pub struct ElectorConfig {
    pub lock: LockName,
    pub slots: Option<SlotCount>,
    /// The owner of the lock's objects.
    pub owner: Option<OwnerConfig>,
    pub cluster: ClusterOptions,
    pub election: ElectionConfig,
    pub on_lost: OnLost,
    /// The signal that stops the command.
    pub stop_signal: i32,
    /// Whether leaderrun waits for the lock again after the command has succeeded.
    pub repeats: bool,
    /// The exit status if the lock is not acquired within `--wait`.
    pub conflict_status: u8,
    pub options: QuotedOptions,
    pub routing: Option<Routing>,
    pub http: Option<HttpAddress>,
    pub ready_when: ReadyWhen,
    /// How long a candidate may be unable to take over before it is unhealthy; `None` for no limit.
    pub unhealthy_after: Option<Duration>,
    pub notify_by: NotifyBy,
    pub log_format: LogFormat,
    pub log_time: LogTime,
    pub log_level: LevelFilter,
    /// A warning for each environment variable whose name begins with `LEADERRUN_` but is unknown to leaderrun.
    pub unknown_variable_warnings: Vec<String>,
}

/// The options that log lines quote, as the user gave them, for example `--wait 3s` or `LEADERRUN_WAIT=3s`.
#[derive(Clone, Debug)]
pub struct QuotedOptions {
    pub wait: String,
    pub kill_after: String,
    pub max_run: String,
    /// The `leaderrun doctor` command line for this run.
    pub doctor: String,
}

/// The reaction to a loss of leadership, once the command is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OnLost {
    Exit,
    /// Wait for the lock again.
    Rejoin,
}

/// Runs the elector, and returns how leaderrun ends. If leaderrun is to wait for the lock again, this function
/// re-executes it and does not return.
///
/// # Errors
/// Fails if leaderrun cannot prepare its process or its log, or cannot re-execute itself. Other failures are logged,
/// and determine the returned exit. The caller need not end the supervisor: it ends when this process ends.
pub fn run(
    config: ElectorConfig,
    channel: ElectorEnd,
    supervisor: PidFd,
    nested: SharedNested,
    inherited: InheritedSignals,
) -> anyhow::Result<Exit> {
    tree::adopt_orphans()?;
    let unlocked_mappings = memory::lock_anonymous();
    let log = log::start(config.log_format, config.log_time, config.log_level)?;
    log::abort_on_panic();
    config.unknown_variable_warnings.iter().for_each(|sentence| log_events::unknown_variable(sentence));
    log_notices::set_options(config.options.clone());
    let ElectorConfig { on_lost, repeats, conflict_status, .. } = config;
    let executed_at = clock::now();
    let (result, saved_counters) =
        observed_main_loop(config, channel, supervisor, nested, inherited.clone(), unlocked_mappings).unwrap_or_else(
            |failure| {
                log_notices::failed(&failure);
                let is_transient = exit::is_transient(&failure);
                let result = LoopResult {
                    exit_reason: ExitReason::Failed { is_transient },
                    end_was_requested: false,
                    command_had_terminal: false,
                };
                (result, None)
            },
        );
    let LoopResult { exit_reason, end_was_requested, command_had_terminal } = result;
    let rejoin_after = match exit_reason {
        ExitReason::Lost { may_rejoin: true } if on_lost == OnLost::Rejoin => Some(RejoinAfter::Loss),
        ExitReason::Command(End::Exited(0)) if repeats && !end_was_requested => Some(RejoinAfter::Success),
        _ => None,
    };
    match rejoin_after {
        Some(RejoinAfter::Loss) => log_events::rejoining(),
        Some(RejoinAfter::Success) => log_events::repeating(),
        None => {}
    }
    let log_start = log.finish();
    let rejoined = rejoin_after.map(|after| rejoin::rejoin(after, &inherited, executed_at, saved_counters, log_start));
    let status = match rejoined {
        None if exit_reason == ExitReason::NotAcquired => Ok(Exit::Status(conflict_status)),
        None => Ok(Exit::of(&exit_reason, command_had_terminal)),
        Some(Ok(never)) => match never {},
        Some(Err(NotRejoined::Signaled(signal))) => Ok(Exit::Signal { signal, to_group: false }),
        Some(Err(NotRejoined::Failed(failure))) => Err(failure).context("cannot wait for the lock again"),
    };
    // This comes last, because until then a pending request could start another helper.
    tree::kill_helpers();
    status
}

/// Runs the main loop and its observers. Returns the result of the main loop, and the counters if there are any.
fn observed_main_loop(
    config: ElectorConfig,
    channel: ElectorEnd,
    supervisor: PidFd,
    nested: SharedNested,
    inherited: InheritedSignals,
    unlocked_mappings: FileMappings,
) -> anyhow::Result<(LoopResult, Option<String>)> {
    let access = ClusterAccess::new(config.cluster.clone());
    if config.lock.kind.is_in_cluster() {
        // The credentials are read while this thread goes on.
        access.prepare();
    }
    let mut monitoring = Monitoring::start(&config)?;
    let (router, events) = (router(&config, &access)?, events(&config, &access));
    let withdrawn = router.as_ref().map(Router::withdrawn);
    let observer = router.as_ref().map(Router::observer).unwrap_or_default();
    let observer = observer.and(events.as_ref().map(Events::observer).unwrap_or_default()).and(monitoring.observer());
    let (lock_observer, lock_opened) = memory_locking::lock_opened();
    let observer = observer.and(lock_observer);
    let elector = Elector::new(&config.election.timing, withdrawn.is_some()).with_stop_signal(config.stop_signal);
    let lock = LockConfig { name: config.lock, slots: config.slots, owner: config.owner };
    let run = config.election.run.to_string();
    let election = ElectionThread::start(lock, access, config.election, observer.clone())?;
    // The rest is prepared while the election opens the lock.
    let prepare = || -> anyhow::Result<_> {
        let tree = Tree::open(&run).map_err(|failure| PermanentFailure(failure.to_string()))?.with_namespace_checks();
        let events = events.map(Events::start).transpose()?;
        let main_loop = MainLoop::new(channel, supervisor, &election, inherited, elector, observer.clone(), tree)?;
        Ok((main_loop, events))
    };
    let (result, events) = match prepare() {
        Ok((main_loop, events)) => {
            log_notices::signal_permission(signal_permission::signal_permission());
            let memory_locking = MemoryLocking::start(unlocked_mappings, lock_opened);
            let main_loop = main_loop.with_nested(nested).with_memory_locking(memory_locking);
            // stdin and stdout stay open if this process may run a later command, which needs them.
            let runs_once = config.on_lost != OnLost::Rejoin && !config.repeats;
            let main_loop = if runs_once { main_loop.releasing_streams() } else { main_loop };
            let main_loop = main_loop.with_withdrawal(withdrawn).with_watchdog(monitoring.take_watchdog());
            (main_loop.run().map_err(anyhow::Error::from), events)
        }
        Err(failure) => {
            election.abandon(FLUSH_TIMEOUT);
            (Err(failure), None)
        }
    };
    observer.notify(Update::RunEnding);
    let until = clock::now() + FLUSH_TIMEOUT;
    router.into_iter().for_each(|router| router.finish(until));
    events.into_iter().for_each(|events| events.finish(until));
    Ok((result?, monitoring.saved_counters()))
}

/// Starts the routing of traffic to the leader, if it is configured.
fn router(config: &ElectorConfig, access: &ClusterAccess) -> anyhow::Result<Option<Router>> {
    let ElectorConfig { lock, election, routing, .. } = config;
    let Some(routing) = routing else { return Ok(None) };
    Ok(Some(Router::start(RouterConfig {
        routing: routing.clone(),
        namespace: lock.namespace.clone(),
        lock: lock.name.clone(),
        access: access.clone(),
        timeout: election.timing.request_timeout(),
    })?))
}

/// Prepares the Events, if the lock is in a cluster.
fn events(config: &ElectorConfig, access: &ClusterAccess) -> Option<Events> {
    let ElectorConfig { lock, election, .. } = config;
    lock.kind.is_in_cluster().then(|| {
        Events::new(EventsConfig {
            lock: lock.clone(),
            access: access.clone(),
            identity: election.identity.clone(),
            timeout: election.timing.request_timeout(),
        })
    })
}
