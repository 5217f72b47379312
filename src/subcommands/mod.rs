//! What leaderrun does with a lock besides running a command.

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

/// How long the API server, or a file, may take to answer a question.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often a lock is read while something is waited for.
const READ_INTERVAL: Duration = Duration::from_millis(500);

/// How long it may take to open a lock: a credential plugin may wait for a person.
const OPEN_TIMEOUT: Duration = Duration::from_secs(60);

/// What to do.
#[derive(Debug)]
pub enum Subcommand {
    /// Show who holds the lock, or each of its slots.
    Status(StatusRequest),
    /// Show the locks of a namespace.
    List(ListRequest),
    /// Print what a cluster has to know before a candidate may run in it.
    Manifest(ManifestRequest),
    /// Ask the holder of the lock to release it.
    StepDown(LockTarget, Wait),
    /// Release the lock in place of its holder, which is dead, after watching for renewals for this long.
    Release(LockTarget, Option<Duration>),
    /// Check what running a command under the lock will need.
    Doctor(Box<DoctorRequest>),
    /// Say by the status whether the run that this process belongs to holds the lock for at least this long.
    Check(Duration),
}

/// A lock, and how to get there.
#[derive(Debug)]
pub struct LockTarget {
    pub lock: LockName,
    pub cluster: ClusterOptions,
}

/// Whose status to show, and how.
#[derive(Debug)]
pub struct StatusRequest {
    pub target: LockTarget,
    pub slots: Option<SlotCount>,
    pub output: Output,
    /// Also show each change.
    pub watch: bool,
}

/// What the manifest is for.
#[derive(Debug)]
pub struct ManifestRequest {
    pub target: LockTarget,
    pub slots: Option<SlotCount>,
    pub owner: Option<OwnerName>,
    pub service_account: Option<String>,
    pub routing: Option<RoutingTarget>,
    /// Also print what gives the requests for the lock priority.
    pub priority: bool,
}

/// What the doctor is to look at: a run.
#[derive(Debug)]
pub struct DoctorRequest {
    pub target: LockTarget,
    pub slots: Option<SlotCount>,
    pub owner: Option<OwnerConfig>,
    pub timing: Timing,
    pub traffic: Option<RoutingTarget>,
    pub routing: Option<Routing>,
    /// The run depends on what the wall clock reads, by `--min-hold` for example.
    pub uses_clock: bool,
    pub http: Option<HttpAddress>,
    /// Empty where none was given.
    pub command: Vec<OsString>,
}

impl LockTarget {
    /// Opens the lock for questions: it is not to be held by it. Also returns its name with what was left out filled in.
    async fn open(self) -> Result<(Box<dyn Lock>, LockName)> {
        let access = ClusterAccess::new(self.cluster);
        open(self.lock, &access).await
    }
}

/// Opens a lock for questions, by a way to the cluster that is used for others as well.
async fn open(lock: LockName, access: &ClusterAccess) -> Result<(Box<dyn Lock>, LockName)> {
    opened(access, lock::open(lock, access, PATIENCE, &RunId::new(""))).await
}

/// Opens the locks of all slots, or the lock itself if it has none, each with its name.
async fn open_slots(
    name: LockName,
    slots: Option<SlotCount>,
    access: &ClusterAccess,
) -> Result<Vec<(Box<dyn Lock>, LockName)>> {
    let config = LockConfig { name, slots, owner: None };
    let (locks, name) = opened(access, lock::open_slots(config, access, PATIENCE, &RunId::new(""))).await?;
    Ok(locks.into_iter().zip(name.in_slots(slots)).collect())
}

/// Warns that a lock without a record has slots, as far as the record of the first one says so: they are locks of
/// their own.
async fn hint_at_slots(lock: &LockName, access: &ClusterAccess) {
    let Ok((first, _)) = open(lock.in_slot(0), access).await else { return };
    let Ok(Ok(Some(stored))) = timeout(PATIENCE, first.get()).await else { return };
    let Some(slot) = stored.record.slot else { return };
    let count = slot.count;
    output::warn(&format!("{lock} has {count} slots; try leaderrun status --lock {lock} --slots {count}"));
}

/// Waits until something is open, but not for ever.
async fn opened<T>(access: &ClusterAccess, opening: impl Future<Output = Result<T>>) -> Result<T> {
    let late = |_| {
        let pending = access.pending().unwrap_or_else(|| "an answer of the file system".to_owned());
        anyhow!("still waiting for {pending} after {}", format_duration(OPEN_TIMEOUT))
    };
    timeout(OPEN_TIMEOUT, opening).await.map_err(late)?
}

/// Waits for what is asked about this lock, but not for ever.
async fn answered<T, E>(lock: &LockName, answer: impl Future<Output = Result<T, E>>) -> Result<T>
where
    anyhow::Error: From<E>,
{
    let late = |_| anyhow!("{lock} does not answer within {}", format_duration(PATIENCE));
    let failure = match timeout(PATIENCE, answer).await.map_err(late)? {
        Ok(answer) => return Ok(answer),
        Err(failure) => anyhow::Error::from(failure),
    };
    let lacks_role = failure.downcast_ref::<LockError>().is_some_and(|refusal| refusal.role.is_some());
    Err(match lacks_role {
        true => anyhow!("{failure}; leaderrun manifest --lock {lock} prints a Role that allows it"),
        false => failure,
    })
}

/// The format of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    Text,
    Json,
}

/// What is said on stdout, and the exit status.
#[derive(Debug)]
pub struct CommandOutput {
    pub text: String,
    pub status: u8,
}

impl CommandOutput {
    /// Returns the output of a subcommand that has said everything.
    fn nothing() -> Self {
        Self { text: String::new(), status: 0 }
    }
}

/// Runs a subcommand.
///
/// # Errors
/// When it cannot be done.
pub fn run(subcommand: Subcommand) -> Result<CommandOutput> {
    match subcommand {
        Subcommand::Status(request) if request.watch => wait_for(Box::pin(status::watch(request))),
        Subcommand::Status(request) => wait_for(Box::pin(status::status(request))),
        Subcommand::List(request) => wait_for(Box::pin(list::list(request))),
        Subcommand::Manifest(request) => wait_for(Box::pin(manifest::manifest(request))),
        Subcommand::StepDown(target, wait) => wait_for(Box::pin(step_down::step_down(target, wait))),
        Subcommand::Release(target, observe) => wait_for(Box::pin(release::release(target, observe))),
        Subcommand::Doctor(request) => wait_for(Box::pin(doctor::doctor(*request))),
        Subcommand::Check(min_remaining) => check::check(min_remaining),
    }
}

/// One for all, so that the runtime is compiled once for them.
fn wait_for(answer: Pin<Box<dyn Future<Output = Result<CommandOutput>> + '_>>) -> Result<CommandOutput> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot prepare for requests")?;
    let answer = runtime.block_on(answer);
    // Dropping it would wait for a file or a name lookup that may never come back.
    runtime.shutdown_background();
    tree::kill_helpers();
    answer
}
