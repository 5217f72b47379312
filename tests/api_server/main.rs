//! Tests of the API server behavior that leaderrun and its tests rely on, and of the fault proxy. By default, they run
//! against the in-process API server. If `KUBEBUILDER_ASSETS` is set, all tests except those that configure the
//! in-process server run against a real kube-apiserver.

automod::dir!("tests/api_server");

use std::time::Duration;

use serde_json::{Value, json};

use testkit::{
    Client, Cluster, TIMEOUT,
    client::{JSON, Response},
};

fn main() -> std::process::ExitCode {
    testkit::harness!().run()
}

/// How long a test waits before it concludes that nothing happens.
const QUIET_TIME: Duration = Duration::from_millis(400);

/// A namespace that only one test uses, with an administrator's client. The methods that are named after resources
/// return paths.
struct Namespace {
    name: String,
    admin: Client,
}

impl Namespace {
    fn new() -> Namespace {
        Namespace::on(Cluster::shared())
    }

    fn on(cluster: &Cluster) -> Namespace {
        Namespace { name: cluster.new_namespace(), admin: cluster.admin() }
    }

    fn leases(&self) -> String {
        format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", self.name)
    }

    fn lease(&self, name: &str) -> String {
        format!("{}/{name}", self.leases())
    }

    fn configmaps(&self) -> String {
        format!("/api/v1/namespaces/{}/configmaps", self.name)
    }

    fn configmap(&self, name: &str) -> String {
        format!("{}/{name}", self.configmaps())
    }

    /// Creates a Lease with this holder by a PUT, which is refused if the Lease exists.
    fn put(&self, name: &str, holder: &str) -> Value {
        self.admin.replace(&self.lease(name), &held_by(name, holder)).expect("the Lease can be created")
    }

    /// Changes the holder of an existing Lease.
    fn set_holder(&self, name: &str, holder: &str) -> Value {
        let patch = json!({ "spec": { "holderIdentity": holder } });
        self.admin.merge_patch(&self.lease(name), &patch).expect("the Lease can be changed")
    }
}

/// Returns a Lease with this name and this holder.
fn held_by(name: &str, holder: &str) -> Value {
    json!({ "metadata": { "name": name }, "spec": { "holderIdentity": holder, "leaseDurationSeconds": 15 } })
}

/// Sends a PUT and returns the response, even if it is an error.
fn put(client: &Client, path: &str, object: &Value) -> Response {
    client.send(hyper::Method::PUT, path, Some((JSON, object)), TIMEOUT).expect("the server responds")
}

/// Returns the resourceVersion of an object as a number.
fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"]
        .as_str()
        .expect("an object has a version")
        .parse()
        .expect("the version is a number")
}

/// Returns a copy of an object without this metadata field.
fn without_metadata_field(object: &Value, field: &str) -> Value {
    let mut object = object.clone();
    object["metadata"].as_object_mut().expect("an object has metadata").remove(field);
    object
}
