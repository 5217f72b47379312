//! The record in an annotation of an Endpoints object or a ConfigMap, as older releases of client-go, fabric8's
//! kubernetes-client and the Python client write it.
//!
//! The libraries write JSON with different fields:
//!
//! - client-go writes `leaseDurationSeconds`, a number, and reads times with any number of fractional digits.
//! - fabric8 writes and requires `leaseDuration`, an ISO 8601 duration or a number of seconds. It requires times with
//!   six fractional digits, omits an empty holder, and rejects unknown fields.
//! - The Python client writes client-go's fields, but the duration as a string, and times as local times without an
//!   offset. It accepts client-go's formats.
//!
//! leaderrun reads all formats, and writes the duration in both fields. fabric8 rejects such a record, because it
//! contains client-go's field. Therefore, if the current record has only fabric8's field, leaderrun writes only that
//! field.

use std::fmt::Display;

use jiff::{SignedDuration, Timestamp};
use leaderrun_core::record::Record;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::object::RecordFormat;
use super::record_time;
use crate::kubernetes;

/// The annotation in which client-go and fabric8 store the record.
const LEADER_ANNOTATION: &str = "control-plane.alpha.kubernetes.io/leader";

/// The format of a record in an Endpoints object.
pub static ENDPOINTS: RecordFormat =
    RecordFormat { resource: &kubernetes::ENDPOINTS, is_in_metadata: true, is_lock, read, write };

/// The format of a record in a ConfigMap.
pub static CONFIGMAP: RecordFormat =
    RecordFormat { resource: &kubernetes::CONFIG_MAPS, is_in_metadata: true, is_lock, read, write };

/// The JSON document in the annotation.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Annotation {
    holder_identity: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_duration_seconds: Option<Seconds>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_duration: Option<Fabric8Duration>,
    acquire_time: Option<String>,
    renew_time: Option<String>,
    leader_transitions: i64,
}

/// The lease duration in the formats of client-go and the Python client.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Seconds {
    Number(i64),
    Text(String),
}

impl Seconds {
    /// Returns the number of seconds.
    fn number(&self) -> Result<i64, String> {
        match self {
            Self::Number(number) => Ok(*number),
            Self::Text(text) => text.parse().map_err(|_| format!("leaseDurationSeconds {text:?} is not a number")),
        }
    }
}

/// The lease duration in fabric8's formats.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Fabric8Duration {
    Iso(SignedDuration),
    Seconds(f64),
}

impl Fabric8Duration {
    /// Returns the duration in seconds, rounded up, so that it is not shorter than the holder's duration.
    fn seconds(&self) -> i64 {
        match self {
            Self::Iso(duration) => duration.as_secs().saturating_add(i64::from(duration.subsec_nanos() > 0)),
            Self::Seconds(seconds) => seconds.ceil() as i64,
        }
    }
}

fn is_lock(object: &Value) -> bool {
    object["metadata"]["annotations"][LEADER_ANNOTATION].is_string()
}

/// Parses the annotation; `None` if it is missing.
fn annotation(object: &Value) -> Result<Option<Annotation>, String> {
    let Some(text) = object["metadata"]["annotations"][LEADER_ANNOTATION].as_str() else { return Ok(None) };
    serde_json::from_str(text).map(Some).map_err(invalid)
}

/// Returns the error for an annotation that is not a valid record.
fn invalid(reason: impl Display) -> String {
    format!("its annotation {LEADER_ANNOTATION} is not a valid leader election record: {reason}")
}

fn read(object: &Value) -> Result<Record, String> {
    let Some(annotation) = annotation(object)? else { return Ok(Record::default()) };
    let fabric8 = annotation.lease_duration.map(|duration| duration.seconds());
    let client_go = annotation.lease_duration_seconds.map(|seconds| seconds.number()).transpose().map_err(invalid)?;
    let seconds = client_go.max(fabric8).filter(|seconds| *seconds > 0);
    // An invalid time is an error. If it were ignored, a renewal could look like the previous record.
    let time = |text: Option<String>| match text {
        None => Ok(None),
        Some(text) => record_time::parse(&text)
            .map(Some)
            .map_err(|failure| format!("its annotation {LEADER_ANNOTATION} has a time that cannot be read: {failure}")),
    };
    Ok(Record {
        holder_identity: annotation.holder_identity.unwrap_or_default(),
        lease_duration_seconds: seconds.map(|seconds| u32::try_from(seconds).unwrap_or(u32::MAX)),
        acquire_time: time(annotation.acquire_time)?,
        renew_time: time(annotation.renew_time)?,
        lease_transitions: annotation.leader_transitions.clamp(0, i32::MAX.into()) as u32,
        ..Record::default()
    })
}

