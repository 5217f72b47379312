//! Tests of keys and certificates that the servers of the other tests do not support. openssl creates them, and also
//! acts as the server.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;
use testkit::{Candidate, ChildProcess, eventually_some, scratch};

/// The path of the Lease on the server.
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/default/leases/probe";

/// A directory with a certificate authority, the certificates that it has issued, and the files of the server.
struct Setup {
    directory: PathBuf,
}

impl Setup {
    fn new() -> Self {
        let directory = scratch::directory("openssl");
        fs::write(directory.join("config"), "[req]\ndistinguished_name = name\n[name]\n")
            .expect("the file can be written");
        fs::write(directory.join("names"), "subjectAltName = IP:127.0.0.1\n").expect("the file can be written");
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": { "name": "probe", "namespace": "default", "uid": "1", "resourceVersion": "1" },
            "spec": { "holderIdentity": "the holder" },
        });
        let path = directory.join(&LEASE[1..]);
        fs::create_dir_all(path.parent().expect("the path has a parent directory"))
            .expect("the directory can be created");
        let head = "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n";
        fs::write(path, format!("{head}{lease}")).expect("the Lease can be written");
        Self { directory }
    }

    /// Runs openssl with these arguments, which are separated by spaces. Returns its output.
    #[track_caller]
    fn openssl(&self, arguments: &str) -> String {
        let mut openssl = Command::new("openssl");
        openssl.args(arguments.split_whitespace()).current_dir(&self.directory).stdin(Stdio::null());
        let output = openssl.output().expect("openssl can be started");
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn create_key(&self, name: &str, curve: &str) {
        self.openssl(&format!("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:{curve} -out {name}.key"));
    }

    fn create_authority(&self, curve: &str) {
        self.create_key("ca", curve);
        let constraints = "-addext basicConstraints=critical,CA:TRUE";
        self.openssl(&format!("req -x509 -key ca.key -out ca.crt -days 2 -subj /CN=ca -config config {constraints}"));
    }

    /// Issues a certificate for the key with this name.
    fn issue_certificate(&self, name: &str, options: &str) {
        self.openssl(&format!("req -new -key {name}.key -out {name}.csr -subj /CN={name} -config config"));
        let authority = "-CA ca.crt -CAkey ca.key -CAcreateserial";
        self.openssl(&format!("x509 -req -in {name}.csr {authority} -days 2 -out {name}.crt {options}"));
    }

    /// Creates a setup with P-256 keys for the authority and the server.
    fn with_server() -> Self {
        let setup = Self::new();
        setup.create_authority("P-256");
        setup.create_key("server", "P-256");
        setup.issue_certificate("server", "-extfile names");
        setup
    }

    /// Starts the server with these additional options.
    fn start(&self, options: &str) -> Server {
        let log = self.directory.join("log");
        let mut server = Command::new("openssl");
        server.args("s_server -HTTP -accept 127.0.0.1:0 -cert server.crt -key server.key -CAfile ca.crt".split(' '));
        server.args(options.split_whitespace()).current_dir(&self.directory).stdin(Stdio::null()).stderr(Stdio::null());
        server.stdout(File::create(&log).expect("the log can be created"));
        let process = ChildProcess::spawn(server).expect("openssl can be started");
        let port = || {
            let output = fs::read_to_string(&log).unwrap_or_default();
            let (_, rest) = output.split_once("ACCEPT 127.0.0.1:")?;
            rest.split_once('\n').map(|(port, _)| port.to_owned())
        };
        Server { port: eventually_some("the server listens", port), _process: process }
    }

    /// Checks that leaderrun, and kubectl if it is installed, accept a server with these options. `user` contains the
    /// fields of the user in the kubeconfig, and `description` describes the case in failure messages.
    #[track_caller]
    fn assert_accepted(&self, description: &str, options: &str, user: &str) {
        let (output, log) = self.read_lease(description, options, user);
        assert!(output.contains("the holder"), "{description} is refused: {log}");
    }

    /// Checks that leaderrun refuses a server with these options for this reason, and that kubectl, if it is installed,
    /// accepts it.
    #[track_caller]
    fn assert_only_leaderrun_refuses(&self, description: &str, options: &str, user: &str, reason: &str) {
        let (output, log) = self.read_lease(description, options, user);
        assert!(!output.contains("the holder"), "{description} is accepted");
        assert!(log.contains(reason), "{description}: {log} does not say {reason:?}");
    }

    /// Reads the Lease from a server with these options, and returns the output and the log of leaderrun. kubectl, if
    /// it is installed, must accept the server.
    #[track_caller]
    fn read_lease(&self, description: &str, options: &str, user: &str) -> (String, String) {
        let server = self.start(options);
        let kubeconfig = self.directory.join("kubeconfig");
        let text = format!(
            "{{clusters: [{{name: c, cluster: {{server: 'https://127.0.0.1:{}', certificate-authority: ca.crt}}}}], \
             users: [{{name: u, user: {user}}}], contexts: [{{name: x, context: {{cluster: c, user: u}}}}], \
             current-context: x}}",
            server.port
        );
        fs::write(&kubeconfig, text).expect("the kubeconfig can be written");
        if let Some(output) = read_lease_with_kubectl(&kubeconfig) {
            assert!(output.contains("the holder"), "kubectl refuses {description}: {output}");
        }
        let mut status =
            Candidate::without_default_options("status").args(["status", "--lock", "default/probe", "--kubeconfig"]);
        status = status.args([&kubeconfig]);
        let mut status = status.start();
        status.wait();
        (status.output(), status.log())
    }
}

