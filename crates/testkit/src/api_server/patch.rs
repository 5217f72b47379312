//! The kinds of patches that this server applies: merge patch (RFC 7396) and JSON patch (RFC 6902).

use serde_json::{Map, Value};

/// Merges `patch` into `target`. Objects are merged field by field, `null` removes a field, and any other value
/// replaces the existing value.
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(fields) = target.as_object_mut() else {
        return;
    };
    for (name, value) in patch {
        if value.is_null() {
            fields.remove(name);
        } else {
            merge(fields.entry(name).or_insert(Value::Null), value);
        }
    }
}

/// Applies the operations of a JSON patch. Returns `None` if one of them fails or is unknown.
pub fn apply(mut target: Value, operations: &[Value]) -> Option<Value> {
    for operation in operations {
        let path = operation["path"].as_str()?;
        match operation["op"].as_str()? {
            "add" => add(&mut target, path, operation.get("value")?.clone())?,
            "replace" => *target.pointer_mut(path)? = operation.get("value")?.clone(),
            "remove" => drop(remove(&mut target, path)?),
            "test" if target.pointer(path) == operation.get("value") => {}
            "copy" => {
                let value = target.pointer(operation["from"].as_str()?)?.clone();
                add(&mut target, path, value)?;
            }
            "move" => {
                let value = remove(&mut target, operation["from"].as_str()?)?;
                add(&mut target, path, value)?;
            }
            _ => return None,
        }
    }
    Some(target)
}

fn add(target: &mut Value, path: &str, value: Value) -> Option<()> {
    if path.is_empty() {
        *target = value;
        return Some(());
    }
    let (parent, last) = parent(target, path)?;
    match parent {
        Value::Object(fields) => drop(fields.insert(last, value)),
        Value::Array(items) if last == "-" => items.push(value),
        Value::Array(items) => {
            let index = last.parse().ok().filter(|index| *index <= items.len())?;
            items.insert(index, value);
        }
        _ => return None,
    }
    Some(())
}

fn remove(target: &mut Value, path: &str) -> Option<Value> {
    let (parent, last) = parent(target, path)?;
    match parent {
        Value::Object(fields) => fields.remove(&last),
        Value::Array(items) => {
            let index = last.parse().ok().filter(|index| *index < items.len())?;
            Some(items.remove(index))
        }
        _ => None,
    }
}

fn parent<'a>(target: &'a mut Value, path: &str) -> Option<(&'a mut Value, String)> {
    let (parent, last) = path.rsplit_once('/')?;
    let last = last.replace("~1", "/").replace("~0", "~");
    Some((target.pointer_mut(parent)?, last))
}
