//! Locks for tests, and the RBAC rules that permit their use.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::{Cluster, scratch};

/// A lock that no other test uses. Its objects have the name `job`.
#[derive(Clone)]
pub struct TestLock {
    /// The value for `--lock`.
    pub name: String,
    /// The value for `--kubeconfig`; `None` for a lock file.
    pub kubeconfig: Option<PathBuf>,
}

impl TestLock {
    /// Returns a Lease in a new namespace of the shared API server. The Lease itself does not exist yet.
    pub fn lease() -> Self {
        Self::lease_through(Cluster::shared().kubeconfig())
    }

    /// Like [`TestLock::lease`], but with a lock of this kind, for example `configmap`.
    pub fn of_kind(kind: &str) -> Self {
        let lease = Self::lease();
        Self { name: format!("{kind}:{}", lease.name), ..lease }
    }

    /// Like [`TestLock::lease`], but reached through this kubeconfig, for example that of a proxy.
    pub fn lease_through(kubeconfig: PathBuf) -> Self {
        Self { name: format!("{}/job", Cluster::shared().new_namespace()), kubeconfig: Some(kubeconfig) }
    }

    /// Like [`TestLock::lease`], but with a kubeconfig of the user `candidate`, who has only these verbs on the Lease.
    pub fn lease_with_verbs(verbs: &[&str]) -> Self {
        let lock = Self::lease_through(Cluster::shared().kubeconfig_for("candidate"));
        let rules = json!([rbac_rule("leases", &["job"], verbs)]);
        Cluster::shared().set_permissions(lock.namespace(), "candidate", rules);
        lock
    }

    /// Returns a lock file in a new directory.
    pub fn file() -> Self {
        let path = scratch::directory("lock").join("job.lease");
        Self { name: format!("file:{}", path.display()), kubeconfig: None }
    }

    /// Returns the same lock, reached through another kubeconfig.
    pub fn through(&self, kubeconfig: PathBuf) -> Self {
        Self { kubeconfig: Some(kubeconfig), ..self.clone() }
    }

    /// Returns the path of the Lease on the API server.
    pub fn lease_path(&self) -> String {
        format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases/job", self.namespace())
    }

    /// Returns the path of the object on the API server, for a resource of the core group such as `configmaps`.
    pub fn object_path(&self, plural: &str) -> String {
        format!("/api/v1/namespaces/{}/{plural}/job", self.namespace())
    }

    pub fn namespace(&self) -> &str {
        let (_, name) = self.name.split_once(':').unwrap_or(("", &self.name));
        name.split('/').next().expect("`split` returns at least one part")
    }
}

/// The verbs that a candidate needs on the objects of its lock.
pub const CANDIDATE_VERBS: [&str; 4] = ["get", "create", "update", "watch"];

/// Returns the rule of a Role that allows `verbs` on the objects with these names.
pub fn rbac_rule(plural: &str, names: &[&str], verbs: &[&str]) -> Value {
    let group = if plural == "leases" { "coordination.k8s.io" } else { "" };
    json!({ "apiGroups": [group], "resources": [plural], "resourceNames": names, "verbs": verbs })
}
