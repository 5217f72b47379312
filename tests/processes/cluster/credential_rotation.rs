//! Tests of credentials that are replaced and revoked while candidates use them. Most tests replace them ten times, on
//! a network with faults.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};

use testkit::credentials::{self, ClientCertificate};
use testkit::users::ADMIN;
use testkit::{
    Candidate, Cluster, Match, Proxy, ReceivedRequest, TestLock, Witnesses, eventually, kubeconfig, scratch, tls,
};

/// How many times a test replaces the credentials while the candidates run.
pub const ROTATIONS: usize = 10;

/// Durations that leave a plugin several seconds to run, even on a busy machine and after a request without a response.
pub const TIMING: [&str; 6] = ["--lease-duration", "12s", "--renew-deadline", "9s", "--retry-period", "1s"];

/// The setup for a leader and a standby with the same credentials: a kubeconfig and a proxy for each candidate.
pub struct Candidates {
    directory: PathBuf,
    pub cluster: Cluster,
    proxies: [Proxy; 2],
}

impl Candidates {
    fn new() -> Self {
        Self::with_cluster(Cluster::start_in_process())
    }

    pub fn with_cluster(cluster: Cluster) -> Self {
        let proxies = [(); 2].map(|()| Proxy::start(&cluster));
        Self { directory: scratch::directory("credentials"), cluster, proxies }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Returns the path of a candidate's kubeconfig. The leader has the number 0, the standby the number 1.
    fn kubeconfig(&self, number: usize) -> PathBuf {
        self.file(&format!("kubeconfig-{number}"))
    }

    /// Writes both candidates' kubeconfigs, with `credentials` as their user entry.
    pub fn write_kubeconfigs(&self, credentials: &Value) {
        for (number, proxy) in self.proxies.iter().enumerate() {
            kubeconfig::write_with(&self.kubeconfig(number), proxy.address(), ADMIN.name, credentials);
        }
    }

    /// Runs a leader and a standby. Calls `rotate`, which replaces the credentials, [`ROTATIONS`] times, and causes
    /// network faults after each call. Checks that the leader keeps renewing the lock and that the standby's watch
    /// resumes.
    pub fn assert_lock_is_kept_during(&self, mut rotate: impl FnMut()) {
        let witnesses = Witnesses::new();
        let name = format!("{}/job", self.cluster.new_namespace());
        let lock = TestLock { name, kubeconfig: Some(self.kubeconfig(0)) };
        let mut a = Candidate::with_timing("a", &lock, TIMING).run_witness(&witnesses, &[]);
        witnesses.wait_for("a", 1);
        let mut b =
            Candidate::with_timing("b", &lock.through(self.kubeconfig(1)), TIMING).run_witness(&witnesses, &["ends"]);
        b.wait_for_log("held by a");
        for rotation in 0..ROTATIONS {
            let rotated_at = Instant::now();
            rotate();
            match rotation % 3 {
                0 => self.proxies[0].break_connections(),
                1 => self.proxies[0].silence_connections(),
                _ => self.proxies[0].respond(Match::put().next(1), 503, None),
            }
            self.proxies[1].break_connections();
            self.cluster.wait_for_renewals(&lock, 2);
            let is_new_watch = |request: &ReceivedRequest| request.is_watch() && request.received_at > rotated_at;
            self.proxies[1].wait_for_request(is_new_watch, testkit::TIMEOUT);
        }
        witnesses.assert_runs_one_at_a_time(1);
        assert_eq!(witnesses.lifetimes_of("a")[0].signaled_at, 0, "the command got a stop signal: {}", a.log());
        a.stop();
        b.wait_for_exit(0);
        witnesses.assert_runs_one_at_a_time(2);
    }
}

/// Replaces a file by renaming a new one over it, so that no reader finds a half-written file.
pub fn replace(path: &Path, contents: &str) {
    let draft = path.with_extension("draft");
    fs::write(&draft, contents).expect("the draft can be written");
    fs::rename(draft, path).expect("the file can be replaced");
}

/// Returns a function that issues a token, passes it to `publish`, and revokes the previous one.
fn token_rotation(mut publish: impl FnMut(&str)) -> impl FnMut() {
    let mut current = None;
    move || {
        let token = credentials::issue_token(ADMIN);
        publish(&token);
        if let Some(revoked) = current.replace(token) {
            credentials::revoke_token(&revoked);
        }
    }
}

/// Returns a function that issues a client certificate, passes it to `publish`, and revokes the previous one.
fn certificate_rotation(mut publish: impl FnMut(&ClientCertificate)) -> impl FnMut() {
    let mut current = None;
    move || {
        let certificate = credentials::issue_certificate(ADMIN);
        publish(&certificate);
        if let Some(revoked) = current.replace(certificate) {
            credentials::revoke_certificate(&revoked);
        }
    }
}

/// Returns the fields of a user whose plugin prints the file `issued` in this directory and appends a line to the file
/// `runs`.
fn exec_user(directory: &Path) -> Value {
    let script = format!("cat {0}/issued; echo run >> {0}/runs", directory.display());
    json!({ "exec": {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "sh",
        "args": ["-c", script],
        "interactiveMode": "Never",
    } })
}

/// Returns what a plugin prints for a credential with this status.
fn exec_credential(status: &Value) -> String {
    json!({ "apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status }).to_string()
}

/// Checks that the plugin ran at most once for each candidate and each set of credentials.
fn assert_plugin_runs_are_limited(directory: &Path) {
    let runs = fs::read_to_string(directory.join("runs")).expect("the plugin has recorded its runs").lines().count();
    assert!(runs <= 2 * (ROTATIONS + 1), "the plugin ran {runs} times for two candidates and {ROTATIONS} rotations");
}

#[testkit::test]
fn a_leader_keeps_the_lock_while_its_token_file_is_replaced() {
    let candidates = Candidates::new();
    let path = candidates.file("token");
    candidates.write_kubeconfigs(&json!({ "tokenFile": path }));
    let mut rotate = token_rotation(|token| replace(&path, &format!("{token}\n")));
    rotate();
    candidates.assert_lock_is_kept_during(rotate);
}

#[testkit::test]
fn a_leader_keeps_the_lock_while_its_client_certificate_file_is_replaced() {
    let candidates = Candidates::new();
    let (certificate, key) = (candidates.file("client.crt"), candidates.file("client.key"));
    candidates.write_kubeconfigs(&json!({ "client-certificate": certificate, "client-key": key }));
    let mut rotate = certificate_rotation(|issued| {
        replace(&certificate, &issued.certificate);
        replace(&key, &issued.key);
    });
    rotate();
    candidates.assert_lock_is_kept_during(rotate);
}

#[testkit::test]
fn a_leader_keeps_the_lock_while_its_plugin_issues_new_tokens() {
    let candidates = Candidates::new();
    let path = candidates.file("issued");
    candidates.write_kubeconfigs(&exec_user(&candidates.directory));
    let mut rotate = token_rotation(|token| replace(&path, &exec_credential(&json!({ "token": token }))));
    rotate();
    candidates.assert_lock_is_kept_during(rotate);
    assert_plugin_runs_are_limited(&candidates.directory);
}

#[testkit::test]
fn a_leader_keeps_the_lock_while_its_plugin_issues_new_client_certificates() {
    let candidates = Candidates::new();
    let path = candidates.file("issued");
    candidates.write_kubeconfigs(&exec_user(&candidates.directory));
    let mut rotate = certificate_rotation(|issued| {
        let status = json!({ "clientCertificateData": issued.certificate, "clientKeyData": issued.key });
        replace(&path, &exec_credential(&status));
    });
    rotate();
    candidates.assert_lock_is_kept_during(rotate);
    assert_plugin_runs_are_limited(&candidates.directory);
}

#[testkit::test]
fn a_leader_keeps_the_lock_while_its_kubeconfig_is_replaced() {
    let candidates = Candidates::new();
    let mut rotate = token_rotation(|token| candidates.write_kubeconfigs(&json!({ "token": token })));
    rotate();
    candidates.assert_lock_is_kept_during(rotate);
}

#[testkit::test]
fn a_replaced_token_file_is_read_after_the_kubeconfig_was_deleted() {
    let candidates = Candidates::new();
    let path = candidates.file("token");
    candidates.write_kubeconfigs(&json!({ "tokenFile": path }));
    let mut rotate = token_rotation(|token| replace(&path, token));
    rotate();
    candidates.assert_lock_is_kept_during(|| {
        for number in 0..2 {
            let _ = fs::remove_file(candidates.kubeconfig(number));
        }
        rotate();
    });
}

#[testkit::test]
fn the_ca_file_is_read_again_after_a_connection_has_failed() {
    let (proxy, witnesses) = (Proxy::start(Cluster::shared()), Witnesses::new());
    let directory = scratch::directory("ca");
    let (ca_file, kubeconfig) = (directory.join("ca.crt"), directory.join("kubeconfig"));
    let (known, other) = (
        tls::authority(),
        rcgen::generate_simple_self_signed([]).expect("the certificate can be generated").cert.pem(),
    );
    fs::write(&ca_file, &known).expect("the CA file can be written");
    let config = json!({
        "clusters": [{ "name": "c", "cluster": {
            "server": format!("https://{}", proxy.address()), "certificate-authority": ca_file,
        } }],
        "users": [{ "name": "u", "user": { "token": ADMIN.token } }],
        "contexts": [{ "name": "x", "context": { "cluster": "c", "user": "u" } }],
        "current-context": "x",
    });
    fs::write(&kubeconfig, config.to_string()).expect("the kubeconfig can be written");
    let lock = TestLock::lease_through(kubeconfig);
    let mut a = Candidate::with_timing("a", &lock, TIMING).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    replace(&ca_file, &other);
    // An open connection stays in use, so the test breaks it.
    eventually("a new connection fails because of the other CA", || {
        proxy.break_connections();
        a.log().contains("its issuer is not the configured authority")
    });
    replace(&ca_file, &known);
    Cluster::shared().wait_for_renewals(&lock, 1);
    assert_eq!(witnesses.lifetimes_of("a")[0].signaled_at, 0, "the command got a stop signal: {}", a.log());
    a.stop();
}
