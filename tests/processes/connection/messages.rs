//! Tests of the messages about the API server: its address, the credentials, and its errors.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::thread;

use testkit::credentials;
use testkit::recording_server::RecordingServer;
use testkit::users::ADMIN;
use testkit::{Candidate, Cluster, Running, TestLock, scratch};

/// Writes a kubeconfig for a server without TLS. Returns its path.
fn kubeconfig(server: SocketAddr) -> PathBuf {
    let file = scratch::directory("messages").join("config");
    let text = format!(
        "{{clusters: [{{name: c, cluster: {{server: 'http://{server}'}}}}], users: [{{name: u, user: {{token: t}}}}], \
         contexts: [{{name: x, context: {{cluster: c, user: u}}}}], current-context: x}}"
    );
    fs::write(&file, text).expect("the kubeconfig can be written");
    file
}

/// Runs `leaderrun status` for a lock on this server.
fn run_status(server: SocketAddr) -> Running {
    let kubeconfig = kubeconfig(server);
    let mut status = Candidate::without_default_options("status")
        .args(["status", "--lock", "probe", "--kubeconfig"])
        .args([kubeconfig]);
    status = status.env("NO_PROXY", "*");
    let mut status = status.start();
    status.wait();
    status
}

#[testkit::test]
fn the_first_line_names_the_server_and_where_its_address_comes_from() {
    let cluster = Cluster::shared();
    let lock = TestLock::lease();
    let mut candidate = Candidate::new("a", &lock).run(["true"]);
    candidate.wait_for_exit(0);
    let log = candidate.log();
    let server =
        format!("is https://{}, according to kubeconfig {}", cluster.address(), cluster.kubeconfig().display());
    let first = log.lines().next().unwrap_or_default();
    assert!(first.contains(&server) && first.contains(", context \"test\""), "{log}");
}

#[testkit::test]
fn the_message_says_whether_this_is_a_pod_and_which_variable_is_missing() {
    let log_with = |variables: &[(&str, &str)]| {
        let mut candidate = Candidate::without_default_options("a").args(["--lock", "probe"]).configure(|command| {
            for name in ["HOME", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"] {
                command.env_remove(name);
            }
            command.envs(variables.iter().copied());
        });
        candidate = candidate.args(["--wait", "1s"]);
        let mut running = candidate.run(["true"]);
        running.wait();
        running.log()
    };
    let (host, port) = (("KUBERNETES_SERVICE_HOST", "10.96.0.1"), ("KUBERNETES_SERVICE_PORT", "443"));
    for (variables, missing) in [([host], port.0), ([port], host.0)] {
        let log = log_with(&variables);
        assert!(log.contains(&format!("this is a pod, but its environment lacks {missing}; ")), "{log}");
    }
    assert!(log_with(&[]).contains("this is not a pod"));
}

#[testkit::test]
fn the_message_about_a_server_that_is_not_an_api_server_says_so() {
    let page = "<html><head><title>Welcome</title></head></html>";
    for (code, content_type, body) in
        [(200, "text/html", page), (404, "text/html", page), (200, "application/json", "[1, 2]")]
    {
        let respond = move || (code, vec![("content-type", content_type.to_owned())], body.to_owned());
        let log = run_status(RecordingServer::responding_with(None, respond).address()).log();
        assert!(
            log.contains("did not respond like a Kubernetes API server") || log.contains("is not an API object"),
            "{log}"
        );
        assert!(!log.contains("Welcome"), "{log}");
    }
}

#[testkit::test]
fn the_message_about_rejected_credentials_names_them() {
    let status = r#"{"kind":"Status","code":401,"message":"Unauthorized"}"#;
    let server = RecordingServer::responding_with(None, move || (401, Vec::new(), status.to_owned()));
    let log = run_status(server.address()).log();
    let expected =
        format!("the API server http://{} rejected the token in the kubeconfig: Unauthorized", server.address());
    assert!(log.contains(&expected), "{log}");
}

