//! What the tests run against: a Kubernetes API server with a fault proxy in front of it.
//!
//! - [`Cluster`]: a running API server. Ours ([`api_server`]), or the real one ([`envtest`]) where
//!   `KUBEBUILDER_ASSETS` names a folder with `etcd` and `kube-apiserver`.
//! - [`Client`]: blocking requests to it, and watches.
//! - [`Proxy`]: stands between a client and the server and makes the network bad.
//!
//! Everything here blocks: tests are plain functions, the servers live on threads of their own.

pub mod api_server;
mod candidate;
mod child_process;
pub mod client;
pub mod client_go;
mod cluster;
mod envtest;
pub mod harness;
pub mod http;
pub mod kubeconfig;
mod lock;
pub mod port;
mod processes;
pub mod proxy;
mod rerun;
mod running;
pub mod runtime;
pub mod scratch;
mod stopped_thread;
pub mod tls;
pub mod users;
mod wait;
pub mod witness;

pub use leaderrun_testkit_macros::test;

pub use self::{
    candidate::{Candidate, os_string},
    client::{Client, Watch},
    cluster::{Cluster, wait_until_allowed},
    harness::leaderrun,
    lock::{CANDIDATE_VERBS, TestLock, rbac_rule},
    processes::{children, descendants, is_alive},
    proxy::{Match, Proxy, ReceivedRequest},
    running::Running,
    stopped_thread::StoppedThread,
    wait::{TIMEOUT, eventually},
    witness::{Lifetime, Witnesses, boot_time},
};
