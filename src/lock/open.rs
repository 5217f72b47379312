//! From the name of a lock to the lock.

use std::time::Duration;

use anyhow::{Result, anyhow};
use leaderrun_core::record::RunId;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::kubernetes::{Cluster, ClusterOptions};
use super::{BothLocks, FileLock, Lock, LockName, ObjectLock, ObjectName};
use crate::telemetry::log::printable_cause;

/// How long a file system may take to show a file before it counts as gone.
pub const OPEN: Duration = Duration::from_secs(10);

/// The lock itself, and its name with what was left out filled in. `attempt` is how long one request may
/// take, `run` whose writes are ours.
///
/// # Errors
/// When there is no way to it. Nothing is asked of an API server yet.
pub async fn open(
    name: LockName,
    cluster: ClusterOptions,
    attempt: Duration,
    run: &RunId,
) -> Result<(Box<dyn Lock>, LockName)> {
    match name {
        LockName::Objects { kind, namespace, name } => {
            let cluster = Cluster::from_options(cluster, attempt).await?;
            let namespace = namespace.unwrap_or_else(|| cluster.default_namespace().to_owned());
            let object = |resource| ObjectName { resource, namespace: namespace.clone(), name: name.clone() };
            let lock: Box<dyn Lock> = match kind.resources() {
                (only, None) => Box::new(ObjectLock::new(cluster, object(only))),
                (first, Some(second)) => {
                    let first = ObjectLock::new(cluster.clone(), object(first));
                    let second = ObjectLock::new(cluster, object(second));
                    Box::new(BothLocks::new(first, second, run.clone()))
                }
            };
            Ok((lock, LockName::Objects { kind, namespace: Some(namespace), name }))
        }
        LockName::File(path) => {
            let opened = spawn_blocking({
                let path = path.clone();
                move || FileLock::new(&path, attempt)
            });
            let opened = timeout(OPEN, opened).await.map_err(|_| anyhow!("{} does not answer", path.display()))?;
            let lock = opened?.map_err(|reason| {
                let reason = printable_cause(&reason);
                anyhow!("--lock file:{}: {reason}; file:/run/job.lease would do", path.display())
            })?;
            Ok((Box::new(lock), LockName::File(path)))
        }
    }
}
