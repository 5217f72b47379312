//! What the tests run against: a Kubernetes API server with a fault proxy in front of it.
//!
//! - [`Cluster`]: a running API server. Ours ([`api_server`]), or the real one ([`envtest`]) where
//!   `KUBEBUILDER_ASSETS` names a folder with `etcd` and `kube-apiserver`.
//! - [`Client`]: blocking requests to it, and watches.
//! - [`Proxy`]: stands between a client and the server and makes the network bad.
//!
//! Everything here blocks: tests are plain functions, the servers live on threads of their own.

// Each test binary includes this module and uses another part of it.
#![allow(dead_code)]

pub mod api_server;
pub mod children;
pub mod client;
pub mod cluster;
pub mod envtest;
pub mod kubeconfig;
pub mod port;
pub mod proxy;
pub mod runtime;
pub mod scratch;
pub mod tls;
pub mod users;

#[allow(unused_imports)]
pub use self::{
    client::{Client, Watch},
    cluster::Cluster,
    proxy::{Match, Proxy, Seen},
};
