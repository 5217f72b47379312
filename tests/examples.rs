//! The manifests in examples/ are valid for an API server.

use std::fs;

use serde_json::Value;
use testkit::Cluster;

const MANIFESTS: [&str; 4] = ["deployment", "migration", "service", "tick"];

fn example(name: &str) -> String {
    fs::read_to_string(format!("{}/examples/{name}", env!("CARGO_MANIFEST_DIR"))).expect("an example")
}

fn documents(name: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(&example(&format!("{name}.yaml"))).expect("YAML")
}

#[test]
fn an_api_server_takes_the_objects() {
    let (cluster, admin) = (Cluster::shared(), Cluster::shared().admin());
    let namespace = cluster.new_namespace();
    for document in MANIFESTS.into_iter().flat_map(documents) {
        let kind = document["kind"].as_str().expect("a kind").to_owned();
        let path = match &*kind {
            "Role" => format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles"),
            "RoleBinding" => format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings"),
            // Ours has none of these.
            "ServiceAccount" | "Service" | "Deployment" if !cluster.is_real() => continue,
            "ServiceAccount" => format!("/api/v1/namespaces/{namespace}/serviceaccounts"),
            "Service" => format!("/api/v1/namespaces/{namespace}/services"),
            "Deployment" => format!("/apis/apps/v1/namespaces/{namespace}/deployments"),
            other => panic!("what is a {other}?"),
        };
        let made = admin.create(&format!("{path}?fieldValidation=Strict"), &document);
        made.unwrap_or_else(|refusal| panic!("{kind}: {}", refusal.message));
    }
}
