//! Building blocks for leaderrun's tests.
//!
//! - [`Cluster`]: a running API server. It runs in this process ([`api_server`]), or is a real one if
//!   `KUBEBUILDER_ASSETS` names a directory with `etcd` and `kube-apiserver`.
//! - [`Client`]: blocking requests to an API server, and watches.
//! - [`Proxy`]: a proxy that injects faults between a client and an API server.
//! - [`Candidate`]: the configuration of a leaderrun process for a [`TestLock`]. Starting it returns a [`Running`].
//! - [`Witnesses`]: commands that record when they were alive, which shows whether two of them overlapped.
//! - [`other_candidate`]: imitations of candidates that use client-go or fabric8.
//! - [`mod@harness`]: the `main` of a test binary, and `#[testkit::test]`.
//!
//! All calls block: tests are plain functions, and the servers run on their own threads.

pub mod api_server;
mod candidate;
mod child_process;
pub mod client;
mod cluster;
pub mod credentials;
mod envtest;
pub mod exit_status;
mod fuzz;
pub mod harness;
pub mod hostile_input;
pub mod http;
pub mod kubeconfig;
mod lock;
pub mod other_candidate;
pub mod port;
mod processes;
pub mod proxy;
mod pty;
pub mod recording_server;
mod rerun;
mod running;
pub mod runtime;
pub mod scratch;
pub mod simulated_time;
mod stopped_thread;
pub mod tls;
pub mod tunnel;
pub mod users;
mod wait;
pub mod witness;

pub use leaderrun_testkit_macros::test;

pub use self::{
    candidate::{Candidate, TIMING, os_string},
    child_process::ChildProcess,
    client::{Client, Watch},
    cluster::{Cluster, wait_until_allowed},
    fuzz::fuzz,
    harness::{check_installed, leaderrun},
    lock::{CANDIDATE_VERBS, TestLock, rbac_rule},
    processes::{children, descendants, is_alive},
    proxy::{Match, Proxy, ReceivedRequest},
    pty::{Pty, Screen},
    running::Running,
    stopped_thread::StoppedThread,
    wait::{TIMEOUT, eventually, eventually_some},
    witness::{Lifetime, Witnesses, nanos_since_boot},
};
