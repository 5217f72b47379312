//! Requests to the API server.
//!
//! A [`Cluster`] holds the connections, and a [`Collection`] sends requests for the objects of one kind in one
//! namespace. The lock, routing, Events and `doctor` all use them, and share the same [`Error`].

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
mod response;
mod response_limit;
mod tls;
mod transport;

pub use self::cluster::{Cluster, ClusterAccess};
pub use self::collection::{Collection, ObjectEvent};
pub use self::connection::{ClusterOptions, Given};
pub use self::error::{Error, ErrorKind};
pub use self::rbac::{Rule, Verb, role, yaml};
pub use self::resource::{
    CONFIG_MAPS, CRON_JOBS, DAEMON_SETS, DEPLOYMENTS, ENDPOINT_SLICES, ENDPOINTS, EVENTS, JOBS, LEASES, ObjectName,
    PODS, REPLICA_SETS, Resource, SERVICES, STATEFUL_SETS,
};
