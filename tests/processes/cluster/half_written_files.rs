//! Tests of files that another program rewrites in place while a leader uses them: the program empties the file, writes
//! a part of the new contents, and then the rest.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use testkit::credentials;
use testkit::users::ADMIN;
use testkit::{Candidate, Cluster, Match, Proxy, Running, TestLock, Witnesses, scratch, tls};

use super::credential_rotation::TIMING;

/// How many renewals must succeed after each part of a file is written.
const RENEWALS: usize = 3;

/// A leader behind a proxy, with the files of its credentials.
struct Leader {
    cluster: Cluster,
    proxy: Proxy,
    directory: PathBuf,
    lock: TestLock,
    witnesses: Witnesses,
    /// `None` before [`Leader::start`].
    running: Option<Running>,
}

impl Leader {
    fn new() -> Self {
        let cluster = Cluster::start_in_process();
        let (proxy, directory) = (Proxy::start(&cluster), scratch::directory("half-written"));
        fs::write(directory.join("ca.crt"), tls::authority()).expect("the CA file can be written");
        let name = format!("{}/job", cluster.new_namespace());
        let lock = TestLock { name, kubeconfig: Some(directory.join("kubeconfig")) };
        Self { cluster, proxy, directory, lock, witnesses: Witnesses::new(), running: None }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Writes the kubeconfig, with `user` as its user entry.
    fn write_kubeconfig(&self, user: &Value) {
        let config = json!({
            "clusters": [{ "name": "c", "cluster": {
                "server": format!("https://{}", self.proxy.address()), "certificate-authority": "ca.crt",
            } }],
            "users": [{ "name": "u", "user": user }],
            "contexts": [{ "name": "x", "context": { "cluster": "c", "user": "u" } }],
            "current-context": "x",
        });
        fs::write(self.file("kubeconfig"), config.to_string()).expect("the kubeconfig can be written");
    }

    fn start(&mut self) {
        self.running = Some(Candidate::with_timing("a", &self.lock, TIMING).run_witness(&self.witnesses, &[]));
        self.witnesses.wait_for("a", 1);
    }

    /// Waits for [`RENEWALS`] renewals.
    fn wait_for_renewals(&self) {
        self.cluster.wait_for_renewals(&self.lock, RENEWALS);
    }

    /// Replaces the contents of a file with `part`, rejects a renewal so that leaderrun reads all files again, and then
    /// waits for renewals.
    fn write_part(&self, name: &str, part: &str) {
        fs::write(self.file(name), part).expect("the part can be written");
        self.proxy.respond(Match::put().next(1), 401, None);
        self.wait_for_renewals();
    }

    /// Checks that the command got no stop signal, and that the log contains this reason for using the previous
    /// credentials. Stops the leader.
    fn assert_lock_was_kept(mut self, reason: &str) {
        let mut running = self.running.take().expect("the leader was started");
        let log = running.log();
        assert_eq!(self.witnesses.lifetimes_of("a")[0].signaled_at, 0, "the command got a stop signal: {log}");
        let lines = log.lines().filter(|line| line.contains("still using the previous credentials"));
        assert!(lines.clone().any(|line| line.contains(reason)), "{reason}: {log}");
        running.stop();
    }
}

/// Returns the first half of a text.
fn half(text: &str) -> &str {
    &text[..text.len() / 2]
}

#[testkit::test]
fn a_leader_keeps_the_lock_while_its_token_file_is_written_in_parts() {
    let mut leader = Leader::new();
    let (old, new) = (credentials::issue_token(ADMIN), credentials::issue_token(ADMIN));
    fs::write(leader.file("token"), &old).expect("the token can be written");
    leader.write_kubeconfig(&json!({ "tokenFile": "token" }));
    leader.start();
    leader.write_part("token", "");
    leader.write_part("token", half(&new));
    fs::write(leader.file("token"), &new).expect("the token can be written");
    credentials::revoke_token(&old);
    leader.wait_for_renewals();
    let reason = format!("the API server rejects the token in {}", leader.file("token").display());
    leader.assert_lock_was_kept(&reason);
}

#[testkit::test]
fn a_leader_keeps_the_lock_while_its_client_certificate_and_key_are_written_in_parts() {
    let mut leader = Leader::new();
    let (old, new) = (credentials::issue_certificate(ADMIN), credentials::issue_certificate(ADMIN));
    let write = |name: &str, text: &str| fs::write(leader.file(name), text).expect("the file can be written");
    write("me.crt", &old.certificate);
    write("me.key", &old.key);
    leader.write_kubeconfig(&json!({ "client-certificate": "me.crt", "client-key": "me.key" }));
    leader.start();
    leader.write_part("me.key", "");
    leader.write_part("me.key", half(&new.key));
    leader.write_part("me.key", &new.key);
    leader.write_part("me.crt", half(&new.certificate));
    fs::write(leader.file("me.crt"), &new.certificate).expect("the certificate can be written");
    credentials::revoke_certificate(&old);
    leader.wait_for_renewals();
    leader.assert_lock_was_kept("does not match the key in client-key");
}

#[testkit::test]
fn a_leader_keeps_the_lock_while_the_certificate_file_lacks_the_intermediate_certificate() {
    let mut leader = Leader::new();
    let (old, new) = (credentials::issue_certificate(ADMIN), credentials::issue_certificate_chain(ADMIN));
    let write = |name: &str, text: &str| fs::write(leader.file(name), text).expect("the file can be written");
    write("me.crt", &old.certificate);
    write("me.key", &old.key);
    leader.write_kubeconfig(&json!({ "client-certificate": "me.crt", "client-key": "me.key" }));
    leader.start();
    leader.write_part("me.key", &new.key);
    const END: &str = "-----END CERTIFICATE-----\n";
    let end_of_first = new.certificate.find(END).expect("the file contains a certificate") + END.len();
    leader.write_part("me.crt", &new.certificate[..end_of_first]);
    fs::write(leader.file("me.crt"), &new.certificate).expect("the certificate can be written");
    credentials::revoke_certificate(&old);
    leader.wait_for_renewals();
    leader.assert_lock_was_kept("the server refused the client certificate");
}

/// Replaces and revokes tokens while the CA file is half written, and checks that the lock is kept. `publish`
/// writes a token to a directory.
fn assert_lock_is_kept_with_half_written_ca_file(mut leader: Leader, publish: impl Fn(&Path, &str)) {
    let mut token = credentials::issue_token(ADMIN);
    publish(&leader.directory, &token);
    leader.start();
    for part in ["", half(&tls::authority())] {
        leader.write_part("ca.crt", part);
        let next = credentials::issue_token(ADMIN);
        publish(&leader.directory, &next);
        credentials::revoke_token(&token);
        token = next;
        leader.wait_for_renewals();
        // New connections must also succeed.
        leader.proxy.break_connections();
        leader.wait_for_renewals();
    }
    fs::write(leader.file("ca.crt"), tls::authority()).expect("the CA file can be written");
    leader.wait_for_renewals();
    leader.assert_lock_was_kept("ca.crt: it contains no certificate");
}

#[testkit::test]
fn a_replaced_token_file_is_read_while_the_ca_file_is_half_written() {
    let leader = Leader::new();
    leader.write_kubeconfig(&json!({ "tokenFile": "token" }));
    assert_lock_is_kept_with_half_written_ca_file(leader, |directory, token| {
        fs::write(directory.join("token"), token).expect("the token can be written");
    });
}

#[testkit::test]
fn a_plugin_is_run_while_the_ca_file_is_half_written() {
    let leader = Leader::new();
    let version = "client.authentication.k8s.io/v1";
    let script = format!("cat {}", leader.file("issued").display());
    let exec = json!({ "apiVersion": version, "command": "sh", "args": ["-c", script], "interactiveMode": "Never" });
    leader.write_kubeconfig(&json!({ "exec": exec }));
    assert_lock_is_kept_with_half_written_ca_file(leader, |directory, token| {
        let credential = json!({ "apiVersion": version, "kind": "ExecCredential", "status": { "token": token } });
        fs::write(directory.join("issued"), credential.to_string()).expect("the credential can be written");
    });
}

#[testkit::test]
fn a_leader_keeps_the_lock_while_its_kubeconfig_is_written_in_parts() {
    let mut leader = Leader::new();
    let (old, new) = (credentials::issue_token(ADMIN), credentials::issue_token(ADMIN));
    let (server, ca) = (leader.proxy.address(), BASE64_STANDARD.encode(tls::authority()));
    // The fields are in the order in which kubectl writes them.
    let kubeconfig_with = |token: &str| {
        format!(
            "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: {ca}\n    server: https://{server}\n  \
             name: c\ncontexts:\n- context:\n    cluster: c\n    user: u\n  name: x\ncurrent-context: x\nkind: Config\n\
             users:\n- name: u\n  user:\n    token: {token}\n"
        )
    };
    fs::write(leader.file("kubeconfig"), kubeconfig_with(&old)).expect("the kubeconfig can be written");
    leader.start();
    let new_text = kubeconfig_with(&new);
    let up_to = |end: &str| &new_text[..new_text.find(end).expect("the kubeconfig contains this text") + end.len()];
    // Each step writes the kubeconfig up to and including one of these strings. The first step leaves it empty.
    for end in ["", "data: LS0t", &server.to_string()[..9], "x\nkind", "- name: u\n", "  user:", &new[..8]] {
        leader.write_part("kubeconfig", up_to(end));
    }
    fs::write(leader.file("kubeconfig"), &new_text).expect("the kubeconfig can be written");
    credentials::revoke_token(&old);
    leader.wait_for_renewals();
    leader.assert_lock_was_kept("its user no longer has credentials");
}

#[testkit::test]
fn a_plugin_runs_again_after_it_has_printed_half_a_certificate() {
    let leader = Leader::new();
    let version = "client.authentication.k8s.io/v1";
    let certificate = credentials::issue_certificate(ADMIN);
    let credential = |certificate: &str, key: &str| {
        let status = json!({ "clientCertificateData": certificate, "clientKeyData": key });
        json!({ "apiVersion": version, "kind": "ExecCredential", "status": status }).to_string()
    };
    let issue = |output: String| fs::write(leader.file("issued"), output).expect("the credential can be written");
    issue(credential(half(&certificate.certificate), &certificate.key));
    let script = format!("cat {}", leader.file("issued").display());
    let exec = json!({ "apiVersion": version, "command": "sh", "args": ["-c", script], "interactiveMode": "Never" });
    leader.write_kubeconfig(&json!({ "exec": exec }));
    let mut a = Candidate::new("a", &leader.lock).run_script("echo started");
    a.wait_for_log("its output cannot be used: client-certificate: it contains no certificate");
    issue(credential(&certificate.certificate, &certificate.key));
    a.wait_for_exit(0);
    assert_eq!(a.output(), "started\n");
}
