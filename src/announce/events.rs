//! Events on the lock's objects, as client-go writes them, for `kubectl describe`. Best effort: one that
//! cannot be written is left out.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use tracing::debug;

use super::collection::{Collection, Resource};
use crate::lock::kubernetes::Cluster;
use crate::lock::{ObjectName, Rule};

pub const EVENTS: Resource = Resource { group: "", plural: "events" };

/// The program that an Event says it comes from.
const COMPONENT: &str = "leaderrun";

/// What a candidate needs to write them; it can do without.
pub fn rule(namespace: &str) -> Rule {
    EVENTS.rule(namespace, None, &["create"])
}

/// An object of the lock with its uid, about which Events are written.
pub type Subject = (ObjectName, String);

/// Writes an Event about each of the objects.
pub async fn write(cluster: &Cluster, subjects: Vec<Subject>, message: &str, patience: Duration) {
    for (ObjectName { resource, namespace, name }, uid) in subjects {
        let now = Timestamp::now();
        let event = json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": { "namespace": namespace, "name": format!("{name}.{:x}", now.as_nanosecond()) },
            "involvedObject": {
                "apiVersion": resource.api_version(),
                "kind": resource.kind,
                "namespace": namespace,
                "name": name,
                "uid": uid,
            },
            "type": "Normal",
            "reason": "LeaderElection",
            "message": message,
            "source": { "component": COMPONENT },
            "reportingComponent": COMPONENT,
            "reportingInstance": "",
            "firstTimestamp": format!("{now:.0}"),
            "lastTimestamp": format!("{now:.0}"),
            "count": 1,
        });
        let events = Collection::new(cluster, EVENTS, &namespace, patience);
        if let Err(refusal) = events.create(&event).await {
            debug!("no Event is written: {refusal}");
        }
    }
}
