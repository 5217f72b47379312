//! The log events about the routing of traffic.

use crate::telemetry::log_event::log_events;

log_events! {
    /// Logged when traffic is routed to this leader.
    info routed(; sentence: &str) "{sentence}";

    /// Logged when traffic is no longer routed to this candidate.
    info unrouted(; routing: &str) "{routing} no longer routes to this candidate";

    /// Logged when this leader has removed the label that an earlier leader left on its pod.
    info cleaned_up(pod: &str; label: &str) "removed the label {label} from the pod {pod}";

    /// Logged when traffic cannot be routed as configured, or is not routed away in time. A failure that lasts is
    /// logged once, and leaderrun keeps trying until it exits or rejoins.
    warn routing_failed(; sentence: &str) "{sentence}";

    /// Logged when routing works again after it failed.
    info routing_recovered(; routing: &str) "requests for {routing} succeed again";
}
