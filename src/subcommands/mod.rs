//! The subcommands, which inspect, set up or change locks without running a command.

mod check;
mod doctor;
mod list;
mod lock_status;
mod manifest;
pub mod output;
mod release;
mod status;
mod step_down;

use std::ffi::OsString;
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use humantime::format_duration;
use leaderrun_core::record::RunId;
use leaderrun_core::timing::Timing;
use tokio::time::timeout;

pub use self::list::ListRequest;
pub use self::step_down::Wait;
use crate::kubernetes::{ClusterAccess, ClusterOptions};
use crate::lock::{self, Lock, LockConfig, LockError, LockName, OwnerConfig, OwnerName, SlotCount};
use crate::process::tree;
use crate::routing::{Routing, RoutingTarget};
use crate::telemetry::http::HttpAddress;
use crate::telemetry::log::on_one_line;

/// The timeout of one request to the API server, or of one access to a lock file.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The interval between reads while a subcommand waits for a change.
const READ_INTERVAL: Duration = Duration::from_millis(500);

/// The timeout for opening a lock, or for reading the configuration of a cluster. It is long because a credential
/// plugin may wait for the user.
const OPEN_TIMEOUT: Duration = Duration::from_secs(60);

/// A subcommand with its arguments.
#[derive(Debug)]
pub enum Subcommand {
    /// Show the holder of the lock, or the holders of all slots.
    Status(StatusRequest),
    /// Show the locks of one namespace or of all namespaces.
    List(ListRequest),
    /// Print the service account, Role and other objects that a candidate needs in a cluster.
    Manifest(ManifestRequest),
    /// Ask the holder of the lock to release it.
    StepDown(LockTarget, Wait),
    /// Release the lock in place of a dead holder, unless the holder renews it within this time; `None` for a time that
    /// is derived from the record.
    Release(LockTarget, Option<Duration>),
    /// Check whether a run with these options would work.
    Doctor(Box<DoctorRequest>),
    /// Report through the exit status whether the run that this process belongs to will hold the lock for at least this
    /// long.
    Check(Duration),
}

/// A lock, and access to its cluster.
#[derive(Debug)]
pub struct LockTarget {
    pub lock: LockName,
    pub cluster: ClusterOptions,
}

/// The arguments of `leaderrun status`.
#[derive(Debug)]
pub struct StatusRequest {
    pub target: LockTarget,
    pub slots: Option<SlotCount>,
    pub output: OutputFormat,
    /// Whether to also show each change.
    pub watch: bool,
}

/// The arguments of `leaderrun manifest`.
#[derive(Debug)]
pub struct ManifestRequest {
    pub target: LockTarget,
    pub slots: Option<SlotCount>,
    pub owner: Option<OwnerName>,
    pub service_account: Option<String>,
    pub routing_target: Option<RoutingTarget>,
    /// Whether to also print a FlowSchema that gives priority to requests for the lock.
    pub priority: bool,
}

/// The run that `leaderrun doctor` examines.
#[derive(Debug)]
pub struct DoctorRequest {
    pub target: LockTarget,
    pub slots: Option<SlotCount>,
    pub owner: Option<OwnerConfig>,
    pub timing: Timing,
    pub routing_target: Option<RoutingTarget>,
    /// The routing that this candidate would set up: `routing_target`, plus the candidate's own pod or addresses as the
    /// destination. `None` if no traffic is routed.
    pub routing: Option<Routing>,
    /// Whether the run depends on the wall clock, for example because of `--min-hold`.
    pub uses_clock: bool,
    pub http: Option<HttpAddress>,
    /// The command; empty if none was given.
    pub command: Vec<OsString>,
}

/// Returns a run ID that no run has. Subcommands are not runs, so no record in a lock counts as their own.
fn no_run() -> RunId {
    RunId::new("")
}

/// Opens a lock, and returns it with its full name. Fails if this takes longer than [`OPEN_TIMEOUT`].
async fn open(lock: LockName, access: &ClusterAccess) -> Result<(Box<dyn Lock>, LockName)> {
    with_open_timeout(access, lock::open(lock, access, REQUEST_TIMEOUT, &no_run())).await
}

/// Opens the locks of all slots, or the lock itself if it has no slots. Returns each lock with its name.
async fn open_slots(
    name: LockName,
    slots: Option<SlotCount>,
    access: &ClusterAccess,
) -> Result<Vec<(Box<dyn Lock>, LockName)>> {
    let config = LockConfig { name, slots, owner: None };
    let (locks, name) = with_open_timeout(access, lock::open_slots(config, access, REQUEST_TIMEOUT, &no_run())).await?;
    Ok(locks.into_iter().zip(name.in_slots(slots)).collect())
}

