//! What leaderrun does with a lock besides running a command.

mod check;
mod doctor;
mod manifest;
mod status;
mod step_down;

use std::pin::Pin;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use humantime::format_duration;
use leaderrun_core::record::RunId;
use leaderrun_core::timing::Timing;
use tokio::time::timeout;

use crate::kubernetes::ClusterOptions;
use crate::lock::{self, Lock, LockError, LockName};
use crate::routing::RoutingTarget;

/// How long the API server, or a file, may take to answer a question.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the way to a lock may take to find: a credential plugin may ask somebody.
const OPENING: Duration = Duration::from_secs(60);

/// What to do.
#[derive(Debug)]
pub enum Subcommand {
    /// Show who holds the lock.
    Status(Place, Output),
    /// Print what a cluster has to know before a candidate may run in it, for this service account.
    Manifest(LockName, Option<String>, Option<RoutingTarget>),
    /// Ask the holder of the lock to hand it over.
    StepDown(Place),
    /// Check what running a command under the lock will need.
    Doctor(Place, Timing, Option<RoutingTarget>),
    /// Say by the status whether the run that this process belongs to holds the lock for at least this long.
    Check(Duration),
}

/// A lock, and how to get there.
#[derive(Debug)]
pub struct Place {
    pub lock: LockName,
    pub cluster: ClusterOptions,
}

impl Place {
    /// The lock, for questions: it is not to be held by it. And its name with what was left out filled in.
    async fn open(self) -> Result<(Box<dyn Lock>, LockName)> {
        let late = |_| anyhow!("the kubeconfig's credential plugin takes longer than {}", format_duration(OPENING));
        timeout(OPENING, lock::open(self.lock, self.cluster, PATIENCE, &RunId::new(""))).await.map_err(late)?
    }
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
        true => anyhow!("{failure}; leaderrun manifest --lock {lock} prints a Role that would do"),
        false => failure,
    })
}

/// How an answer looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    #[default]
    Text,
    Json,
}

impl FromStr for Output {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("it is shown as text or json; json would do".into()),
        }
    }
}

/// What is said on stdout, and the exit status.
#[derive(Debug)]
pub struct CommandOutput {
    pub text: String,
    pub status: u8,
}

/// Runs a subcommand.
///
/// # Errors
/// When it cannot be done.
pub fn run(subcommand: Subcommand) -> Result<CommandOutput> {
    match subcommand {
        Subcommand::Status(place, output) => wait_for(Box::pin(status::status(place, output))),
        Subcommand::Manifest(lock, service_account, target) => {
            manifest::manifest(&lock, service_account.as_deref(), target.as_ref())
        }
        Subcommand::StepDown(place) => wait_for(Box::pin(step_down::step_down(place))),
        Subcommand::Doctor(place, timing, target) => {
            wait_for(Box::pin(doctor::doctor(place, &timing, target.as_ref())))
        }
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
    answer
}
