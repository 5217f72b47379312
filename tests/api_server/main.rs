//! What leaderrun relies on in an API server, asserted against ours or, where `KUBEBUILDER_ASSETS` names
//! one, against the real kube-apiserver; and that the fault proxy does what it says.

automod::dir!("tests/api_server");

use std::time::Duration;

use serde_json::{Value, json};

use testkit::{
    Client, Cluster, TIMEOUT,
    client::{JSON, Reply},
};

fn main() -> std::process::ExitCode {
    testkit::harness!().run()
}

/// Long enough for something to happen that must not.
const A_WHILE: Duration = Duration::from_millis(400);

/// A namespace that only one test knows of, with the administrator's hand in it.
struct Place {
    namespace: String,
    admin: Client,
}

impl Place {
    fn new() -> Place {
        Place::on(Cluster::shared())
    }

    fn on(cluster: &Cluster) -> Place {
        Place { namespace: cluster.new_namespace(), admin: cluster.admin() }
    }

    fn leases(&self) -> String {
        format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", self.namespace)
    }

    fn lease(&self, name: &str) -> String {
        format!("{}/{name}", self.leases())
    }

    fn configmap(&self, name: &str) -> String {
        format!("/api/v1/namespaces/{}/configmaps/{name}", self.namespace)
    }

    /// Puts a Lease that this holder has.
    fn put(&self, name: &str, holder: &str) -> Value {
        self.admin.replace(&self.lease(name), &held_by(name, holder)).expect("a new Lease")
    }

    /// Makes another the holder of a Lease that is there.
    fn give(&self, name: &str, holder: &str) -> Value {
        let patch = json!({ "spec": { "holderIdentity": holder } });
        self.admin.merge_patch(&self.lease(name), &patch).expect("the Lease, changed")
    }
}

fn held_by(name: &str, holder: &str) -> Value {
    json!({ "metadata": { "name": name }, "spec": { "holderIdentity": holder, "leaseDurationSeconds": 15 } })
}

fn put(client: &Client, path: &str, object: &Value) -> Reply {
    client.send(hyper::Method::PUT, path, Some((JSON, object)), TIMEOUT).expect("a reply")
}

/// The version of an object as a number.
fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().expect("a version").parse().expect("a decimal version")
}

fn without(object: &Value, field: &str) -> Value {
    let mut object = object.clone();
    object["metadata"].as_object_mut().expect("metadata").remove(field);
    object
}
