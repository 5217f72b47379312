//! From the name of a lock to the lock.

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

/// How long a file system may take to show a file before it counts as gone.
pub const OPEN: Duration = Duration::from_secs(10);

/// Opens the lock of that name. Returns it with its full name: the namespace is filled in where it was left out.
/// `attempt` is how long one request may take, `run` whose writes are ours.
///
/// # Errors
/// When the lock cannot be reached by what is known so far. Nothing is asked of an API server yet.
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

/// Opens the locks of all slots, or the lock itself if it has none; see [`open`]. They share what the API server is
/// asked by, so that one request at a time is to be sent to all of them.
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
    let opened = timeout(OPEN, opened).await.map_err(|_| anyhow!("{} does not answer", path.display()))?;
    opened?.map_err(|failure| {
        // What a file system refuses says itself what to do.
        let remedy = if failure.is::<LockError>() { "" } else { "; for example file:/run/job.lease" };
        anyhow!("--lock file:{}: {}{remedy}", path.display(), printable_cause(&failure))
    })
}
