//! The `Status` responses of the API server, most of them errors, with the messages of a real server.

use std::fmt::Display;

use kube::core::Status;
use kube::core::response::{StatusCause, StatusDetails, reason};
use serde_json::{Value, json};

use super::resources::Resource;

/// A result whose error is a `Status`, which is boxed because it is large and rare.
pub type Result<T> = std::result::Result<T, Box<Status>>;

/// Returns a `Status` as JSON.
pub fn to_json(status: &Status) -> Value {
    let mut json = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {} });
    if let (Some(json), Ok(Value::Object(fields))) = (json.as_object_mut(), serde_json::to_value(status)) {
        json.extend(fields);
    }
    json
}

/// Returns the success status for an object that was deleted.
pub fn deleted(resource: &Resource, object: &Value) -> Box<Status> {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    let mut status = about_object(Box::new(Status::success()), resource, &text("name"));
    if let Some(details) = &mut status.details {
        details.uid = text("uid");
    }
    status
}

/// Returns status 400, for a request that is malformed or contradicts itself.
pub fn bad_request(message: impl Display) -> Box<Status> {
    failure(400, reason::BAD_REQUEST, message)
}

/// Returns status 401, for a request without a valid token or client certificate.
pub fn unauthorized() -> Box<Status> {
    failure(401, reason::UNAUTHORIZED, "Unauthorized")
}

/// Returns status 403, for an operation that is not allowed. `why` is the reason.
pub fn forbidden(group: &str, resource: &str, name: &str, why: impl Display) -> Box<Status> {
    let qualified = qualified(group, resource);
    let message = match (qualified.as_str(), name) {
        ("", _) => format!("forbidden: {why}"),
        (_, "") => format!("{qualified} is forbidden: {why}"),
        _ => format!("{qualified} {name:?} is forbidden: {why}"),
    };
    with_details(failure(403, reason::FORBIDDEN, message), group, resource, name)
}

/// Returns status 404, for an object that does not exist.
pub fn not_found(resource: &Resource, name: &str) -> Box<Status> {
    let message = format!("{} {name:?} not found", resource.qualified());
    about_object(failure(404, reason::NOT_FOUND, message), resource, name)
}

/// Returns status 409, for an object that exists already.
pub fn already_exists(resource: &Resource, name: &str) -> Box<Status> {
    let message = format!("{} {name:?} already exists", resource.qualified());
    about_object(failure(409, reason::ALREADY_EXISTS, message), resource, name)
}

/// Returns status 409, for an object that does not have the version or uid that the request expects.
pub fn conflict(resource: &Resource, name: &str, why: impl Display) -> Box<Status> {
    let qualified = resource.qualified();
    let message = format!("Operation cannot be fulfilled on {qualified} {name:?}: {why}");
    about_object(failure(409, reason::CONFLICT, message), resource, name)
}

/// Returns status 409, for a deletion whose preconditions are not met. It names the kind, unlike other conflicts, which
/// name the resource.
pub fn delete_conflict(resource: &Resource, name: &str, why: impl Display) -> Box<Status> {
    let qualified = qualified(resource.group, resource.kind);
    let message = format!("Operation cannot be fulfilled on {qualified} {name:?}: {why}");
    with_details(failure(409, reason::CONFLICT, message), resource.group, resource.kind, name)
}

/// Returns status 500 with the reason Unknown, for errors for which a real server gives no other reason.
pub fn internal(message: impl Display) -> Box<Status> {
    failure(500, reason::UNKNOWN, message)
}

/// Returns status 410, for a version that has left the watch cache.
pub fn expired(message: impl Display) -> Box<Status> {
    failure(410, reason::EXPIRED, message)
}

/// Returns status 415, for a content type that is not supported.
pub fn unsupported_media_type() -> Box<Status> {
    nameless(415, reason::UNSUPPORTED_MEDIA_TYPE, "415: Unsupported Media Type")
}

/// Returns status 404, for a resource that does not exist in its group.
pub fn no_such_resource() -> Box<Status> {
    nameless(404, reason::NOT_FOUND, "the server could not find the requested resource")
}

/// Returns status 405, for a method that the path does not support.
pub fn method_not_allowed() -> Box<Status> {
    let message = "the server does not allow this method on the requested resource";
    nameless(405, reason::METHOD_NOT_ALLOWED, message)
}

/// Returns status 422, for a JSON patch that cannot be applied.
pub fn unprocessable() -> Box<Status> {
    nameless(422, reason::INVALID, "the server rejected our request due to an error in our request")
}

/// Returns status 422, for query parameters that contradict each other.
pub fn invalid_list_options(error: FieldError) -> Box<Status> {
    invalid_object("meta.k8s.io", "ListOptions", "", &[error])
}