/// Prints a warning if the lock has slots, according to the record of its first slot. Returns whether it has slots.
async fn warn_if_slotted(lock: &LockName, access: &ClusterAccess) -> bool {
    let Ok((first, _)) = open(lock.in_slot(0), access).await else { return false };
    let Ok(Ok(Some(stored))) = timeout(REQUEST_TIMEOUT, first.get()).await else { return false };
    let Some(slot) = stored.record.slot else { return false };
    let count = slot.count;
    output::warn(&format!("{lock} has {count} slots; try leaderrun status --lock {lock} --slots {count}"));
    true
}

/// Waits until a lock has been opened, or until the configuration of a cluster has been read, with a timeout of
/// [`OPEN_TIMEOUT`]. On timeout, the error says what was still pending.
async fn with_open_timeout<T>(access: &ClusterAccess, opening: impl Future<Output = Result<T>>) -> Result<T> {
    let timeout_error = |_| {
        let pending = access.waiting_for().unwrap_or_else(|| "a response from the file system".to_owned());
        anyhow!("still waiting for {pending} after {}", format_duration(OPEN_TIMEOUT))
    };
    timeout(OPEN_TIMEOUT, opening).await.map_err(timeout_error)?
}

/// Returns the result of a request for the lock with this name, with a timeout of [`REQUEST_TIMEOUT`]. On timeout, the
/// error says what the request was still waiting for, if that is known. If a permission is missing, the error also
/// suggests how to grant it.
async fn with_request_timeout<T, E>(
    name: &LockName,
    lock: &dyn Lock,
    request: impl Future<Output = Result<T, E>>,
) -> Result<T>
where
    anyhow::Error: From<E>,
{
    let timeout_error = |_| {
        let pending = lock.waiting_for().map(|pending| format!(", still waiting for {pending}")).unwrap_or_default();
        anyhow!("cannot access {name}: timed out after {}{pending}", format_duration(REQUEST_TIMEOUT))
    };
    let failure = match timeout(REQUEST_TIMEOUT, request).await.map_err(timeout_error)? {
        Ok(result) => return Ok(result),
        Err(failure) => anyhow::Error::from(failure),
    };
    let refused_by_rbac = failure.downcast_ref::<LockError>().is_some_and(|refusal| refusal.role.is_some());
    Err(if refused_by_rbac {
        anyhow!("{failure}; leaderrun manifest --lock {name} prints a Role that allows it")
    } else {
        failure
    })
}

/// The format of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OutputFormat {
    Text,
    Json,
}

/// The text for stdout, and the exit status.
#[derive(Debug)]
pub struct CommandOutput {
    pub text: String,
    pub status: u8,
}

impl CommandOutput {
    /// Creates an output that consists of one sentence.
    fn sentence(sentence: &str, status: u8) -> Self {
        Self { text: on_one_line(sentence) + "\n", status }
    }

    /// Returns an empty output, for a subcommand that has already printed its results.
    fn nothing() -> Self {
        Self { text: String::new(), status: 0 }
    }
}

/// Runs a subcommand.
///
/// # Errors
/// Fails if the subcommand cannot be carried out.
pub fn run(subcommand: Subcommand) -> Result<CommandOutput> {
    match subcommand {
        Subcommand::Status(request) if request.watch => block_on(Box::pin(status::watch(request))),
        Subcommand::Status(request) => block_on(Box::pin(status::status(request))),
        Subcommand::List(request) => block_on(Box::pin(list::list(request))),
        Subcommand::Manifest(request) => block_on(Box::pin(manifest::manifest(request))),
        Subcommand::StepDown(target, wait) => block_on(Box::pin(step_down::step_down(target, wait))),
        Subcommand::Release(target, observe) => block_on(Box::pin(release::release(target, observe))),
        Subcommand::Doctor(request) => block_on(Box::pin(doctor::doctor(*request))),
        Subcommand::Check(min_remaining) => check::check(min_remaining),
    }
}

/// Runs the future of a subcommand. The parameter is a trait object, so that this function is compiled only once.
fn block_on(future: Pin<Box<dyn Future<Output = Result<CommandOutput>> + '_>>) -> Result<CommandOutput> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the async runtime")?;
    let result = runtime.block_on(future);
    // Dropping the runtime would wait for blocking calls, such as a name lookup, which may never return.
    runtime.shutdown_background();
    tree::kill_helpers();
    result
}
