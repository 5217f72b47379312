//! The table of this server's resources.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Event, Namespace, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::events;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::status::qualified;

/// One kind of object in one group and version.
pub struct Resource {
    pub group: &'static str,
    pub version: &'static str,
    /// The name that is used in paths and Roles.
    pub plural: &'static str,
    pub singular: &'static str,
    pub short_names: &'static [&'static str],
    pub kind: &'static str,
    pub namespaced: bool,
    /// `true` if a PUT to a name that does not exist creates the object.
    pub create_on_update: bool,
    /// `true` if a PUT without a resourceVersion replaces any version.
    pub unconditional_update: bool,
    /// Parses the object as its type, and serializes it again. This drops unknown fields, and fails if a field has
    /// the wrong type.
    pub decode: fn(Value) -> serde_json::Result<Value>,
}

impl Resource {
    /// Returns the plural with its group, for example `leases.coordination.k8s.io`, or just `pods` in the core group.
    pub fn qualified(&self) -> String {
        qualified(self.group, self.plural)
    }

    /// Returns the group and version, for example `coordination.k8s.io/v1`, or just `v1` in the core group.
    pub fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            _ => format!("{}/{}", self.group, self.version),
        }
    }
}

/// Returns the resource with this group, version and plural.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    RESOURCES
        .iter()
        .find(|resource| resource.group == group && resource.version == version && resource.plural == plural)
}

/// Returns whether the server has resources in this group and version.
pub fn has_group_version(group: &str, version: &str) -> bool {
    RESOURCES.iter().any(|resource| resource.group == group && resource.version == version)
}

pub const EVENTS_GROUP: &str = "events.k8s.io";

pub static RESOURCES: &[Resource] = &[
    Resource {
        short_names: &["ns"],
        namespaced: false,
        ..v1_defaults::<Namespace>("namespaces", "namespace", "Namespace")
    },
    Resource { short_names: &["po"], ..v1_defaults::<Pod>("pods", "pod", "Pod") },
    Resource { short_names: &["cm"], ..v1_defaults::<ConfigMap>("configmaps", "configmap", "ConfigMap") },
    Resource {
        short_names: &["ep"],
        create_on_update: true,
        ..v1_defaults::<Endpoints>("endpoints", "endpoints", "Endpoints")
    },
    Resource {
        short_names: &["svc"],
        create_on_update: true,
        ..v1_defaults::<Service>("services", "service", "Service")
    },
    Resource { short_names: &["ev"], create_on_update: true, ..v1_defaults::<Event>("events", "event", "Event") },
    Resource {
        group: EVENTS_GROUP,
        short_names: &["ev"],
        create_on_update: true,
        ..v1_defaults::<events::v1::Event>("events", "event", "Event")
    },
    Resource {
        group: "coordination.k8s.io",
        create_on_update: true,
        unconditional_update: false,
        ..v1_defaults::<Lease>("leases", "lease", "Lease")
    },
    Resource {
        group: "discovery.k8s.io",
        ..v1_defaults::<EndpointSlice>("endpointslices", "endpointslice", "EndpointSlice")
    },
    Resource {
        short_names: &["sa"],
        ..v1_defaults::<ServiceAccount>("serviceaccounts", "serviceaccount", "ServiceAccount")
    },
    Resource {
        group: "apps",
        short_names: &["deploy"],
        ..v1_defaults::<Deployment>("deployments", "deployment", "Deployment")
    },
    Resource {
        group: "apps",
        short_names: &["sts"],
        ..v1_defaults::<StatefulSet>("statefulsets", "statefulset", "StatefulSet")
    },
    Resource {
        group: "apps",
        short_names: &["ds"],
        ..v1_defaults::<DaemonSet>("daemonsets", "daemonset", "DaemonSet")
    },
    Resource {
        group: "apps",
        short_names: &["rs"],
        ..v1_defaults::<ReplicaSet>("replicasets", "replicaset", "ReplicaSet")
    },
    Resource { group: "batch", ..v1_defaults::<Job>("jobs", "job", "Job") },
    Resource { group: "batch", short_names: &["cj"], ..v1_defaults::<CronJob>("cronjobs", "cronjob", "CronJob") },
    Resource {
        group: "policy",
        short_names: &["pdb"],
        ..v1_defaults::<PodDisruptionBudget>("poddisruptionbudgets", "poddisruptionbudget", "PodDisruptionBudget")
    },
    rbac_v1::<Role>("roles", "role", "Role", true),
    rbac_v1::<RoleBinding>("rolebindings", "rolebinding", "RoleBinding", true),
    rbac_v1::<ClusterRole>("clusterroles", "clusterrole", "ClusterRole", false),
    rbac_v1::<ClusterRoleBinding>("clusterrolebindings", "clusterrolebinding", "ClusterRoleBinding", false),
];

/// The resource with which a client asks what it is allowed to do. The server answers such a review but does not store
/// it.
pub static ACCESS_REVIEW: Resource = Resource {
    group: "authorization.k8s.io",
    namespaced: false,
    ..v1_defaults::<SelfSubjectAccessReview>(
        "selfsubjectaccessreviews",
        "selfsubjectaccessreview",
        "SelfSubjectAccessReview",
    )
};

/// Returns a resource of the core group, in version v1, with the most common properties.
const fn v1_defaults<T: DeserializeOwned + Serialize>(
    plural: &'static str,
    singular: &'static str,
    kind: &'static str,
) -> Resource {
    Resource {
        group: "",
        version: "v1",
        plural,
        singular,
        short_names: &[],
        kind,
        namespaced: true,
        create_on_update: false,
        unconditional_update: true,
        decode: decode::<T>,
    }
}

const fn rbac_v1<T: DeserializeOwned + Serialize>(
    plural: &'static str,
    singular: &'static str,
    kind: &'static str,
    namespaced: bool,
) -> Resource {
    Resource {
        group: "rbac.authorization.k8s.io",
        namespaced,
        create_on_update: true,
        ..v1_defaults::<T>(plural, singular, kind)
    }
}

fn decode<T: DeserializeOwned + Serialize>(object: Value) -> serde_json::Result<Value> {
    serde_json::to_value(serde_json::from_value::<T>(object)?)
}
