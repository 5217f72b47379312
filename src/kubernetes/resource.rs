//! Kinds of API objects, and individual objects by their names.

use std::fmt;

/// A kind of API object in version `v1`, with its names in paths, Roles and objects.
#[derive(Debug, PartialEq, Eq)]
pub struct Resource {
    /// The API group; empty for the core group.
    pub group: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    /// Whether a PUT to the path of an object that does not exist creates it. If so, RBAC can restrict the permission
    /// to create objects to a single name.
    pub created_by_put: bool,
}

pub static LEASES: Resource =
    Resource { group: "coordination.k8s.io", kind: "Lease", plural: "leases", created_by_put: true };
pub static ENDPOINTS: Resource = Resource { group: "", kind: "Endpoints", plural: "endpoints", created_by_put: true };
pub static CONFIG_MAPS: Resource =
    Resource { group: "", kind: "ConfigMap", plural: "configmaps", created_by_put: false };
pub static PODS: Resource = Resource { group: "", kind: "Pod", plural: "pods", created_by_put: false };
pub static ENDPOINT_SLICES: Resource =
    Resource { group: "discovery.k8s.io", kind: "EndpointSlice", plural: "endpointslices", created_by_put: false };
pub static SERVICES: Resource = Resource { group: "", kind: "Service", plural: "services", created_by_put: true };
pub static DEPLOYMENTS: Resource =
    Resource { group: "apps", kind: "Deployment", plural: "deployments", created_by_put: false };
pub static STATEFUL_SETS: Resource =
    Resource { group: "apps", kind: "StatefulSet", plural: "statefulsets", created_by_put: false };
pub static DAEMON_SETS: Resource =
    Resource { group: "apps", kind: "DaemonSet", plural: "daemonsets", created_by_put: false };
pub static REPLICA_SETS: Resource =
    Resource { group: "apps", kind: "ReplicaSet", plural: "replicasets", created_by_put: false };
pub static JOBS: Resource = Resource { group: "batch", kind: "Job", plural: "jobs", created_by_put: false };
pub static CRON_JOBS: Resource =
    Resource { group: "batch", kind: "CronJob", plural: "cronjobs", created_by_put: false };
pub static EVENTS: Resource = Resource { group: "", kind: "Event", plural: "events", created_by_put: false };

impl Resource {
    /// Returns the group with its version, as in `apiVersion`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { "v1".to_owned() } else { format!("{}/v1", self.group) }
    }

    /// Returns the path of the objects of this kind in a namespace, or in all namespaces if `namespace` is empty.
    pub fn path(&self, namespace: &str) -> String {
        let root = if self.group.is_empty() { "/api/v1".to_owned() } else { format!("/apis/{}/v1", self.group) };
        if namespace.is_empty() {
            return format!("{root}/{}", self.plural);
        }
        format!("{root}/namespaces/{namespace}/{}", self.plural)
    }
}

/// Writes the plural and the group, like kubectl: `leases.coordination.k8s.io`.
impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.plural)?;
        if self.group.is_empty() { Ok(()) } else { write!(f, ".{}", self.group) }
    }
}

/// The kind, namespace and name of one object.
#[derive(Clone, Debug)]
pub struct ObjectName {
    pub resource: &'static Resource,
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} {}/{}", self.resource.kind, self.namespace, self.name)
    }
}