/// Returns status 500, for a resourceVersion that is not a number.
pub fn not_a_version(text: &str) -> Box<Status> {
    internal(format_args!("strconv.ParseUint: parsing {text:?}: invalid syntax"))
}

/// Returns status 504, for a read at a version that the store has not reached.
pub fn too_large_version(wanted: u64, current: u64) -> Box<Status> {
    let message = format!("Timeout: Too large resource version: {wanted}, current: {current}");
    let mut status = failure(504, reason::TIMEOUT, message);
    status.details = Some(StatusDetails {
        causes: vec![StatusCause {
            reason: "ResourceVersionTooLarge".to_owned(),
            message: "Too large resource version".to_owned(),
            field: String::new(),
        }],
        retry_after_seconds: 1,
        ..no_details()
    });
    status
}

/// An error in a field of an object.
#[derive(Clone, Debug)]
pub struct FieldError {
    cause: &'static str,
    field: String,
    message: String,
}

impl FieldError {
    /// Returns the error for a value that is not valid.
    pub fn invalid(field: impl Into<String>, value: impl Into<Value>, detail: impl Display) -> Self {
        FieldError {
            cause: "FieldValueInvalid",
            field: field.into(),
            message: format!("Invalid value: {}: {detail}", value.into()),
        }
    }

    /// Returns the error for a value that must not change.
    pub fn immutable(field: impl Into<String>, value: impl Into<Value>) -> Self {
        FieldError::invalid(field, value, "field is immutable")
    }

    /// Returns the error for a value that is missing.
    pub fn required(field: impl Into<String>, detail: &str) -> Self {
        FieldError { cause: "FieldValueRequired", field: field.into(), message: with_detail("Required value", detail) }
    }

    /// Returns the error for a value that is not allowed in this field.
    pub fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        FieldError { cause: "FieldValueForbidden", field: field.into(), message: with_detail("Forbidden", detail) }
    }

    /// Returns the error for a value that is too long.
    pub fn too_long(field: impl Into<String>, detail: impl Display) -> Self {
        FieldError { cause: "FieldValueTooLong", field: field.into(), message: format!("Too long: {detail}") }
    }
}

/// Returns status 422, for an object that is not valid.
pub fn invalid(resource: &Resource, name: &str, errors: &[FieldError]) -> Box<Status> {
    // Errors in Events always name the core group, even for requests to events.k8s.io.
    let group = if resource.plural == "events" { "" } else { resource.group };
    invalid_object(group, resource.kind, name, errors)
}

/// Returns status 422, for an update without a version. A real server reports this error with the resource in place of
/// the kind.
pub fn version_required(resource: &Resource, name: &str) -> Box<Status> {
    let missing = FieldError::invalid("metadata.resourceVersion", 0, "must be specified for an update");
    invalid_object(resource.group, resource.plural, name, &[missing])
}

fn invalid_object(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Box<Status> {
    let messages: Vec<String> = errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect();
    let messages = match messages.as_slice() {
        [error] => error.clone(),
        errors => format!("[{}]", errors.join(", ")),
    };
    let message = format!("{} {name:?} is invalid: {messages}", qualified(group, kind));
    let mut status = with_details(failure(422, reason::INVALID, message), group, kind, name);
    if let Some(details) = &mut status.details {
        details.causes = errors
            .iter()
            .map(|error| StatusCause {
                reason: error.cause.to_owned(),
                message: error.message.clone(),
                field: error.field.clone(),
            })
            .collect();
    }
    status
}

fn failure(code: u16, reason: &str, message: impl Display) -> Box<Status> {
    Box::new(Status::failure(&message.to_string(), reason).with_code(code))
}

/// Returns an error that names no object.
fn nameless(code: u16, reason: &str, message: &str) -> Box<Status> {
    let mut status = failure(code, reason, message);
    status.details = Some(no_details());
    status
}

fn about_object(status: Box<Status>, resource: &Resource, name: &str) -> Box<Status> {
    with_details(status, resource.group, resource.plural, name)
}

fn with_details(mut status: Box<Status>, group: &str, kind: &str, name: &str) -> Box<Status> {
    status.details =
        Some(StatusDetails { name: name.to_owned(), group: group.to_owned(), kind: kind.to_owned(), ..no_details() });
    status
}

fn no_details() -> StatusDetails {
    StatusDetails {
        name: String::new(),
        group: String::new(),
        kind: String::new(),
        uid: String::new(),
        causes: Vec::new(),
        retry_after_seconds: 0,
    }
}

/// Returns a name with its group, for example `leases.coordination.k8s.io`, or just `pods` in the core group.
pub fn qualified(group: &str, name: &str) -> String {
    match group {
        "" => name.to_owned(),
        _ => format!("{name}.{group}"),
    }
}

fn with_detail(what: &str, detail: &str) -> String {
    match detail {
        "" => what.to_owned(),
        _ => format!("{what}: {detail}"),
    }
}
