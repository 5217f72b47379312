//! An API server to try leaderrun against, where there is no cluster: `cargo run --bin kube-api`.
//!
//! It is the one that the tests use. It has Leases, ConfigMaps, Endpoints, Events and RBAC, runs no
//! containers, and forgets everything when it stops.

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
    /// Put the kubeconfigs into this folder [default: a temporary one]
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    // Blocked before there are other threads, so that the signals wait for this one.
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    signals.thread_block()?;

    let folder = arguments.folder.unwrap_or_else(|| scratch::folder("kube-api"));
    fs::create_dir_all(&folder)?;
    let folder = folder.canonicalize()?;
    let server = ApiServer::start();
    let files = USERS.map(|user| (user, folder.join(format!("{}.kubeconfig", user.name))));
    for (user, file) in &files {
        kubeconfig::write(file, server.address(), *user);
    }

    println!("A Kubernetes API server is running at https://{}. Ctrl-C stops it.", server.address());
    println!();
    println!("    export KUBECONFIG={}", folder.join(format!("{}.kubeconfig", ADMIN.name)).display());
    println!();
    println!("Then, say:");
    println!();
    println!("    leaderrun --lock default/example -- sleep 60");
    println!("    kubectl get lease example --watch -o yaml");
    println!();
    let others: Vec<&str> = USERS.iter().map(|user| user.name).filter(|name| *name != ADMIN.name).collect();
    println!("That is the administrator. Beside it are kubeconfigs for users who have no rights until a Role");
    println!("gives them some: {}.", others.join(", "));

    signals.wait()?;
    for (_, file) in &files {
        fs::remove_file(file)?;
    }
    Ok(())
}
