//! The initial objects of a cluster: namespaces, and some of the default ClusterRoles with their bindings.

use serde_json::{Value, json};

use super::decode::UnknownFields;
use super::objects::Objects;
use super::resources;
use super::store::Store;

/// Creates the initial objects in an empty store.
pub fn fill(store: &Store) {
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        create(store, "", "namespaces", &json!({ "metadata": { "name": name } }));
    }
    let rules = json!([
        { "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] },
        { "nonResourceURLs": ["*"], "verbs": ["*"] },
    ]);
    create_role_for_group(store, "cluster-admin", "system:masters", &rules);
    let paths = [
        "/api",
        "/api/*",
        "/apis",
        "/apis/*",
        "/healthz",
        "/livez",
        "/openapi",
        "/openapi/*",
        "/readyz",
        "/version",
        "/version/",
    ];
    let rules = json!([{ "nonResourceURLs": paths, "verbs": ["get"] }]);
    create_role_for_group(store, "system:discovery", "system:authenticated", &rules);
    let rules = json!([{
        "apiGroups": ["authorization.k8s.io"],
        "resources": ["selfsubjectaccessreviews"],
        "verbs": ["create"],
    }]);
    create_role_for_group(store, "system:basic-user", "system:authenticated", &rules);
}

fn create_role_for_group(store: &Store, name: &str, group: &str, rules: &Value) {
    const RBAC: &str = "rbac.authorization.k8s.io";
    let metadata = json!({ "name": name, "labels": { "kubernetes.io/bootstrapping": "rbac-defaults" } });
    let role = json!({ "metadata": metadata, "rules": rules });
    create(store, RBAC, "clusterroles", &role);
    let binding = json!({
        "metadata": metadata,
        "roleRef": { "apiGroup": RBAC, "kind": "ClusterRole", "name": name },
        "subjects": [{ "apiGroup": RBAC, "kind": "Group", "name": group }],
    });
    create(store, RBAC, "clusterrolebindings", &binding);
}

fn create(store: &Store, group: &str, resource: &str, object: &Value) {
    let objects = Objects {
        store,
        resource: resources::find(group, "v1", resource).expect("this server has the resource"),
        namespace: "",
        manager: "kube-apiserver",
        unknown_fields: UnknownFields::Refuse,
        dry_run: false,
    };
    objects.create(object.clone()).expect("the initial objects are valid");
}
