//! The log events of locks in a cluster.

use crate::telemetry::log_event::log_events;

log_events! {
    /// Logged when leaderrun has found the owner that `--owner` names.
    detail owner(lock: &str, owner: &str) "{owner} is the owner of {lock}";

    /// Logged when leaderrun cannot set the owner that `--owner` names. The lock works without an owner.
    warn owner_not_set(lock: &str; reason: &str) "{lock} has no owner: {reason}";
}
