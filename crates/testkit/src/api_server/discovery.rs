//! Discovery, OpenAPI, version and health: the paths that are not resources.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::handler::{Response, json_response, text_response};
use super::resources::{ACCESS_REVIEW, RESOURCES, Resource};

/// The Kubernetes version that this server reports. Its responses were compared with those of a real server of this
/// version.
const VERSION: &str = "v1.36.2";

/// Returns the response to a request for a path that is not a resource, or `None` if the path does not exist.
pub fn respond(path: &str) -> Option<Response> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let document = match parts.as_slice() {
        ["readyz" | "livez" | "healthz"] => return Some(text_response(200, "ok")),
        ["version"] => version(),
        ["api"] => {
            json!({ "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [] })
        }
        ["apis"] => {
            let groups: Vec<Value> = groups().into_iter().map(group).collect();
            json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
        }
        ["apis", name] if groups().contains(name) => {
            let mut group = group(name);
            group["kind"] = "APIGroup".into();
            group["apiVersion"] = "v1".into();
            group
        }
        ["api", "v1"] => resource_list("", "v1"),
        ["apis", name, "v1"] if groups().contains(name) => resource_list(name, &format!("{name}/v1")),
        ["openapi", "v3"] => openapi_index(),
        ["openapi", "v3", "api", "v1"] => openapi(""),
        ["openapi", "v3", "apis", name, "v1"] if groups().contains(name) => openapi(name),
        _ => return None,
    };
    Some(json_response(200, &document))
}

fn version() -> Value {
    json!({
        "major": "1",
        "minor": "36",
        "gitVersion": VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "",
        "platform": "linux/amd64",
    })
}

fn groups() -> BTreeSet<&'static str> {
    let groups = all_resources().map(|resource| resource.group);
    groups.filter(|group| !group.is_empty()).collect()
}

fn group(name: &str) -> Value {
    let version = json!({ "groupVersion": format!("{name}/v1"), "version": "v1" });
    json!({ "name": name, "versions": [version], "preferredVersion": version })
}

fn resource_list(group: &str, group_version: &str) -> Value {
    let resources: Vec<Value> = all_resources()
        .filter(|resource| resource.group == group)
        .map(|resource| {
            let verbs = if resource.plural == ACCESS_REVIEW.plural {
                json!(["create"])
            } else {
                json!(["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"])
            };
            json!({
                "name": resource.plural,
                "singularName": resource.singular,
                "namespaced": resource.namespaced,
                "kind": resource.kind,
                "verbs": verbs,
                "shortNames": resource.short_names,
            })
        })
        .collect();
    json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version,
        "resources": resources,
    })
}

/// Returns the index of the OpenAPI documents, one for each group.
fn openapi_index() -> Value {
    let groups = groups().into_iter().map(|name| format!("apis/{name}/v1"));
    let paths = groups.chain(["api/v1".to_owned()]).map(|path| {
        let location = json!({ "serverRelativeURL": format!("/openapi/v3/{path}") });
        (path, location)
    });
    json!({ "paths": Map::from_iter(paths) })
}

/// Returns an OpenAPI document with only the parts that make clients like `kubectl edit` leave validation to the
/// server.
fn openapi(group: &str) -> Value {
    let root = if group.is_empty() { "/api/v1".to_owned() } else { format!("/apis/{group}/v1") };
    let field_validation = json!({ "name": "fieldValidation", "in": "query", "schema": { "type": "string" } });
    let paths = all_resources().filter(|resource| resource.group == group).map(|resource| {
        let namespace = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
        let patch = json!({
            "parameters": [field_validation],
            "responses": {},
            "x-kubernetes-action": "patch",
            "x-kubernetes-group-version-kind": { "group": group, "version": "v1", "kind": resource.kind },
        });
        (format!("{root}{namespace}/{}/{{name}}", resource.plural), json!({ "patch": patch }))
    });
    json!({
        "openapi": "3.0.0",
        "info": { "title": "Kubernetes", "version": VERSION },
        "paths": Map::from_iter(paths),
    })
}

fn all_resources() -> impl Iterator<Item = &'static Resource> {
    RESOURCES.iter().chain([&ACCESS_REVIEW])
}
