//! Opens the lock with a given name.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use leaderrun_core::record::RunId;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::object::RightsOfSlots;
use super::{FileLock, Lock, LockError, LockName, ObjectLock, SlotCount, TwoObjectLock};
use crate::kubernetes::{Cluster, ClusterAccess};
use crate::telemetry::log::printable_cause;

/// The timeout for opening a lock file, after which its file system is considered unavailable.
pub const OPEN: Duration = Duration::from_secs(10);

/// Opens the lock with this name. Returns it with its full name, which includes the namespace. `attempt` is the timeout
/// of one request, and `run` identifies our own writes.
///
/// # Errors
/// Fails if the lock cannot be used. It does not send a request to an API server yet.
pub async fn open(
    name: LockName,
    access: &ClusterAccess,
    attempt: Duration,
    run: &RunId,
) -> Result<(Box<dyn Lock>, LockName)> {
    let (locks, name) = open_slots(name, None, access, attempt, run).await?;
    let lock = locks.into_iter().next().context("a lock without slots is one lock")?;
    Ok((lock, name))
}

/// Opens the locks of all slots, or the lock itself if it has none; see [`open`]. They share one client, so that only
/// one request at a time may be sent to all of them.
pub async fn open_slots(
    name: LockName,
    slots: Option<SlotCount>,
    access: &ClusterAccess,
    attempt: Duration,
    run: &RunId,
) -> Result<(Vec<Box<dyn Lock>>, LockName)> {
    match name {
        LockName::Objects { kind, namespace, name } => {
            let cluster = Cluster::open(access, attempt).await?;
            let namespace = namespace.unwrap_or_else(|| cluster.default_namespace().to_owned());
            let full_name = LockName::Objects { kind, namespace: Some(namespace.clone()), name: name.clone() };
            let names: Vec<String> = match slots {
                None => vec![name.clone()],
                Some(slots) => slots.numbers().map(|number| format!("{name}-{number}")).collect(),
            };
            let rights = Arc::new(RightsOfSlots { lock: name, objects: names.clone() });
            let open = |name: &String| -> Box<dyn Lock> {
                let object = |format| ObjectLock::new(&cluster, format, &namespace, name, Arc::clone(&rights));
                match kind.formats() {
                    (only, None) => Box::new(object(only)),
                    (first, Some(second)) => {
                        let [first, second]: [Box<dyn Lock>; 2] =
                            [first, second].map(|format| Box::new(object(format)) as _);
                        Box::new(TwoObjectLock::new(first, second, run.clone(), attempt))
                    }
                }
            };
            Ok((names.iter().map(open).collect(), full_name))
        }
        LockName::File(_) => {
            let mut locks: Vec<Box<dyn Lock>> = Vec::new();
            for slot in name.in_slots(slots) {
                let LockName::File(path) = slot else { continue };
                locks.push(Box::new(open_file(path, attempt).await?));
            }
            Ok((locks, name))
        }
    }
}

async fn open_file(path: PathBuf, attempt: Duration) -> Result<FileLock> {
    let opened = spawn_blocking({
        let path = path.clone();
        move || FileLock::new(&path, attempt)
    });
    let opened = timeout(OPEN, opened)
        .await
        .map_err(|_| anyhow!("timed out opening {}: its file system does not respond", path.display()))?;
    opened?.map_err(|failure| {
        // The errors of a file system contain a suggestion already.
        let remedy = if failure.is::<LockError>() { "" } else { "; for example file:/run/job.lease" };
        anyhow!("--lock file:{}: {}{remedy}", path.display(), printable_cause(&failure))
    })
}
