//! Tests of connections that take longer to open than the request timeout.

use std::fs;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::json;

use testkit::credentials::{self, ClientCertificate};
use testkit::users::ADMIN;
use testkit::{Candidate, Cluster, TestLock, Witnesses, kubeconfig, scratch};

/// With these durations, the request timeout is two seconds: a third of the difference between the renew deadline and
/// the retry period.
const TIMING: [&str; 6] = ["--lease-duration", "10s", "--renew-deadline", "7s", "--retry-period", "1s"];

/// The time that it takes to open a connection through the proxy. It is longer than the request timeout.
const DELAY: Duration = Duration::from_millis(2500);

/// A proxy that connects to the server only [`DELAY`] after a client has connected.
struct SlowProxy {
    address: SocketAddr,
    connections: Arc<Mutex<Vec<TcpStream>>>,
}

impl SlowProxy {
    fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("127.0.0.1 has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let connections = Arc::<Mutex<Vec<TcpStream>>>::default();
        let thread_connections = Arc::clone(&connections);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread_connections
                    .lock()
                    .expect("no thread panics while it holds this lock")
                    .push(stream.try_clone().expect("the socket can be duplicated"));
                thread::spawn(move || relay(stream, server));
            }
        });
        Self { address, connections }
    }

    fn break_connections(&self) {
        for stream in self.connections.lock().expect("no thread panics while it holds this lock").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn relay(client: TcpStream, server: SocketAddr) {
    thread::sleep(DELAY);
    let Ok(server) = TcpStream::connect(server) else { return };
    let (Ok(from_client), Ok(to_server)) = (client.try_clone(), server.try_clone()) else { return };
    thread::spawn(move || copy_stream(from_client, to_server));
    copy_stream(server, client);
}

fn copy_stream(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
}

#[testkit::test]
fn slow_connections_are_opened_in_the_background_so_the_lease_is_renewed() {
    let (proxy, witnesses) = (SlowProxy::start(Cluster::shared().address()), Witnesses::new());
    let file = scratch::directory("slow").join("kubeconfig");
    kubeconfig::write_with(&file, proxy.address, ADMIN.name, &json!({ "token": ADMIN.token }));
    let lock = TestLock::lease_through(file);
    let mut a = Candidate::with_timing("a", &lock, TIMING).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    for _ in 0..2 {
        proxy.break_connections();
        Cluster::shared().wait_for_renewals(&lock, 2);
    }
    assert_eq!(witnesses.lifetimes_of("a")[0].signaled_at, 0, "the command got a stop signal: {}", a.log());
    assert!(a.log().contains("still waiting for a connection to https://127.0.0.1:"), "{}", a.log());
    a.stop();
    witnesses.assert_runs_one_at_a_time(1);
}

#[testkit::test]
fn a_client_certificate_is_replaced_without_a_loss_when_connections_are_slow() {
    let cluster = Cluster::start_in_process();
    let (proxy, witnesses, directory) =
        (SlowProxy::start(cluster.address()), Witnesses::new(), scratch::directory("slow"));
    let [kubeconfig, certificate, key] = ["kubeconfig", "me.crt", "me.key"].map(|name| directory.join(name));
    let write = |issued: &ClientCertificate| {
        fs::write(&key, &issued.key).expect("the key can be written");
        fs::write(&certificate, &issued.certificate).expect("the certificate can be written");
    };
    let old = credentials::issue_certificate(ADMIN);
    write(&old);
    let user = json!({ "client-certificate": certificate, "client-key": key });
    kubeconfig::write_with(&kubeconfig, proxy.address, ADMIN.name, &user);
    let lock = TestLock { name: format!("{}/job", cluster.new_namespace()), kubeconfig: Some(kubeconfig) };
    let mut a = Candidate::with_timing("a", &lock, TIMING).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    write(&credentials::issue_certificate(ADMIN));
    credentials::revoke_certificate(&old);
    cluster.wait_for_renewals(&lock, 3);
    assert_eq!(witnesses.lifetimes_of("a")[0].signaled_at, 0, "the command got a stop signal: {}", a.log());
    a.stop();
    witnesses.assert_runs_one_at_a_time(1);
}
