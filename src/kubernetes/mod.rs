//! How the API server is reached and asked.
//!
//! A [`Cluster`] is the way there; a [`Collection`] has the objects of one kind in one namespace. The lock, routing,
//! Events and `doctor` all use these, and know one [`Error`].

mod answer;
mod cluster;
mod collection;
mod connection;
mod credentials;
mod error;
mod impersonation;
mod kubeconfig;
pub mod log_events;
mod proxy;
mod rbac;
mod resource;
mod response_limit;
mod tls;
mod transport;

pub use self::cluster::{Cluster, ClusterAccess, ClusterOptions};
pub use self::collection::{Collection, ObjectEvent};
pub use self::error::{Error, ErrorKind};
pub use self::rbac::{Rule, Verb, role, yaml};
pub use self::resource::{
    CONFIG_MAPS, CRON_JOBS, DAEMON_SETS, DEPLOYMENTS, ENDPOINT_SLICES, ENDPOINTS, EVENTS, JOBS, LEASES, ObjectName,
    PODS, REPLICA_SETS, Resource, SERVICES, STATEFUL_SETS,
};
