//! Tests with service account tokens of a real API server. The tests replace the token file as the kubelet does in a
//! pod.

use std::cell::Cell;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use testkit::{Client, Cluster, eventually};

use super::credential_rotation::{Candidates, ROTATIONS, replace};

/// The shortest lifetime for which an API server issues a token.
const TOKEN_LIFETIME: Duration = Duration::from_secs(600);

const ACCOUNT: &str = "/api/v1/namespaces/default/serviceaccounts/candidate";

/// Issues and revokes the tokens of a service account that has all permissions.
struct Issuer {
    admin: Client,
    /// The file to which each new token is written.
    file: PathBuf,
    /// The number of tokens that have been issued.
    issued: Cell<usize>,
}

impl Issuer {
    fn new(cluster: &Cluster, file: PathBuf) -> Self {
        let admin = cluster.admin();
        let metadata = json!({ "name": "candidate", "namespace": "default" });
        let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata });
        admin
            .create("/api/v1/namespaces/default/serviceaccounts", &account)
            .expect("the ServiceAccount can be created");
        let binding = json!({
            "metadata": { "name": "candidate" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin" },
            "subjects": [{ "kind": "ServiceAccount", "name": "candidate", "namespace": "default" }],
        });
        let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
        admin.create(bindings, &binding).expect("the ClusterRoleBinding can be created");
        Self { admin, file, issued: Cell::new(0) }
    }

    /// Writes a new token to the file. The token is valid for ten minutes, but only while its Secret exists.
    fn issue(&self) {
        self.issued.set(self.issued.get() + 1);
        let secret = json!({ "metadata": { "name": self.secret() } });
        let secret =
            self.admin.create("/api/v1/namespaces/default/secrets", &secret).expect("the Secret can be created");
        let bound = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "name": self.secret(),
            "uid": secret["metadata"]["uid"],
        });
        let request = json!({ "spec": { "expirationSeconds": TOKEN_LIFETIME.as_secs(), "boundObjectRef": bound } });
        let response = self.admin.create(&format!("{ACCOUNT}/token"), &request).expect("a token can be requested");
        replace(&self.file, response["status"]["token"].as_str().expect("the response contains a token"));
    }

    /// Replaces the token in the file, and revokes the previous token by deleting its Secret.
    fn replace_and_revoke(&self) {
        let (revoked, secret) = (fs::read_to_string(&self.file).expect("the token can be read"), self.secret());
        self.issue();
        self.admin.delete(&format!("/api/v1/namespaces/default/secrets/{secret}")).expect("the Secret can be deleted");
        // The API server caches valid tokens for a few seconds.
        eventually("the token is revoked", || !self.is_valid(&revoked));
    }

    /// Returns whether the API server accepts a token.
    fn is_valid(&self, token: &str) -> bool {
        let review = json!({ "spec": { "token": token } });
        let review = self
            .admin
            .create("/apis/authentication.k8s.io/v1/tokenreviews", &review)
            .expect("the TokenReview can be created");
        review["status"]["authenticated"] == Value::Bool(true)
    }

    /// Returns the name of the Secret of the last token.
    fn secret(&self) -> String {
        format!("token-{}", self.issued.get())
    }
}

/// Runs a leader and a standby whose token file `rotate` replaces repeatedly, and checks that the lock is not lost.
fn assert_lock_is_kept_during(rotate: impl Fn(&Issuer)) {
    let candidates = Candidates::with_cluster(Cluster::start());
    let file = candidates.file("token");
    let issuer = Issuer::new(&candidates.cluster, file.clone());
    issuer.issue();
    eventually("the account has its permissions", || {
        let token = fs::read_to_string(&file).expect("the token can be read");
        let client =
            Client::anonymous(candidates.cluster.address()).with_header("authorization", &format!("Bearer {token}"));
        client.get("/api/v1/namespaces").is_ok()
    });
    candidates.write_kubeconfigs(&json!({ "tokenFile": file }));
    candidates.assert_lock_is_kept_during(|| rotate(&issuer));
}

/// Returns an error if the tests do not use a real API server.
fn check_real_api_server() -> Result<(), String> {
    match std::env::var_os("KUBEBUILDER_ASSETS") {
        Some(_) => Ok(()),
        None => Err("KUBEBUILDER_ASSETS is not set".to_owned()),
    }
}

#[testkit::test(requires = check_real_api_server())]
fn a_leader_keeps_the_lock_while_service_account_tokens_are_replaced_and_revoked() {
    assert_lock_is_kept_during(Issuer::replace_and_revoke);
}

/// Always returns an error, so that the test only runs with `--ignored`.
fn only_explicitly() -> Result<(), String> {
    Err("takes a quarter of an hour and requires KUBEBUILDER_ASSETS".to_owned())
}

/// The first tokens expire during the test.
#[testkit::test(requires = only_explicitly())]
fn a_leader_keeps_the_lock_while_service_account_tokens_are_replaced_and_expire() {
    check_real_api_server().expect("a real API server is configured");
    let start = Instant::now();
    assert_lock_is_kept_during(|issuer| {
        let duration_of_test = TOKEN_LIFETIME + Duration::from_secs(150);
        thread::sleep(duration_of_test / u32::try_from(ROTATIONS).expect("the number of rotations is small"));
        issuer.issue();
    });
    assert!(start.elapsed() > TOKEN_LIFETIME);
}
