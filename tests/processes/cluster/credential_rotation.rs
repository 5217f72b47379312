//! Tests of credentials that are replaced and revoked while candidates use them. Each test replaces them ten times, on a
//! network with faults.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};

use testkit::credentials::{self, ClientCertificate};
use testkit::users::ADMIN;
use testkit::{
    Candidate, Cluster, Match, Proxy, ReceivedRequest, TestLock, Witnesses, eventually, kubeconfig, scratch, tls,
};

pub const ROTATIONS: usize = 10;

/// Durations with which a plugin has some seconds even on a busy machine and after a request without an answer.
pub const TIMING: [&str; 6] = ["--lease-duration", "12s", "--renew-deadline", "9s", "--retry-period", "1s"];

/// A leader and a standby with the same credentials, each behind a proxy.
pub struct Candidates {
    folder: PathBuf,
    pub cluster: Cluster,
    proxies: [Proxy; 2],
}

impl Candidates {
    fn new() -> Self {
        Self::in_cluster(Cluster::start_in_process())
    }

    pub fn in_cluster(cluster: Cluster) -> Self {
        let proxies = [(); 2].map(|()| Proxy::start(&cluster));
        Self { folder: scratch::folder("credentials"), cluster, proxies }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn kubeconfig(&self, number: usize) -> PathBuf {
        self.file(&format!("kubeconfig-{number}"))
    }

    /// Writes the kubeconfigs of both candidates with these fields of a user.
    pub fn write_kubeconfigs(&self, credentials: &Value) {
        for (number, proxy) in self.proxies.iter().enumerate() {
            kubeconfig::write_with(&self.kubeconfig(number), proxy.address(), ADMIN.name, credentials);
        }
    }

    /// Runs a leader and a standby during the rotations, and checks that the lock is not lost. Each call of `rotate`
    /// replaces and revokes the credentials.
    pub fn assert_lock_is_kept_during(&self, mut rotate: impl FnMut()) {
        let witnesses = Witnesses::new();
        let lock = |number| TestLock {
            name: format!("{}/job", self.cluster.new_namespace()),
            kubeconfig: Some(self.kubeconfig(number)),
        };
        let lock_a = lock(0);
        let mut a = Candidate::with_timing("a", &lock_a, TIMING).run_witness(&witnesses, &[]);
        witnesses.wait_for("a", 1);
        let mut b =
            Candidate::with_timing("b", &lock_a.through(self.kubeconfig(1)), TIMING).run_witness(&witnesses, &["ends"]);
        b.wait_for_log("held by a");
        let admin = self.cluster.admin();
        let renewed = || admin.get(&lock_a.lease_path()).expect("the lease")["spec"]["renewTime"].clone();
        for rotation in 0..ROTATIONS {
            let rotated_at = Instant::now();
            rotate();
            match rotation % 3 {
                0 => self.proxies[0].break_existing(),
                1 => self.proxies[0].silence_existing(),
                _ => self.proxies[0].answer(Match::put().next(1), 503, None),
            }
            self.proxies[1].break_existing();
            for _ in 0..2 {
                let before = renewed();
                eventually("a renewal", || renewed() != before);
            }
            let is_new_watch = |request: &ReceivedRequest| request.is_watch() && request.received_at > rotated_at;
            self.proxies[1].wait_for_request(is_new_watch, testkit::TIMEOUT);
        }
        witnesses.assert_one_at_a_time(1);
        assert_eq!(witnesses.lifetimes_of("a")[0].signaled_at, 0, "it got no stop signal: {}", a.log());
        a.stop();
        b.wait_for_exit(0);
        witnesses.assert_one_at_a_time(2);
    }
}

/// Replaces a file by renaming another one, so that no reader finds it half written.
pub fn replace(path: &Path, contents: &str) {
    let draft = path.with_extension("draft");
    fs::write(&draft, contents).expect("a file");
    fs::rename(draft, path).expect("a file at its place");
}

/// Returns a function that issues a token, passes it to `publish`, and revokes the previous one.
fn rotating_tokens(mut publish: impl FnMut(&str)) -> impl FnMut() {
    let mut present = None;
    move || {
        let token = credentials::issue_token(ADMIN);
        publish(&token);
        if let Some(revoked) = present.replace(token) {
            credentials::revoke_token(&revoked);
        }
    }
}

/// Returns a function that issues a client certificate, passes it to `publish`, and revokes the previous one.
fn rotating_certificates(mut publish: impl FnMut(&ClientCertificate)) -> impl FnMut() {
    let mut present = None;
    move || {
        let certificate = credentials::issue_certificate(ADMIN);
        publish(&certificate);
        if let Some(revoked) = present.replace(certificate) {
            credentials::revoke_certificate(&revoked);
        }
    }
}

/// Returns a user of a kubeconfig whose plugin prints the file `issued`, and adds a line to the file `runs`.
fn exec_user(folder: &Path) -> Value {
    let script = format!("cat {0}/issued; echo run >> {0}/runs", folder.display());
    json!({ "exec": {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "sh",
        "args": ["-c", script],
        "interactiveMode": "Never",
    } })
}

fn exec_credential(status: &Value) -> String {
    json!({ "apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status }).to_string()
}

fn assert_plugin_ran_rarely(folder: &Path) {
    let runs = fs::read_to_string(folder.join("runs")).expect("runs").lines().count();
    assert!(runs <= 2 * (ROTATIONS + 1), "{runs} runs for two candidates and {ROTATIONS} rotations");
}

#[testkit::test]
fn a_leader_keeps_the_lock_while_its_token_file_is_replaced() {
    let candidates = Candidates::new();
    let path = candidates.file("token");
    candidates.write_kubeconfigs(&json!({ "tokenFile": path }));
    let mut rotate = rotating_tokens(|token| replace(&path, &format!("{token}\n")));
    rotate();
    candidates.assert_lock_is_kept_during(rotate);
}

#[testkit::test]
fn a_leader_keeps_the_lock_while_its_client_certificate_file_is_replaced() {
    let candidates = Candidates::new();
    let (certificate, key) = (candidates.file("client.crt"), candidates.file("client.key"));
    candidates.write_kubeconfigs(&json!({ "client-certificate": certificate, "client-key": key }));
    let mut rotate = rotating_certificates(|issued| {
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
    candidates.write_kubeconfigs(&exec_user(&candidates.folder));
    let mut rotate = rotating_tokens(|token| replace(&path, &exec_credential(&json!({ "token": token }))));
    rotate();
    candidates.assert_lock_is_kept_during(rotate);
    assert_plugin_ran_rarely(&candidates.folder);
}

#[testkit::test]
fn a_leader_keeps_the_lock_while_its_plugin_issues_new_client_certificates() {
    let candidates = Candidates::new();
    let path = candidates.file("issued");
    candidates.write_kubeconfigs(&exec_user(&candidates.folder));
    let mut rotate = rotating_certificates(|issued| {
        let status = json!({ "clientCertificateData": issued.certificate, "clientKeyData": issued.key });
        replace(&path, &exec_credential(&status));
    });
    rotate();
    candidates.assert_lock_is_kept_during(rotate);
    assert_plugin_ran_rarely(&candidates.folder);
}

#[testkit::test]
fn a_leader_keeps_the_lock_while_its_kubeconfig_is_replaced() {
    let candidates = Candidates::new();
    let mut rotate = rotating_tokens(|token| candidates.write_kubeconfigs(&json!({ "token": token })));
    rotate();
    candidates.assert_lock_is_kept_during(rotate);
}

#[testkit::test]
fn a_replaced_token_file_is_read_after_its_kubeconfig_was_deleted() {
    let candidates = Candidates::new();
    let path = candidates.file("token");
    candidates.write_kubeconfigs(&json!({ "tokenFile": path }));
    let mut rotate = rotating_tokens(|token| replace(&path, token));
    rotate();
    candidates.assert_lock_is_kept_during(|| {
        for number in 0..2 {
            let _ = fs::remove_file(candidates.kubeconfig(number));
        }
        rotate();
    });
}

#[testkit::test]
fn a_file_of_authorities_is_read_again_as_soon_as_a_connection_fails() {
    let (proxy, witnesses) = (Proxy::start(Cluster::shared()), Witnesses::new());
    let folder = scratch::folder("authorities");
    let (authorities, kubeconfig) = (folder.join("ca.crt"), folder.join("kubeconfig"));
    let (known, other) = (tls::authority(), rcgen::generate_simple_self_signed([]).expect("a certificate").cert.pem());
    fs::write(&authorities, &known).expect("a certificate");
    let config = json!({
        "clusters": [{ "name": "c", "cluster": {
            "server": format!("https://{}", proxy.address()), "certificate-authority": authorities,
        } }],
        "users": [{ "name": "u", "user": { "token": ADMIN.token } }],
        "contexts": [{ "name": "x", "context": { "cluster": "c", "user": "u" } }],
        "current-context": "x",
    });
    fs::write(&kubeconfig, config.to_string()).expect("a kubeconfig");
    let lock = TestLock::lease_through(kubeconfig);
    let mut a = Candidate::with_timing("a", &lock, TIMING).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    replace(&authorities, &other);
    // An open connection stays in use, so it is broken here.
    eventually("a connection fails by the other authority", || {
        proxy.break_existing();
        a.log().contains("its issuer is not the configured authority")
    });
    replace(&authorities, &known);
    let renewed = || Cluster::shared().admin().get(&lock.lease_path()).expect("the lease")["spec"]["renewTime"].clone();
    let before = renewed();
    eventually("a renewal", || renewed() != before);
    assert_eq!(witnesses.lifetimes_of("a")[0].signaled_at, 0, "it got no stop signal: {}", a.log());
    a.stop();
}
