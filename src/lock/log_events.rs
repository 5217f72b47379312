//! The log events of locks in a cluster.

use crate::telemetry::log_event::log_events;

log_events! {
    /// Logged when leaderrun has found the owner of the lock's objects that is given by `--owner`.
    detail owner(lock: &str, owner: &str) "{owner} is the owner of {lock}";

    /// Logged when the lock's objects do not get the owner that `--owner` asks for. The lock works without it.
    warn owner_not_set(lock: &str; reason: &str) "{lock} has no owner: {reason}";
}
