//! Tests of the messages about the API server: its address, the user, and its errors.

use std::fs;
use std::path::PathBuf;

use testkit::recording_server::RecordingServer;
use testkit::{Candidate, Cluster, TestLock, scratch};

/// Writes a kubeconfig for a server without TLS. Returns its path.
fn kubeconfig(server: &RecordingServer) -> PathBuf {
    let file = scratch::folder("messages").join("config");
    let text = format!(
        "{{clusters: [{{name: c, cluster: {{server: 'http://{}'}}}}], users: [{{name: u, user: {{token: t}}}}], \
         contexts: [{{name: x, context: {{cluster: c, user: u}}}}], current-context: x}}",
        server.address()
    );
    fs::write(&file, text).expect("a kubeconfig");
    file
}

fn status_of(server: &RecordingServer) -> String {
    let kubeconfig = kubeconfig(server);
    let mut status = Candidate::bare("status").args(["status", "--lock", "probe", "--kubeconfig"]).args([kubeconfig]);
    status = status.env("NO_PROXY", "*");
    let mut status = status.start();
    status.wait();
    status.log()
}

#[testkit::test]
fn the_first_line_names_the_server_and_where_its_address_comes_from() {
    let cluster = Cluster::shared();
    let lock = TestLock::lease();
    let mut candidate = Candidate::new("a", &lock).run(["true"]);
    candidate.wait_for_exit(0);
    let log = candidate.log();
    let server = format!("is https://{}, by kubeconfig {}", cluster.address(), cluster.kubeconfig().display());
    let first = log.lines().next().unwrap_or_default();
    assert!(first.contains(&server) && first.contains(", context \"test\""), "{log}");
}

#[testkit::test]
fn a_server_that_is_not_an_api_server_is_recognised() {
    let page = "<html><head><title>Welcome</title></head></html>";
    for (code, content_type, body) in
        [(200, "text/html", page), (404, "text/html", page), (200, "application/json", "[1, 2]")]
    {
        let answer = move || (code, vec![("content-type", content_type.to_owned())], body.to_owned());
        let log = status_of(&RecordingServer::answering(None, answer));
        assert!(log.contains("not a Kubernetes API server") || log.contains("is not an API object"), "{log}");
        assert!(!log.contains("Welcome"), "{log}");
    }
}

#[testkit::test]
fn rejected_credentials_are_named() {
    let status = r#"{"kind":"Status","code":401,"message":"Unauthorized"}"#;
    let server = RecordingServer::answering(None, move || (401, Vec::new(), status.to_owned()));
    let log = status_of(&server);
    let says = format!("the API server http://{} rejected the token in the kubeconfig: Unauthorized", server.address());
    assert!(log.contains(&says), "{log}");
}

#[testkit::test]
fn a_failure_names_the_doctor_once() {
    let server = RecordingServer::answering(None, || (500, Vec::new(), "no".to_owned()));
    let mut candidate = Candidate::bare("a").args(["--lock", "probe", "--wait", "8s", "--retry-period", "1s"]);
    candidate = candidate.args(["--lease-duration", "6s", "--renew-deadline", "4s"]).args(["--kubeconfig"]);
    let mut candidate = candidate.args([kubeconfig(&server)]).run(["true"]);
    candidate.wait();
    assert_eq!(candidate.log().matches("leaderrun doctor --lock").count(), 1, "{}", candidate.log());
}
