//! What the tests run against: a Kubernetes API server with a fault proxy in front of it.
//!
//! - [`Cluster`]: a running API server. Ours ([`api_server`]), or the real one ([`envtest`]) where
//!   `KUBEBUILDER_ASSETS` names a folder with `etcd` and `kube-apiserver`.
//! - [`Client`]: blocking requests to it, and watches.
//! - [`Proxy`]: stands between a client and the server and makes the network bad.
//!
//! Everything here blocks: tests are plain functions, the servers live on threads of their own.

pub mod api_server;
pub mod candidate;
pub mod children;
pub mod client;
pub mod cluster;
pub mod envtest;
pub mod harness;
pub mod kubeconfig;
pub mod port;
pub mod proxy;
mod rerun;
pub mod runtime;
pub mod scratch;
pub mod tls;
pub mod users;
pub mod witness;

pub use leaderrun_testkit_macros::test;

pub use self::{
    candidate::{Candidate, Running, TestLock, eventually},
    client::{Client, Watch},
    cluster::Cluster,
    harness::leaderrun,
    proxy::{Match, Proxy, Seen},
    witness::Witnesses,
};
