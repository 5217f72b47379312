//! Events. Two API groups serve the same Events with different field names. They are stored in the form of core/v1.

use serde_json::Value;

use super::metadata::text;
use super::names;
use super::resources::{EVENTS_GROUP, Resource};
use super::status::FieldError;

/// The fields whose names differ: their names in core/v1 and in events.k8s.io/v1.
const FIELD_NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("count", "deprecatedCount"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("source", "deprecatedSource"),
];

/// Converts an object of the API group of `resource` to its stored form.
pub fn to_stored(resource: &Resource, object: Value) -> Value {
    if resource.group != EVENTS_GROUP {
        return object;
    }
    rename(object, "v1", |(core, events)| (events, core))
}

/// Converts a stored object to the API group of `resource`.
pub fn from_stored(resource: &Resource, object: Value) -> Value {
    if resource.group != EVENTS_GROUP {
        return object;
    }
    rename(object, &resource.api_version(), |(core, events)| (core, events))
}

fn rename(
    mut object: Value,
    api_version: &str,
    direction: impl Fn((&'static str, &'static str)) -> (&'static str, &'static str),
) -> Value {
    if let Some(fields) = object.as_object_mut() {
        for (from, to) in FIELD_NAMES.map(direction) {
            if let Some(value) = fields.remove(from) {
                fields.insert(to.to_owned(), value);
            }
        }
        fields.insert("apiVersion".to_owned(), api_version.into());
    }
    object
}

/// Returns the errors in an Event in stored form. The rules depend on the API group of `resource`, to which the client
/// sent the Event.
///
/// In both groups, an Event with an `eventTime` must also name its reporter, an action and a reason.
/// events.k8s.io/v1 also requires new Events to have an `eventTime`, and lets clients change only the series and the
/// metadata of existing Events.
pub fn errors(resource: &Resource, before: Option<&Value>, event: &Value) -> Vec<FieldError> {
    let mut errors: Vec<FieldError> = namespace_error(event).into_iter().collect();
    if event["eventTime"].is_string() {
        errors.extend(timed_event_errors(event));
    }
    if resource.group == EVENTS_GROUP {
        errors.extend(series_errors(before, event));
        errors.extend(match before {
            None => creation_errors(event),
            Some(before) => immutability_errors(before, event),
        });
    }
    errors
}

fn namespace_error(event: &Value) -> Option<FieldError> {
    let own_namespace = text(&event["metadata"]["namespace"]);
    let object_namespace = text(&event["involvedObject"]["namespace"]);
    let is_allowed = match (event["eventTime"].is_string(), object_namespace) {
        (false, "") => own_namespace == "default",
        (true, "") => matches!(own_namespace, "default" | "kube-system"),
        (false, object_namespace) => object_namespace == own_namespace,
        (true, _) => true,
    };
    (!is_allowed)
        .then(|| FieldError::invalid("involvedObject.namespace", object_namespace, "does not match event.namespace"))
}

/// Returns the errors in an Event that has an `eventTime`. They name the fields as Kubernetes' internal type does.
fn timed_event_errors(event: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let controller = text(&event["reportingComponent"]);
    if controller.is_empty() {
        errors.push(FieldError::required("reportingController", ""));
    }
    let problems = names::key_errors(controller);
    errors.extend(problems.iter().map(|problem| FieldError::invalid("reportingController", controller, problem)));
    for (field, required, limit) in
        [("reportingInstance", true, 128), ("action", true, 128), ("reason", true, 128), ("message", false, 1024)]
    {
        let value = text(&event[field]);
        if required && value.is_empty() {
            errors.push(FieldError::required(field, ""));
        }
        if value.len() > limit {
            errors.push(FieldError::invalid(field, "", format_args!("can have at most {limit} characters")));
        }
    }
    errors
}

fn series_errors(before: Option<&Value>, event: &Value) -> Vec<FieldError> {
    let series = &event["series"];
    if series.is_null() || before.is_some_and(|before| before["series"] == *series) {
        return Vec::new();
    }
    let mut errors = Vec::new();
    if series["count"].as_i64().unwrap_or_default() < 2 {
        errors.push(FieldError::invalid("series.count", "", "should be at least 2"));
    }
    if !series["lastObservedTime"].is_string() {
        errors.push(FieldError::required("series.lastObservedTime", ""));
    }
    errors
}

/// Returns the errors in an Event that is created through events.k8s.io/v1.
fn creation_errors(event: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if !event["eventTime"].is_string() {
        errors.push(FieldError::required("eventTime", ""));
    }
    let event_type = text(&event["type"]);
    if !matches!(event_type, "Normal" | "Warning") {
        errors.push(FieldError::invalid("type", "", format_args!("has invalid value: {event_type}")));
    }
    let deprecated = ["firstTimestamp", "lastTimestamp", "count", "source"].into_iter();
    let set_fields = deprecated.filter(|field| !event[*field].is_null());
    errors.extend(set_fields.map(|field| FieldError::invalid(field, "", "needs to be unset")));
    errors
}

/// Returns an error for each immutable field that an update through events.k8s.io/v1 changes.
fn immutability_errors(before: &Value, event: &Value) -> Vec<FieldError> {
    const IMMUTABLE_FIELDS: [&str; 13] = [
        "involvedObject",
        "reason",
        "message",
        "source",
        "firstTimestamp",
        "lastTimestamp",
        "count",
        "type",
        "eventTime",
        "action",
        "related",
        "reportingComponent",
        "reportingInstance",
    ];
    let changed = IMMUTABLE_FIELDS.into_iter().filter(|field| before[*field] != event[*field]);
    changed.map(|field| FieldError::immutable(field, event[field].clone())).collect()
}
