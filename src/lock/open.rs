//! From the name of a lock to the lock.

use std::time::Duration;

use anyhow::{Result, anyhow};
use leaderrun_core::record::RunId;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::{FileLock, Lock, LockName, ObjectLock, TwoObjectLock};
use crate::kubernetes::{Cluster, ClusterOptions};
use crate::telemetry::log::printable_cause;

/// How long a file system may take to show a file before it counts as gone.
pub const OPEN: Duration = Duration::from_secs(10);

/// Opens the lock of that name. Returns it with its full name: the namespace is filled in where it was left out.
/// `attempt` is how long one request may take, `run` whose writes are ours.
///
/// # Errors
/// When the lock cannot be reached by what is known so far. Nothing is asked of an API server yet.
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
            let object = |format| ObjectLock::new(&cluster, format, &namespace, &name);
            let lock: Box<dyn Lock> = match kind.formats() {
                (only, None) => Box::new(object(only)),
                (first, Some(second)) => {
                    let [first, second]: [Box<dyn Lock>; 2] =
                        [first, second].map(|format| Box::new(object(format)) as _);
                    Box::new(TwoObjectLock::new(first, second, run.clone(), attempt))
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
