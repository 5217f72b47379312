//! An API server for trying leaderrun without a cluster: `cargo run --package leaderrun-testkit --bin kube-api`.
//!
//! It is the API server that the tests run in-process. It has RBAC and the resources that leaderrun uses, such as
//! Leases, but runs no containers, and it keeps its objects in memory.

use std::fs;
use std::path::PathBuf;

use clap::Parser;
use nix::sys::signal::{SigSet, Signal};

use testkit::api_server::ApiServer;
use testkit::users::{ADMIN, USERS};
use testkit::{kubeconfig, scratch};

/// Runs a small Kubernetes API server on this machine until Ctrl-C.
#[derive(Parser)]
#[command(name = "kube-api")]
struct Arguments {
    /// Put the kubeconfigs into this directory [default: a temporary one]
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    // Threads inherit the signal mask, so the signals are blocked before other threads start.
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    signals.thread_block()?;

    let directory = arguments.directory.unwrap_or_else(|| scratch::directory("kube-api"));
    fs::create_dir_all(&directory)?;
    let directory = directory.canonicalize()?;
    let server = ApiServer::start();
    let files = USERS.map(|user| (user, directory.join(format!("{}.kubeconfig", user.name))));
    for (user, file) in &files {
        kubeconfig::write(file, server.address(), *user);
    }

    println!("A Kubernetes API server is running at https://{}. Ctrl-C stops it.", server.address());
    println!();
    println!("    export KUBECONFIG={}", directory.join(format!("{}.kubeconfig", ADMIN.name)).display());
    println!();
    println!("Then, for example:");
    println!();
    println!("    leaderrun --lock default/example -- sleep 60");
    println!("    kubectl get lease example --watch -o yaml");
    println!();
    let other_users: Vec<&str> = USERS.iter().map(|user| user.name).filter(|name| *name != ADMIN.name).collect();
    println!(
        "That kubeconfig is the administrator's. The same directory has kubeconfigs for these users, who have almost no"
    );
    println!("permissions until you create Roles for them: {}.", other_users.join(", "));

    signals.wait()?;
    for (_, file) in &files {
        fs::remove_file(file)?;
    }
    Ok(())
}
