//! Authorization by Roles and ClusterRoles, and by the bindings that grant them to users and groups.

use std::sync::Arc;

use kube::core::Status;
use serde_json::Value;

use super::authentication::Identity;
use super::metadata::text;
use super::request::{Access, Target};
use super::status::{self, Result};
use super::store::{Key, Store};

/// Refuses a request that is not allowed.
pub fn authorize(store: &Store, identity: &Identity, target: &Target) -> Result<()> {
    match reason_to_allow(store, identity, target) {
        Some(_) => Ok(()),
        None => Err(forbidden(identity, target)),
    }
}

/// Returns status 403, with the real server's message, for a request that is not allowed.
pub fn forbidden(identity: &Identity, target: &Target) -> Box<Status> {
    let user = &identity.name;
    match target {
        Target::Path { verb, path } => {
            status::forbidden("", "", "", format_args!("User {user:?} cannot {verb} path {path:?}"))
        }
        Target::Resource(access) => {
            let Access { verb, group, namespace, resource, name, .. } = access;
            let place = match namespace.as_str() {
                "" => "at the cluster scope".to_owned(),
                _ => format!("in the namespace {namespace:?}"),
            };
            let full = access.full_resource();
            let why = format!("User {user:?} cannot {verb} resource {full:?} in API group {group:?} {place}");
            status::forbidden(group, resource, name, why)
        }
    }
}

/// Returns whether a user may do everything, regardless of the Roles.
pub fn is_administrator(identity: &Identity) -> bool {
    identity.groups.iter().any(|group| group == "system:masters")
}

/// Returns the reason why a request is allowed, or `None` if it is not allowed. The reason is empty for administrators.
pub fn reason_to_allow(store: &Store, identity: &Identity, target: &Target) -> Option<String> {
    if is_administrator(identity) {
        return Some(String::new());
    }
    let (cluster_bindings, _) = store.list("clusterrolebindings", None);
    let mut bindings = cluster_bindings;
    if let Target::Resource(access) = target
        && !access.namespace.is_empty()
    {
        bindings.extend(store.list("rolebindings", Some(&access.namespace)).0);
    }
    bindings.iter().find_map(|binding| {
        let subject = describe_matching_subject(binding, identity)?;
        let role = role_of(store, binding)?;
        let mut rules = role["rules"].as_array()?.iter();
        rules.find(|rule| covers(rule, target))?;
        Some(describe_grant(binding, &subject))
    })
}

/// Describes the first subject of a binding that matches this identity, if there is one.
fn describe_matching_subject(binding: &Value, identity: &Identity) -> Option<String> {
    let subjects = binding["subjects"].as_array()?;
    subjects.iter().find_map(|subject| {
        let name = text(&subject["name"]);
        match text(&subject["kind"]) {
            "User" if name == identity.name => Some(format!("User {name:?}")),
            "Group" if identity.groups.iter().any(|group| group == name) => Some(format!("Group {name:?}")),
            "ServiceAccount" => {
                let namespace = text(&subject["namespace"]);
                let full = format!("system:serviceaccount:{namespace}:{name}");
                (full == identity.name).then(|| format!("ServiceAccount \"{name}/{namespace}\""))
            }
            _ => None,
        }
    })
}

fn role_of(store: &Store, binding: &Value) -> Option<Arc<Value>> {
    let (collection, namespace) = match text(&binding["roleRef"]["kind"]) {
        "ClusterRole" => ("clusterroles", ""),
        "Role" => ("roles", text(&binding["metadata"]["namespace"])),
        _ => return None,
    };
    store.get(&Key { collection, namespace: namespace.to_owned(), name: text(&binding["roleRef"]["name"]).to_owned() })
}

fn covers(rule: &Value, target: &Target) -> bool {
    let lists = |field: &str, wanted: &str| {
        let items = rule[field].as_array().into_iter().flatten();
        items.into_iter().any(|item| item == "*" || item == wanted)
    };
    match target {
        Target::Path { verb, path } => {
            let paths = rule["nonResourceURLs"].as_array().into_iter().flatten();
            lists("verbs", verb)
                && paths.into_iter().any(|pattern| match text(pattern).strip_suffix('*') {
                    Some(prefix) => path.starts_with(prefix),
                    None => path == text(pattern),
                })
        }
        Target::Resource(access) => {
            let any_with_subresource = format!("*/{}", access.subresource);
            let names = rule["resourceNames"].as_array().filter(|names| !names.is_empty());
            lists("verbs", &access.verb)
                && lists("apiGroups", &access.group)
                && (lists("resources", &access.full_resource())
                    || (!access.subresource.is_empty() && lists("resources", &any_with_subresource)))
                && names.is_none_or(|names| names.iter().any(|name| *name == access.name.as_str()))
        }
    }
}

fn describe_grant(binding: &Value, subject: &str) -> String {
    let name = text(&binding["metadata"]["name"]);
    let kind = text(&binding["kind"]);
    let binding_name = match text(&binding["metadata"]["namespace"]) {
        "" => name.to_owned(),
        namespace => format!("{name}/{namespace}"),
    };
    let role_kind = text(&binding["roleRef"]["kind"]);
    let role = text(&binding["roleRef"]["name"]);
    format!("RBAC: allowed by {kind} {binding_name:?} of {role_kind} {role:?} to {subject}")
}
