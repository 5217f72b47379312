//! The log event about Kubernetes Events.

use crate::telemetry::log_event::log_events;

log_events! {
    /// Logged when a Kubernetes Event could not be written. The Event is dropped.
    debug event_not_written(; reason: &str) "the Event was not written: {reason}";
}