/// A running openssl server. It is stopped when dropped.
struct Server {
    port: String,
    _process: ChildProcess,
}

/// Reads the Lease with kubectl. Returns what kubectl prints, or `None` if it is not installed.
fn read_lease_with_kubectl(kubeconfig: &Path) -> Option<String> {
    let mut kubectl = Command::new("kubectl");
    kubectl.args(["get", "--raw", LEASE]).env("KUBECONFIG", kubeconfig);
    let output = kubectl.stdin(Stdio::null()).output().ok()?;
    Some(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// The fields of a user with a token.
const USER_WITH_TOKEN: &str = "{token: secret}";

/// The fields of a user with a client certificate.
const USER_WITH_CERTIFICATE: &str = "{client-certificate: me.crt, client-key: me.key}";

/// The options that make the server require a client certificate.
const REQUIRE_CLIENT_CERTIFICATE: &str = "-Verify 1 -verify_return_error";

#[testkit::test(requires = testkit::check_installed("openssl"))]
fn a_client_certificate_of_version_1_is_presented() {
    let setup = Setup::with_server();
    setup.create_key("me", "P-256");
    // Newer releases of openssl need an option to create a version 1 certificate.
    let help = Command::new("openssl").args(["x509", "-help"]).output().expect("openssl can be started");
    let has_option = String::from_utf8_lossy(&[help.stdout, help.stderr].concat()).contains("-x509v1");
    setup.issue_certificate("me", if has_option { "-x509v1" } else { "" });
    let text = setup.openssl("x509 -in me.crt -noout -text");
    assert!(text.contains("Version: 1 "), "{text}");
    for version in ["-tls1_2", "-tls1_3"] {
        setup.assert_accepted("version 1", &format!("{REQUIRE_CLIENT_CERTIFICATE} {version}"), USER_WITH_CERTIFICATE);
    }
}

#[testkit::test(requires = testkit::check_installed("openssl"))]
fn a_client_key_on_each_curve_is_accepted() {
    let setup = Setup::with_server();
    for curve in ["P-256", "P-384", "P-521"] {
        setup.create_key("me", curve);
        setup.issue_certificate("me", "");
        for version in ["-tls1_2", "-tls1_3"] {
            setup.assert_accepted(curve, &format!("{REQUIRE_CLIENT_CERTIFICATE} {version}"), USER_WITH_CERTIFICATE);
        }
        setup.openssl("ec -in me.key -no_public -out me.key");
        setup.assert_accepted(
            &format!("{curve} without its public key"),
            REQUIRE_CLIENT_CERTIFICATE,
            USER_WITH_CERTIFICATE,
        );
    }
}

#[testkit::test(requires = testkit::check_installed("openssl"))]
fn server_keys_and_key_exchanges_on_larger_curves_are_accepted() {
    let setup = Setup::new();
    setup.create_authority("P-521");
    for curve in ["P-384", "P-521"] {
        setup.create_key("server", curve);
        setup.issue_certificate("server", "-extfile names");
        for version in ["-tls1_2", "-tls1_3"] {
            setup.assert_accepted(curve, version, USER_WITH_TOKEN);
        }
    }
    for version in ["-tls1_2", "-tls1_3"] {
        setup.assert_accepted("key exchange on P-521", &format!("-groups P-521 {version}"), USER_WITH_TOKEN);
    }
}

#[testkit::test(requires = testkit::check_installed("openssl"))]
fn an_authority_can_use_each_digest_with_each_curve() {
    for curve in ["P-256", "P-384", "P-521"] {
        let setup = Setup::new();
        setup.create_authority(curve);
        setup.create_key("server", "P-256");
        for digest in ["sha256", "sha384", "sha512"] {
            setup.issue_certificate("server", &format!("-extfile names -{digest}"));
            setup.assert_accepted(&format!("{curve} with {digest}"), "", USER_WITH_TOKEN);
        }
    }
}

/// The option that makes openssl accept weak keys.
const ANY_STRENGTH: &str = "-cipher DEFAULT:@SECLEVEL=0";

#[testkit::test(requires = testkit::check_installed("openssl"))]
fn rsa_keys_of_servers_and_authorities_with_less_than_2048_bits_are_refused() {
    let setup = Setup::new();
    setup.create_authority("P-256");
    for bits in [2048, 2049, 2056, 3072, 4096] {
        setup.openssl(&format!("genrsa -out server.key {bits}"));
        setup.issue_certificate("server", "-extfile names");
        setup.assert_accepted(&format!("{bits} bits"), "", USER_WITH_TOKEN);
    }
    for bits in [1024, 1984, 2040] {
        setup.openssl(&format!("genrsa -out server.key {bits}"));
        setup.issue_certificate("server", "-extfile names");
        let description = format!("{bits} bits");
        setup.assert_only_leaderrun_refuses(
            &description,
            ANY_STRENGTH,
            USER_WITH_TOKEN,
            "is refused: its RSA key is shorter than 2048 bits",
        );
    }
    setup.openssl("genrsa -out ca.key 1984");
    let constraints = "-addext basicConstraints=critical,CA:TRUE";
    setup.openssl(&format!("req -x509 -key ca.key -out ca.crt -days 2 -subj /CN=ca -config config {constraints}"));
    setup.create_key("server", "P-256");
    setup.issue_certificate("server", "-extfile names");
    let reason = "or that key is an RSA key shorter than 2048 bits";
    setup.assert_only_leaderrun_refuses("an authority with a key of 1984 bits", ANY_STRENGTH, USER_WITH_TOKEN, reason);
}

#[testkit::test(requires = testkit::check_installed("openssl"))]
fn rsa_keys_of_clients_with_unsupported_lengths_or_exponents_are_refused() {
    let setup = Setup::with_server();
    for bits in [2048, 3072, 4096] {
        setup.openssl(&format!("genrsa -out me.key {bits}"));
        setup.issue_certificate("me", "");
        setup.assert_accepted(&format!("{bits} bits"), REQUIRE_CLIENT_CERTIFICATE, USER_WITH_CERTIFICATE);
    }
    let options = format!("{REQUIRE_CLIENT_CERTIFICATE} {ANY_STRENGTH}");
    for arguments in ["1984", "2056", "2560", "6144", "-3 2048"] {
        let (exponent, bits) = arguments.rsplit_once(' ').unwrap_or(("", arguments));
        setup.openssl(&format!("genrsa {exponent} -out me.key {bits}"));
        setup.issue_certificate("me", "");
        let reason = "me.key: the key cannot be used; try one of P-256, P-384, P-521 or Ed25519, or an RSA key of";
        setup.assert_only_leaderrun_refuses(arguments, &options, USER_WITH_CERTIFICATE, reason);
    }
}
