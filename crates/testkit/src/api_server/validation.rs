//! Validates objects before they are stored.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use super::events;
use super::metadata::text;
use super::names;
use super::resources::Resource;
use super::status::FieldError;

const RBAC: &str = "rbac.authorization.k8s.io";

/// Returns the errors in an object, in its stored form, that is about to be created or to replace `before`.
pub fn errors(resource: &Resource, before: Option<&Value>, object: &Value) -> Vec<FieldError> {
    let mut errors = metadata_errors(resource, &object["metadata"]);
    if let Some(before) = before
        && before["metadata"]["uid"] != object["metadata"]["uid"]
    {
        errors.push(FieldError::immutable("metadata.uid", object["metadata"]["uid"].clone()));
    }
    errors.extend(match resource.plural {
        "leases" => lease_errors(&object["spec"]),
        "events" => events::errors(resource, before, object),
        "endpointslices" => endpoint_slice_errors(before, object),
        "services" => service_errors(&object["spec"]),
        "roles" | "clusterroles" => role_errors(object),
        "rolebindings" | "clusterrolebindings" => binding_errors(before, object),
        _ => Vec::new(),
    });
    errors
}

fn metadata_errors(resource: &Resource, metadata: &Value) -> Vec<FieldError> {
    let mut errors = name_errors(resource, metadata);
    for (key, value) in entries(&metadata["labels"]) {
        let labels = "metadata.labels";
        errors.extend(names::key_errors(key).iter().map(|why| FieldError::invalid(labels, key, why)));
        let reasons = names::label_value_errors(text(value));
        errors.extend(reasons.iter().map(|why| FieldError::invalid(labels, text(value), why)));
    }
    let mut size = 0;
    for (key, value) in entries(&metadata["annotations"]) {
        size += key.len() + text(value).len();
        let reasons = names::key_errors(&key.to_lowercase());
        errors.extend(reasons.iter().map(|why| FieldError::invalid("metadata.annotations", key, why)));
    }
    if size > ANNOTATIONS_LIMIT {
        let detail = format_args!("may not be more than {ANNOTATIONS_LIMIT} bytes");
        errors.push(FieldError::too_long("metadata.annotations", detail));
    }
    for owner in items(&metadata["ownerReferences"]) {
        for (field, why) in [
            ("apiVersion", "version must not be empty"),
            ("kind", "must not be empty"),
            ("name", "must not be empty"),
            ("uid", "must not be empty"),
        ] {
            if text(&owner[field]).is_empty() {
                errors.push(FieldError::invalid(format!("metadata.ownerReferences.{field}"), "", why));
            }
        }
    }
    for finalizer in items(&metadata["finalizers"]) {
        let reasons = names::key_errors(text(finalizer));
        errors.extend(reasons.iter().map(|why| FieldError::invalid("metadata.finalizers", text(finalizer), why)));
    }
    errors
}

/// The largest total size of an object's annotations, in bytes.
const ANNOTATIONS_LIMIT: usize = 256 * 1024;

fn name_errors(resource: &Resource, metadata: &Value) -> Vec<FieldError> {
    let rule = match resource.plural {
        "namespaces" => names::dns_label_errors,
        _ if resource.group == RBAC => names::path_segment_errors,
        _ => names::dns_subdomain_errors,
    };
    let mut errors = Vec::new();
    let (prefix, name) = (text(&metadata["generateName"]), text(&metadata["name"]));
    if !prefix.is_empty() {
        // The prefix may end in dashes, because the generated part follows. Here `a` stands for that part.
        let reasons = rule(&format!("{}a", prefix.trim_end_matches('-')));
        errors.extend(reasons.iter().map(|why| FieldError::invalid("metadata.generateName", prefix, why)));
    }
    if name.is_empty() {
        errors.push(FieldError::required("metadata.name", "name or generateName is required"));
    } else {
        errors.extend(rule(name).iter().map(|why| FieldError::invalid("metadata.name", name, why)));
    }
    errors
}

fn lease_errors(spec: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (field, minimum, why) in [
        ("leaseDurationSeconds", 1, "must be greater than 0"),
        ("leaseTransitions", 0, "must be greater than or equal to 0"),
    ] {
        if let Some(number) = spec[field].as_i64().filter(|number| *number < minimum) {
            errors.push(FieldError::invalid(format!("spec.{field}"), number, why));
        }
    }
    errors
}

fn endpoint_slice_errors(before: Option<&Value>, slice: &Value) -> Vec<FieldError> {
    let family = text(&slice["addressType"]);
    let mut errors = Vec::new();
    if family.is_empty() {
        errors.push(FieldError::required("addressType", ""));
    }
    if let Some(before) = before
        && before["addressType"] != slice["addressType"]
    {
        errors.push(FieldError::immutable("addressType", family));
    }
    for (number, endpoint) in items(&slice["endpoints"]).enumerate() {
        for (index, address) in items(&endpoint["addresses"]).enumerate() {
            let (field, address) = (format!("endpoints[{number}].addresses[{index}]"), text(address));
            let (is_valid, why) = match family {
                "IPv4" => (address.parse::<Ipv4Addr>().is_ok(), "must be an IPv4 address"),
                "IPv6" => (address.parse::<Ipv6Addr>().is_ok(), "must be an IPv6 address"),
                _ => (true, ""),
            };
            if !is_valid {
                errors.push(FieldError::invalid(field, address, why));
            }
        }
    }
    errors
}

fn service_errors(spec: &Value) -> Vec<FieldError> {
    let ports: Vec<&Value> = items(&spec["ports"]).collect();
    if ports.is_empty() && spec["clusterIP"] != "None" && spec["type"] != "ExternalName" {
        return vec![FieldError::required("spec.ports", "")];
    }
    if spec["ipFamilyPolicy"] == "SingleStack" && items(&spec["ipFamilies"]).count() > 1 {
        let why = "must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified";
        return vec![FieldError::invalid("spec.ipFamilyPolicy", "SingleStack", why)];
    }
    let unnamed = ports.iter().enumerate().filter(|(_, port)| ports.len() > 1 && text(&port["name"]).is_empty());
    unnamed.map(|(index, _)| FieldError::required(format!("spec.ports[{index}].name"), "")).collect()
}

fn role_errors(role: &Value) -> Vec<FieldError> {
    let without_verbs = items(&role["rules"]).enumerate().filter(|(_, rule)| items(&rule["verbs"]).next().is_none());
    let error = |index| FieldError::required(format!("rules[{index}].verbs"), "verbs must contain at least one value");
    without_verbs.map(|(index, _)| error(index)).collect()
}

fn binding_errors(before: Option<&Value>, binding: &Value) -> Vec<FieldError> {
    let new = &binding["roleRef"];
    let changed = before.is_some_and(|before| before["roleRef"] != *new);
    changed.then(|| FieldError::invalid("roleRef", new.clone(), "cannot change roleRef")).into_iter().collect()
}

fn entries(map: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let entries = map.as_object().into_iter().flatten();
    entries.map(|(key, value)| (key.as_str(), value))
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}