#[testkit::test]
fn the_message_says_what_in_a_kubeconfig_cannot_be_used() {
    let directory = scratch::directory("fields");
    let (kubeconfig, text) = (directory.join("config"), directory.join("text"));
    fs::write(&text, "some text").expect("the file can be written");
    let issued = credentials::issue_certificate(ADMIN);
    fs::write(directory.join("me.crt"), issued.certificate).expect("the certificate can be written");
    let text = text.display();
    for (cluster, user, expected) in [
        ("certificate-authority: /no/file", "", "certificate-authority /no/file: No such file or directory"),
        ("certificate-authority: text", "", &format!("certificate-authority {text}: it contains no certificate")),
        ("certificate-authority-data: c29tZSB0ZXh0", "", "certificate-authority-data: it contains no certificate"),
        ("certificate-authority-data: '!'", "", "it is not a valid kubeconfig: invalid base64 at line 1"),
        (
            "",
            "client-certificate: /no/file, client-key: text",
            "client-certificate /no/file: No such file or directory",
        ),
        ("", "client-certificate: me.crt, client-key: /no/file", "client-key /no/file: No such file or directory"),
        ("", "client-certificate: me.crt, client-key: text", &format!("client-key {text}: it contains no private key")),
        ("", "tokenFile: /no/file", "the token file /no/file: No such file or directory"),
        (
            "",
            "exec: {apiVersion: client.authentication.k8s.io/v1, command: x}",
            "no interactiveMode, which v1 requires; use Never, IfAvailable or Always",
        ),
        (
            "",
            "exec: {apiVersion: client.authentication.k8s.io/v1, command: /, interactiveMode: Never}",
            "the credential plugin / failed: it is a directory; ",
        ),
        (
            "",
            "exec: {apiVersion: client.authentication.k8s.io/v1, command: ./text, interactiveMode: Never}",
            &format!("the credential plugin {text} failed: this user may not execute it; "),
        ),
    ] {
        let cluster = if cluster.is_empty() { "insecure-skip-tls-verify: true" } else { cluster };
        let contents = format!(
            "{{clusters: [{{name: c, cluster: {{server: 'https://127.0.0.1:1', {cluster}}}}}], \
             users: [{{name: u, user: {{{user}}}}}], \
             contexts: [{{name: x, context: {{cluster: c, user: u}}}}], current-context: x}}"
        );
        fs::write(&kubeconfig, &contents).expect("the kubeconfig can be written");
        let status = Candidate::without_default_options("status").args(["status", "--lock", "probe", "--kubeconfig"]);
        let mut status = status.args([&kubeconfig]).start();
        status.wait();
        assert!(status.log().contains(expected), "{contents}: {}", status.log());
    }
}

#[testkit::test]
fn leaderrun_doctor_is_suggested_once_during_a_lasting_failure() {
    let server = RecordingServer::responding_with(None, || (500, Vec::new(), "no".to_owned()));
    let mut candidate =
        Candidate::without_default_options("a").args(["--lock", "probe", "--wait", "8s", "--retry-period", "1s"]);
    candidate = candidate.args(["--lease-duration", "6s", "--renew-deadline", "4s"]).args(["--kubeconfig"]);
    let mut candidate = candidate.args([kubeconfig(server.address())]).run(["true"]);
    candidate.wait();
    assert_eq!(candidate.log().matches("leaderrun doctor --lock").count(), 1, "{}", candidate.log());
}

/// Starts a server that sends this response to each request, and then closes the connection. Returns its address.
fn server_sending(response: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("127.0.0.1 has a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(&stream).lines();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let _ = stream.write_all(response.as_bytes());
        }
    });
    address
}

/// Returns an HTTP response with a Lease and these additional headers.
fn lease_with(headers: &str) -> String {
    let lease = r#"{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":"probe","uid":"1","resourceVersion":"1"},"spec":{"holderIdentity":"the holder"}}"#;
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{headers}Content-Length: {}\r\n\r\n{lease}",
        lease.len()
    )
}

fn many_headers(count: usize) -> String {
    (0..count).map(|number| format!("X-Header-{number}: a\r\n")).collect()
}

#[testkit::test]
fn unusual_headers_are_accepted_as_in_go() {
    for (description, headers) in [
        ("500 headers", many_headers(500)),
        ("a header on two lines", "X-A: b\r\n  c\r\n".to_owned()),
        ("a space after a name", "X-A : b\r\n".to_owned()),
        ("a value that is not ASCII", "X-A: \u{fc}\r\n".to_owned()),
        ("a long value", format!("X-A: {}\r\n", "a".repeat(100_000))),
    ] {
        let status = run_status(server_sending(lease_with(&headers)));
        assert!(status.output().contains("the holder"), "{description}: {}", status.log());
    }
}

#[testkit::test]
fn too_many_headers_or_conflicting_lengths_are_refused() {
    for (description, headers) in
        [("2000 headers", many_headers(2000)), ("two different lengths", "Content-Length: 1\r\n".to_owned())]
    {
        let server = server_sending(lease_with(&headers));
        let log = run_status(server).log();
        assert!(log.contains(&format!("no response from http://{server}: ")), "{description}: {log}");
    }
}

#[testkit::test]
fn the_message_about_a_response_that_is_not_http_or_is_cut_off_names_the_server() {
    for (response, reason) in [
        ("", ""),
        ("SSH-2.0-OpenSSH_9.9\r\n", ""),
        ("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "the server closed the connection"),
    ] {
        let server = server_sending(response.to_owned());
        let log = run_status(server).log();
        assert!(log.contains(&format!("no response from http://{server}: {reason}")), "{response:?}: {log}");
    }
}
