//! `metadata.managedFields`, which names the client that last set each field.
//!
//! Objects of real servers have this field, so clients must cope with it.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::metadata::text;
use super::resources::Resource;

/// Metadata that no client manages.
const UNMANAGED_METADATA: [&str; 8] = [
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "managedFields",
    "name",
    "namespace",
    "resourceVersion",
    "uid",
];

/// Maps whose keys the client chooses. In a [`FieldSet`], the key `.` stands for the map itself.
const CLIENT_KEYED_MAPS: [&str; 4] = ["annotations", "binaryData", "data", "labels"];

/// Records `manager` for every field in which `object` differs from `before`.
pub fn update(resource: &Resource, before: Option<&Value>, object: &mut Value, manager: &str) {
    let mut entries =
        before.and_then(|before| before["metadata"]["managedFields"].as_array().cloned()).unwrap_or_default();
    let old = before.map(fields_of).unwrap_or_default();
    let new = fields_of(object);
    if old != new || before.is_none() {
        let changed = changed_fields(&old, &new);
        for entry in &mut entries {
            // All entries lose the fields that were removed or changed. This manager gets the changed ones below.
            remove_changed(fields_mut(entry), &changed, &new);
        }
        let belongs_to_manager = |entry: &Value| entry["manager"] == manager && entry["operation"] == "Update";
        let index = entries.iter().position(belongs_to_manager).unwrap_or(entries.len());
        if index == entries.len() {
            entries.push(json!({ "manager": manager, "operation": "Update", "fieldsV1": {} }));
        }
        let entry = &mut entries[index];
        entry["apiVersion"] = resource.api_version().into();
        entry["time"] = format!("{:.0}", Timestamp::now()).into();
        entry["fieldsType"] = "FieldsV1".into();
        join(fields_mut(entry), &changed);
        entries.retain_mut(|entry| !fields_mut(entry).is_empty());
        let order = |entry: &Value| ["time", "manager"].map(|field| text(&entry[field]).to_owned());
        entries.sort_by_key(order);
    }
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("managedFields");
        if !entries.is_empty() {
            metadata.insert("managedFields".to_owned(), entries.into());
        }
    }
}

type Object = Map<String, Value>;

/// A set of fields in the format FieldsV1, for example `{"f:spec": {"f:ports": {}}}`.
type FieldSet = Map<String, Value>;

fn fields_mut(entry: &mut Value) -> &mut FieldSet {
    if !entry["fieldsV1"].is_object() {
        entry["fieldsV1"] = json!({});
    }
    entry["fieldsV1"].as_object_mut().expect("anything else has been replaced by an object")
}

/// Returns an object without the fields that managedFields does not track, such as its kind, name and status.
fn fields_of(object: &Value) -> Object {
    let mut fields = object.as_object().cloned().unwrap_or_default();
    fields.remove("apiVersion");
    fields.remove("kind");
    fields.remove("status");
    if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|name, _| !UNMANAGED_METADATA.contains(&name.as_str()));
    }
    fields
}

/// Returns the fields of `new` that are missing from `old` or have a different value there. A list counts as one value.
fn changed_fields(old: &Object, new: &Object) -> FieldSet {
    let mut set = FieldSet::new();
    for (name, value) in new {
        let key = format!("f:{name}");
        match (old.get(name), value) {
            (Some(old), new) if old == new => {}
            (old, Value::Object(new)) if !new.is_empty() => {
                let empty = Object::new();
                let mut inner = changed_fields(old.and_then(Value::as_object).unwrap_or(&empty), new);
                if old.is_none() && CLIENT_KEYED_MAPS.contains(&name.as_str()) {
                    inner.insert(".".to_owned(), json!({}));
                }
                if !inner.is_empty() {
                    set.insert(key, inner.into());
                }
            }
            (_, Value::Object(_)) if matches!(name.as_str(), "metadata" | "spec") => {}
            _ => drop(set.insert(key, json!({}))),
        }
    }
    set
}

/// Removes from `set` the fields that are in `changed`, and the fields that `object` no longer has.
fn remove_changed(set: &mut FieldSet, changed: &FieldSet, object: &Object) {
    set.retain(|key, inner| {
        if key == "." {
            return true;
        }
        let Some(value) = object.get(key.trim_start_matches("f:")) else {
            return false;
        };
        let empty = Map::new();
        match (inner.as_object_mut(), changed.get(key)) {
            (Some(inner), change) if !inner.is_empty() => {
                let change = change.and_then(Value::as_object).unwrap_or(&empty);
                remove_changed(inner, change, value.as_object().unwrap_or(&empty));
                !inner.is_empty()
            }
            (_, change) => change.is_none(),
        }
    });
}

/// Adds the fields of `other` to `set`.
fn join(set: &mut FieldSet, other: &FieldSet) {
    for (key, inner) in other {
        let own = set.entry(key).or_insert_with(|| json!({}));
        if let (Some(own), Some(inner)) = (own.as_object_mut(), inner.as_object()) {
            join(own, inner);
        }
    }
}