fn write(object: &mut Value, record: &Record) {
    let time = |time: Option<Timestamp>| time.map(|time| format!("{time:.6}"));
    let seconds = record.lease_duration_seconds.map(i64::from);
    let current = annotation(object).ok().flatten();
    let is_written_by_fabric8 =
        current.is_some_and(|current| current.lease_duration.is_some() && current.lease_duration_seconds.is_none());
    let annotation = Annotation {
        holder_identity: Some(record.holder_identity.clone()),
        lease_duration_seconds: seconds.filter(|_| !is_written_by_fabric8).map(Seconds::Number),
        lease_duration: seconds.map(SignedDuration::from_secs).map(Fabric8Duration::Iso),
        acquire_time: time(record.acquire_time),
        renew_time: time(record.renew_time),
        leader_transitions: record.lease_transitions.into(),
    };
    let text = serde_json::to_string(&annotation).unwrap_or_default();
    object["metadata"]["annotations"][LEADER_ANNOTATION] = text.into();
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(annotation: Option<&str>) -> Value {
        match annotation {
            None => json!({ "metadata": { "name": "x" } }),
            Some(text) => json!({ "metadata": { "name": "x", "annotations": { LEADER_ANNOTATION: text } } }),
        }
    }

    /// Returns the annotation of an object, parsed as JSON.
    fn parsed(object: &Value) -> Value {
        let text = object["metadata"]["annotations"][LEADER_ANNOTATION].as_str().expect("the annotation is a string");
        serde_json::from_str(text).expect("the annotation is JSON")
    }

    fn written(record: &Record) -> Value {
        let mut object = object(None);
        write(&mut object, record);
        parsed(&object)
    }

    #[test]
    fn an_object_without_the_annotation_is_free() {
        assert!(!read(&object(None)).unwrap().is_held());
    }

    #[test]
    fn a_record_from_client_go_is_read() {
        let text = r#"{"holderIdentity":"a","leaseDurationSeconds":15,"acquireTime":"2026-01-02T03:04:05Z","renewTime":"2026-01-02T03:04:06Z","leaderTransitions":3}"#;
        let record = read(&object(Some(text))).unwrap();
        assert_eq!((record.holder_identity.as_str(), record.lease_duration_seconds), ("a", Some(15)));
        assert_eq!(record.renew_time, Some("2026-01-02T03:04:06Z".parse().unwrap()));
        assert_eq!(record.lease_transitions, 3);
    }

    #[test]
    fn a_record_from_the_python_client_is_read() {
        let text = r#"{"holderIdentity": "a", "leaseDurationSeconds": "6", "acquireTime": "2026-01-02 03:04:05.000001", "renewTime": "2026-01-02 03:04:06"}"#;
        let record = read(&object(Some(text))).unwrap();
        assert_eq!((record.is_held(), record.lease_duration_seconds), (true, Some(6)));
        assert_eq!(record.renew_time, Some("2026-01-02T03:04:06Z".parse().unwrap()));
    }

    #[test]
    fn a_record_from_fabric8_is_read() {
        let text = r#"{"holderIdentity":"a","leaseDuration":"PT15.5S","acquireTime":"2026-01-02T03:04:05.000001Z","renewTime":"2026-01-02T03:04:06.000002Z","leaderTransitions":3}"#;
        let record = read(&object(Some(text))).unwrap();
        assert_eq!(record.lease_duration_seconds, Some(16));
        assert_eq!(record.renew_time, Some("2026-01-02T03:04:06.000002Z".parse().unwrap()));
        let released = r#"{"leaseDuration":"PT1S","acquireTime":"2026-01-02T03:04:05.000001Z","renewTime":"2026-01-02T03:04:06.000002Z","leaderTransitions":3}"#;
        assert!(!read(&object(Some(released))).unwrap().is_held());
    }

    #[test]
    fn a_record_from_fabric8_is_written_back_without_the_duration_field_of_client_go() {
        for duration in [r#""PT15S""#, "15.000000000", "14.2"] {
            let mut object = object(Some(&format!(r#"{{"leaseDuration":{duration}}}"#)));
            let record = read(&object).unwrap();
            assert_eq!(record.lease_duration_seconds, Some(15));
            write(&mut object, &record);
            let written = parsed(&object);
            assert_eq!((&written["leaseDuration"], &written["leaseDurationSeconds"]), (&json!("PT15S"), &Value::Null));
        }
    }

    #[test]
    fn a_duration_that_is_too_long_is_limited_to_the_maximum() {
        for text in [r#"{"leaseDurationSeconds":9999999999}"#, r#"{"leaseDuration":1e300}"#] {
            assert_eq!(read(&object(Some(text))).unwrap().lease_duration_seconds, Some(u32::MAX));
        }
    }

    #[test]
    fn a_new_record_has_the_fields_of_client_go_and_of_fabric8() {
        let time = Some("2026-01-02T03:04:05Z".parse().unwrap());
        let record = Record {
            holder_identity: "a".into(),
            lease_duration_seconds: Some(15),
            acquire_time: time,
            renew_time: time,
            lease_transitions: 3,
            ..Record::default()
        };
        assert_eq!(
            written(&record),
            json!({
                "holderIdentity": "a",
                "leaseDurationSeconds": 15,
                "leaseDuration": "PT15S",
                "acquireTime": "2026-01-02T03:04:05.000000Z",
                "renewTime": "2026-01-02T03:04:05.000000Z",
                "leaderTransitions": 3,
            })
        );
    }

    #[test]
    fn an_annotation_that_is_not_a_record_is_an_error_and_not_a_free_lock() {
        for text in [
            "",
            "null,",
            "[1]",
            "{",
            r#"{"holderIdentity":7}"#,
            r#"{"leaseDurationSeconds":"soon"}"#,
            r#"{"renewTime":"1767323045"}"#,
        ] {
            assert!(read(&object(Some(text))).is_err(), "{text}");
        }
    }
}
