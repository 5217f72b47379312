//! Opens the lock. This can take a long time, for example because of a credential plugin or a network file system.

use std::pin::pin;
use std::time::Duration;

use leaderrun_core::election::ElectionConfig;
use tokio::time::timeout;

use super::log_notices;
use crate::kubernetes::ClusterAccess;
use crate::lock::{self, Lock, LockConfig, LockName, SlotCount};

/// The slack that is added to [`lock::OPEN_TIMEOUT`], so that the timeouts of the individual steps expire first.
const OPEN_SLACK: Duration = Duration::from_secs(1);

/// The time after which leaderrun logs what it is waiting for while it opens a lock.
const SLOW_OPENING: Duration = Duration::from_secs(5);

/// Opens the lock, or the locks of all its slots, and also returns the lock's full name. Returns `None` if the lock is
/// still not open when `--wait` has passed. With `--wait 0s`, the limit is slightly more than [`lock::OPEN_TIMEOUT`]
/// instead.
///
/// # Errors
/// Fails if the lock cannot be used.
pub async fn open_lock(
    lock: LockConfig,
    access: &ClusterAccess,
    config: &ElectionConfig,
) -> anyhow::Result<Option<(Vec<Box<dyn Lock>>, LockName)>> {
    let lock_name = name_with_slots(&lock.name, lock.slots);
    let mut opening = pin!(lock::open_slots(lock, access, config.timing.request_timeout(), &config.run));
    // With `--wait 0s`, the candidate does not wait for another holder to release the lock, but opening the lock still
    // takes time.
    let limit = config.wait.map(|wait| if wait.is_zero() { lock::OPEN_TIMEOUT + OPEN_SLACK } else { wait });
    let logged_after = limit.map_or(SLOW_OPENING, |limit| limit.min(SLOW_OPENING));
    if let Ok(opened) = timeout(logged_after, &mut opening).await {
        return opened.map(Some);
    }
    match limit.map(|limit| limit - logged_after) {
        Some(Duration::ZERO) => Ok(None),
        remaining => {
            log_notices::request_failed(&lock_name, &still_opening(access), None, None);
            match remaining {
                None => opening.await.map(Some),
                Some(remaining) => timeout(remaining, opening).await.ok().transpose(),
            }
        }
    }
}

/// Returns a message that says what leaderrun is waiting for while it opens the lock.
pub fn still_opening(access: &ClusterAccess) -> String {
    let awaited = access.waiting_for().unwrap_or_else(|| "a response from the file system".to_owned());
    format!("still waiting for {awaited}")
}

/// Returns the lock's name, followed by the number of its slots if it has any, as log lines show it.
pub fn name_with_slots(name: &LockName, slots: Option<SlotCount>) -> String {
    slots.map_or_else(|| name.to_string(), |slots| format!("{name} ({slots} slots)"))
}
