//! Opens the lock. This takes as long as the credentials and the file system take.

use std::pin::pin;
use std::time::Duration;

use leaderrun_core::election::ElectionConfig;
use tokio::time::timeout;

use super::log_notices;
use crate::kubernetes::ClusterAccess;
use crate::lock::{self, Lock, LockConfig, LockName, SlotCount};

/// How much longer than its own timeouts the opening of a lock may take, so that these timeouts come first.
const OPEN_SLACK: Duration = Duration::from_secs(1);

/// If the opening of the lock takes longer than this, what it waits for is logged.
const SLOW_OPENING: Duration = Duration::from_secs(5);

/// Opens the lock, or the locks of all its slots. It takes as long as necessary, unless the wait for the lock is
/// limited, and returns `None` at the end of that limit. If it takes long, it logs what it waits for.
///
/// # Errors
/// Fails if the lock cannot be used.
pub async fn open_lock(
    lock: LockConfig,
    access: &ClusterAccess,
    config: &ElectionConfig,
) -> anyhow::Result<Option<(Vec<Box<dyn Lock>>, LockName)>> {
    let lock_name = name_with_slots(&lock.name, lock.slots);
    let mut opening = pin!(lock::open_slots(lock, access, config.timing.attempt(), &config.run));
    // With `--wait 0s`, the candidate does not wait for a holder, but the lock still needs time to be opened.
    let limit = config.wait.map(|wait| if wait.is_zero() { lock::OPEN_TIMEOUT + OPEN_SLACK } else { wait });
    let quiet = limit.map_or(SLOW_OPENING, |limit| limit.min(SLOW_OPENING));
    if let Ok(opened) = timeout(quiet, &mut opening).await {
        return opened.map(Some);
    }
    match limit.map(|limit| limit - quiet) {
        Some(Duration::ZERO) => Ok(None),
        left => {
            log_notices::request_failed(&lock_name, &still_opening(access), None, None);
            match left {
                None => opening.await.map(Some),
                Some(left) => timeout(left, opening).await.ok().transpose(),
            }
        }
    }
}

/// Returns what the opening of a lock waits for.
pub fn still_opening(access: &ClusterAccess) -> String {
    format!("still waiting for {}", access.pending().unwrap_or_else(|| "an answer of the file system".to_owned()))
}

/// Returns the name of a lock for log lines about all its slots.
pub fn name_with_slots(name: &LockName, slots: Option<SlotCount>) -> String {
    slots.map_or_else(|| name.to_string(), |slots| format!("{name} ({slots} slots)"))
}
