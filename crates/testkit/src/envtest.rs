//! Runs the real `etcd` and `kube-apiserver`, as the envtest package of the Kubernetes project does.

use std::env;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use hyper::Method;

use crate::child_process::ChildProcess;
use crate::client::Client;
use crate::port::Port;
use crate::users::{self, ADMIN};
use crate::{scratch, tls};

/// The time within which `etcd` and `kube-apiserver` must start. It is long enough for a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(180);

/// Returns the directory with `etcd` and `kube-apiserver` that `KUBEBUILDER_ASSETS` names, if it is set and not empty.
pub fn assets() -> Option<PathBuf> {
    env::var_os("KUBEBUILDER_ASSETS").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// A running kube-apiserver with its own etcd. Dropping this value kills both.
pub struct Envtest {
    assets: PathBuf,
    /// The directory for certificates, logs and data.
    directory: PathBuf,
    port: Port,
    etcd: Etcd,
    apiserver: Mutex<ChildProcess>,
}

struct Etcd {
    /// The ports for clients and for peers. etcd requires a port for peers even if there are no peers.
    ports: [Port; 2],
    process: ChildProcess,
}

impl Envtest {
    /// Starts both programs, and returns when the API server is ready.
    pub fn start(assets: &Path) -> Envtest {
        let directory = scratch::directory("envtest");
        write_files(&directory);
        let port = Port::reserve();
        let etcd = Etcd::start(assets, &directory);
        let apiserver = start_apiserver(assets, &directory, port.address(), &etcd);
        let envtest = Envtest { assets: assets.to_owned(), directory, port, etcd, apiserver: Mutex::new(apiserver) };
        envtest.wait_until_ready();
        envtest
    }

    /// Returns the address on which the API server listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Kills the API server and starts it again; etcd keeps the data.
    pub fn restart(&self) {
        let mut apiserver = self.apiserver.lock().expect("no earlier restart has failed");
        apiserver.kill();
        *apiserver = start_apiserver(&self.assets, &self.directory, self.address(), &self.etcd);
        drop(apiserver);
        self.wait_until_ready();
    }

    fn wait_until_ready(&self) {
        let client = Client::new(self.address(), ADMIN);
        let start = Instant::now();
        let second = Duration::from_secs(1);
        while client.send(Method::GET, "/readyz", None, second).map_or(0, |response| response.status) != 200 {
            let apiserver = self.apiserver.lock().expect("no earlier restart has failed");
            let are_alive = self.etcd.process.is_alive() && apiserver.is_alive();
            drop(apiserver);
            if !are_alive || start.elapsed() > START_TIMEOUT {
                panic!(
                    "kube-apiserver is not ready\n{}\n{}",
                    last_lines(&self.directory.join("etcd.log")),
                    last_lines(&self.directory.join("kube-apiserver.log")),
                );
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Etcd {
    fn start(assets: &Path, directory: &Path) -> Etcd {
        let ports = [Port::reserve(), Port::reserve()];
        let [clients, peers] = ports.each_ref().map(|port| format!("http://{}", port.address()));
        let mut command = Command::new(assets.join("etcd"));
        command
            .arg(format!("--data-dir={}", directory.join("etcd").display()))
            .arg(format!("--listen-client-urls={clients}"))
            .arg(format!("--advertise-client-urls={clients}"))
            .arg(format!("--listen-peer-urls={peers}"))
            .arg(format!("--initial-advertise-peer-urls={peers}"))
            .arg(format!("--initial-cluster=default={peers}"))
            // Sockets of this process reserve the same ports, so etcd must share them.
            .arg("--socket-reuse-port=true")
            .arg("--unsafe-no-fsync=true");
        Etcd { ports, process: spawn(command, &directory.join("etcd.log")) }
    }

    fn address(&self) -> SocketAddr {
        self.ports[0].address()
    }
}

fn start_apiserver(assets: &Path, directory: &Path, address: SocketAddr, etcd: &Etcd) -> ChildProcess {
    let file = |option: &str, name: &str| format!("--{option}={}", directory.join(name).display());
    let mut command = Command::new(assets.join("kube-apiserver"));
    command
        .arg(format!("--etcd-servers=http://{}", etcd.address()))
        .arg(format!("--bind-address={}", address.ip()))
        .arg(format!("--advertise-address={}", address.ip()))
        .arg(format!("--secure-port={}", address.port()))
        .arg("--permit-port-sharing=true")
        .arg(file("cert-dir", "certificates"))
        .arg(file("tls-cert-file", "server.crt"))
        .arg(file("tls-private-key-file", "server.key"))
        .arg(file("token-auth-file", "tokens.csv"))
        .arg("--anonymous-auth=false")
        .arg("--authorization-mode=RBAC")
        .arg("--service-account-issuer=https://kubernetes.default.svc")
        .arg(file("service-account-key-file", "service-account.pub"))
        .arg(file("service-account-signing-key-file", "service-account.key"))
        // Services can only be dual-stack if there is a range for each address family.
        .arg("--service-cluster-ip-range=10.0.0.0/24,fd00:10::/112")
        // Otherwise each pod would need a ServiceAccount, which only a controller creates.
        .arg("--disable-admission-plugins=ServiceAccount")
        .arg("--allow-privileged=true");
    spawn(command, &directory.join("kube-apiserver.log"))
}

fn write_files(directory: &Path) {
    let server = tls::server_certificate();
    let (private, public) = tls::key_pair();
    for (name, text) in [
        ("server.crt", server.certificate.as_str()),
        ("server.key", server.key.as_str()),
        ("service-account.key", &private),
        ("service-account.pub", &public),
        ("tokens.csv", &users::token_file()),
    ] {
        fs::write(directory.join(name), text).expect("the files of kube-apiserver can be written");
    }
}

fn spawn(mut command: Command, log: &Path) -> ChildProcess {
    let output = File::options().create(true).append(true).open(log).expect("the log file can be opened");
    command.stdin(Stdio::null()).stdout(output.try_clone().expect("a descriptor can be duplicated")).stderr(output);
    let program = command.get_program().to_owned();
    ChildProcess::spawn(command).unwrap_or_else(|error| panic!("cannot start {}: {error}", program.display()))
}

fn last_lines(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    format!("{}:\n{}", log.display(), lines[lines.len().saturating_sub(15)..].join("\n"))
}
