//! Sets the metadata that the server controls, and checks that an object's metadata agrees with the request.

use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::resources::Resource;
use super::status::{self, Result};

/// Returns the text of a field, or an empty string if the field is not a string.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

pub fn name(object: &Value) -> String {
    text(&object["metadata"]["name"]).to_owned()
}

pub fn has_finalizers(object: &Value) -> bool {
    let finalizers = object["metadata"]["finalizers"].as_array();
    finalizers.is_some_and(|finalizers| !finalizers.is_empty())
}

pub fn is_being_deleted(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

/// Marks an object as being deleted. It exists until its finalizers are removed.
pub fn mark_deleted(object: &mut Value) {
    object["metadata"]["deletionTimestamp"] = now().into();
    object["metadata"]["deletionGracePeriodSeconds"] = 0.into();
}

/// Sets the namespace of an object to that of the request, or removes it if `namespace` is empty. Refuses an object
/// that names another namespace.
pub fn set_namespace(object: &mut Value, namespace: &str) -> Result<()> {
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    let metadata = &mut object["metadata"];
    match text(&metadata["namespace"]) {
        _ if namespace.is_empty() => remove(metadata, "namespace"),
        existing if existing == namespace => {}
        "" => metadata["namespace"] = namespace.into(),
        _ => {
            return Err(status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
    }
    Ok(())
}

/// Refuses an object whose name differs from the name in the path.
pub fn check_name(object: &Value, wanted: &str) -> Result<()> {
    match text(&object["metadata"]["name"]) {
        name if name == wanted => Ok(()),
        "" => Err(status::bad_request(format_args!(
            "the name of the object ({wanted} based on URL) was undeterminable: name must be provided"
        ))),
        name => Err(status::bad_request(format_args!(
            "the name of the object ({name}) does not match the name on the URL ({wanted})"
        ))),
    }
}

/// Generates a name for an object that has a `generateName` but no name.
pub fn generate_name(object: &mut Value) {
    const CHARACTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let metadata = &mut object["metadata"];
    let prefix = text(&metadata["generateName"]);
    if prefix.is_empty() || !text(&metadata["name"]).is_empty() {
        return;
    }
    let mut name = prefix.to_owned();
    for _ in 0..5 {
        name.push(char::from(CHARACTERS[fastrand::usize(..CHARACTERS.len())]));
    }
    metadata["name"] = name.into();
}

/// Sets the uid and the creation time of a new object, removes other metadata that only the server sets, and fills in
/// what the server adds to a new namespace or pod.
pub fn initialize(resource: &Resource, object: &mut Value) {
    let name = name(object);
    let metadata = &mut object["metadata"];
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "managedFields"] {
        remove(metadata, field);
    }
    metadata["uid"] = Uuid::new_v4().to_string().into();
    metadata["creationTimestamp"] = now().into();
    match resource.plural {
        "namespaces" => {
            metadata["labels"]["kubernetes.io/metadata.name"] = name.into();
            object["spec"] = json!({ "finalizers": ["kubernetes"] });
            object["status"] = json!({ "phase": "Active" });
        }
        "pods" => object["status"] = json!({ "phase": "Pending" }),
        _ => {}
    }
}

/// Copies from the previous object the metadata that an update cannot change or did not include.
pub fn carry_over(before: &Value, object: &mut Value) {
    if text(&object["metadata"]["uid"]).is_empty() {
        object["metadata"]["uid"] = before["metadata"]["uid"].clone();
    }
    for field in
        ["creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "resourceVersion"]
    {
        match &before["metadata"][field] {
            Value::Null => remove(&mut object["metadata"], field),
            value => object["metadata"][field] = value.clone(),
        }
    }
}

/// Refuses a write that contains a uid if the existing object, `before`, has another uid or does not exist. An empty
/// `uid` means that the write contains none.
pub fn check_uid(resource: &Resource, name: &str, namespace: &str, uid: &str, before: Option<&Value>) -> Result<()> {
    let actual = before.map_or("", |before| text(&before["metadata"]["uid"]));
    if uid.is_empty() || uid == actual {
        return Ok(());
    }
    // The message contains the key under which a real server stores the object. The key of an Endpoints object has a
    // directory that differs from the name of the resource.
    let directory = match resource.plural {
        "endpoints" => "services/endpoints",
        other => other,
    };
    let key = format!("/registry/{directory}/{namespace}/{name}");
    Err(status::conflict(
        resource,
        name,
        format_args!(
            "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: \
             Precondition failed: UID in precondition: {uid}, UID in object meta: {actual}"
        ),
    ))
}

/// Refuses a deletion if the object does not meet its `preconditions` (from `DeleteOptions`).
pub fn check_preconditions(resource: &Resource, name: &str, preconditions: &Value, before: &Value) -> Result<()> {
    for (field, what, hint) in
        [("uid", "UID", "deleted and then recreated"), ("resourceVersion", "ResourceVersion", "modified")]
    {
        let (wanted, actual) = (&preconditions[field], &before["metadata"][field]);
        if wanted.is_string() && wanted != actual {
            let (wanted, actual) = (text(wanted), text(actual));
            return Err(status::delete_conflict(
                resource,
                name,
                format_args!(
                    "the {what} in the precondition ({wanted}) does not match the {what} in record ({actual}). \
                     The object might have been {hint}"
                ),
            ));
        }
    }
    Ok(())
}

fn remove(metadata: &mut Value, field: &str) {
    if let Some(metadata) = metadata.as_object_mut() {
        metadata.remove(field);
    }
}

/// Returns the current time in the format of metadata: whole seconds, UTC.
fn now() -> String {
    format!("{:.0}", Timestamp::now())
}
