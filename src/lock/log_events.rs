//! The events that a lock in a cluster logs by itself.

use crate::telemetry::log_event::log_events;

log_events! {
    /// Logged when the owner of the lock's objects is known, by `--owner`.
    detail owner(lock: &str, owner: &str) "{owner} is the owner of {lock}";

    /// Logged when the lock's objects do not get the owner that `--owner` asks for. The lock works without it.
    warn owner_not_set(lock: &str; reason: &str) "{lock} has no owner: {reason}";
}
