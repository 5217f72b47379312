//! Tests of Events, which two API groups serve.

use serde_json::{Value, json};

use super::Namespace;

fn event(namespace: &Namespace) -> Value {
    json!({
        "metadata": { "name": "acquired" },
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "leaderrun",
        "reportingInstance": "host-1",
        "action": "Acquire",
        "reason": "LeaderElection",
        "type": "Normal",
        "note": "host-1 became leader",
        "regarding": { "kind": "Lease", "namespace": namespace.name, "name": "job" },
    })
}

/// Returns the path of the Events in the API group at `group_path`, which is `api` for the core group.
fn path(namespace: &Namespace, group_path: &str) -> String {
    format!("/{group_path}/v1/namespaces/{}/events", namespace.name)
}

#[testkit::test]
fn an_event_that_is_created_in_one_group_can_be_read_in_the_other() {
    let namespace = Namespace::new();
    namespace
        .admin
        .create(&path(&namespace, "apis/events.k8s.io"), &event(&namespace))
        .expect("the Event can be created");
    let read = namespace.admin.get(&format!("{}/acquired", path(&namespace, "api"))).expect("the Event exists");
    assert_eq!((&read["apiVersion"], &read["message"]), (&json!("v1"), &json!("host-1 became leader")));
    assert_eq!(read["involvedObject"]["name"], "job");
    assert_eq!(read["reportingComponent"], "leaderrun");
    let events_about_job =
        namespace.admin.get(&format!("{}?fieldSelector=involvedObject.name%3Djob", path(&namespace, "api")));
    assert_eq!(events_about_job.expect("the list can be read")["items"].as_array().expect("a list has items").len(), 1);
}

#[testkit::test]
fn the_group_events_k8s_io_refuses_incomplete_and_invalid_events() {
    let namespace = Namespace::new();
    let complete = event(&namespace);
    for (field, value, expected) in [
        ("eventTime", Value::Null, "eventTime"),
        ("reportingController", json!("two words"), "reportingController"),
        ("reportingInstance", Value::Null, "reportingInstance"),
        ("action", Value::Null, "action"),
        ("reason", json!("r".repeat(129)), "reason"),
        ("type", json!("Odd"), "type"),
        ("note", json!("n".repeat(1025)), "message"),
        ("series", json!({ "count": 1, "lastObservedTime": "2026-01-01T00:00:00.000000Z" }), "series.count"),
        ("deprecatedCount", json!(1), "count"),
        ("regarding", json!({ "kind": "Lease", "name": "job" }), "involvedObject.namespace"),
    ] {
        let mut event = complete.clone();
        event[field] = value;
        let refused = namespace.admin.create(&path(&namespace, "apis/events.k8s.io"), &event).unwrap_err();
        assert_eq!((refused.code, refused.reason.as_str()), (422, "Invalid"), "{field}");
        let causes = &refused.details.as_ref().expect("the refusal has details").causes;
        assert!(causes.iter().any(|cause| cause.field == expected), "{field}: {causes:?}");
    }
}

#[testkit::test]
fn the_series_of_an_event_can_be_changed_but_not_its_note() {
    let namespace = Namespace::new();
    let events = path(&namespace, "apis/events.k8s.io");
    let created = namespace.admin.create(&events, &event(&namespace)).expect("the Event can be created");
    let mut other = created.clone();
    other["note"] = "something else".into();
    let refused = namespace.admin.replace(&format!("{events}/acquired"), &other).unwrap_err();
    assert!(refused.message.contains("message: Invalid value: \"something else\": field is immutable"));
    let mut repeated = created;
    repeated["series"] = json!({ "count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z" });
    namespace.admin.replace(&format!("{events}/acquired"), &repeated).expect("the Event can be updated");
}
