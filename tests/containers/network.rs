//! Tests of containers that are disconnected from their network, and therefore from the API server.

use std::fs;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread;

use serde_json::Value;
use testkit::exit_status::LOST;
use testkit::{Cluster, TestLock, Witnesses, scratch};

use crate::engine::{Candidate, check_can_run_containers, docker};

/// A Docker network, which is removed when this handle is dropped. Its containers must be dropped first.
struct Network(String);

impl Network {
    fn new() -> Self {
        let name = format!("leaderrun-test-{}-{:x}", std::process::id(), fastrand::u32(..));
        docker(&["network", "create", &name]);
        Self(name)
    }

    /// Returns this machine's address in the network.
    fn gateway(&self) -> String {
        docker(&["network", "inspect", "--format", "{{(index .IPAM.Config 0).Gateway}}", &self.0])
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        docker(&["network", "rm", &self.0]);
    }
}

/// Forwards connections from containers to the API server, which only listens on the loopback interface. Returns
/// the address that containers connect to.
fn forward(gateway: &str, server: SocketAddr) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((gateway, 0))?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(server) else { continue };
            let (Ok(from_client), Ok(from_server)) = (client.try_clone(), server.try_clone()) else { continue };
            thread::spawn(move || copy(from_client, server));
            thread::spawn(move || copy(from_server, client));
        }
    });
    Ok(address)
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

/// Writes a copy of the administrator's kubeconfig in which the API server has this address. Returns its path.
fn kubeconfig_through(address: SocketAddr) -> PathBuf {
    let original = fs::read_to_string(Cluster::shared().kubeconfig()).expect("the kubeconfig can be read");
    let mut kubeconfig: Value = serde_json::from_str(&original).expect("the testkit writes kubeconfigs in JSON");
    let cluster = &mut kubeconfig["clusters"][0]["cluster"];
    cluster["server"] = format!("https://{address}").into();
    cluster["tls-server-name"] = "localhost".into();
    let file = scratch::directory("kubeconfig").join("through");
    fs::write(&file, kubeconfig.to_string()).expect("the kubeconfig can be written");
    file
}

#[testkit::test(requires = check_can_run_containers())]
fn the_command_of_a_disconnected_leader_is_dead_before_another_starts() {
    let network = Network::new();
    let address = forward(&network.gateway(), Cluster::shared().address()).expect("the gateway has a free port");
    let (lock, witnesses) = (TestLock::lease_through(kubeconfig_through(address)), Witnesses::new());
    let candidate = |identity: &str| Candidate::new(identity, &lock).on_network(&network.0);
    let a = candidate("a").run_witness(&witnesses, &["ignore", "hidden"]);
    witnesses.wait_for("a", 2);
    let b = candidate("b").args(&["--on-lost", "rejoin"]).run_witness(&witnesses, &["ignore", "hidden"]);
    b.wait_for_log("held by a");
    docker(&["network", "disconnect", &network.0, &a.name]);
    witnesses.wait_for("b", 2);
    assert_eq!(a.wait(), LOST, "{}", a.log());
    witnesses.assert_runs_one_at_a_time(2);

    // The new leader is disconnected as well. It leads again once it is reconnected.
    docker(&["network", "disconnect", &network.0, &b.name]);
    b.wait_for_log("waiting for the lock again");
    docker(&["network", "connect", &network.0, &b.name]);
    witnesses.wait_for("b", 4);
    witnesses.assert_runs_one_at_a_time(3);
}
