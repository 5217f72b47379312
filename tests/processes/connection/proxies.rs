//! Tests of proxies: which proxy is used for which server, and with which credentials.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;
use testkit::recording_server::RecordingServer;
use testkit::tunnel::{TunnelProtocol, TunnelProxy};
use testkit::users::ADMIN;
use testkit::{Candidate, Cluster, Match, Proxy, TestLock, Witnesses, scratch, tls};

/// Durations that leave enough time for a third request after two requests without a response.
const TIMING: [&str; 6] = ["--lease-duration", "12s", "--renew-deadline", "9s", "--retry-period", "1s"];

/// A server whose name does not exist, so only a proxy can receive requests to it.
const SERVER: &str = "https://api.leaderrun.invalid:6443";

/// The fields of a user with a token.
const USER_WITH_TOKEN: &str = "{token: secret}";

/// Writes a kubeconfig for a server. `more_fields` contains additional fields of the cluster, each preceded by a comma.
/// Returns the path of the kubeconfig.
fn kubeconfig(server: &str, more_fields: &str) -> PathBuf {
    let file = scratch::directory("proxies").join("config");
    let text = format!(
        "{{clusters: [{{name: c, cluster: {{server: '{server}', insecure-skip-tls-verify: true{more_fields}}}}}], \
         contexts: [{{name: x, context: {{cluster: c}}}}], current-context: x}}"
    );
    fs::write(&file, text).expect("the kubeconfig can be written");
    file
}

/// Runs `leaderrun status` with these variables. Returns the method, target and credentials of the requests to the
/// proxy, without repetitions.
fn requests_to(proxy: &RecordingServer, kubeconfig: &PathBuf, variables: &[(&str, String)]) -> Vec<String> {
    let mut status = Candidate::without_default_options("status")
        .args(["status", "--lock", "probe", "--kubeconfig"])
        .args([kubeconfig]);
    for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy"] {
        status = status.configure(|command| {
            command.env_remove(name);
        });
    }
    for (name, value) in variables {
        status = status.env(name, value);
    }
    status.start().wait();
    let requests = proxy.take_requests().into_iter().map(|request| {
        let credentials = request.headers.get("proxy-authorization").cloned().unwrap_or_default();
        format!("{} {} {credentials}", request.method, request.target).trim_end().to_owned()
    });
    let mut requests: Vec<String> = requests.collect();
    requests.dedup();
    requests
}

#[testkit::test]
fn the_previous_proxy_is_used_while_the_new_one_hangs_or_refuses() {
    // The first proxy accepts connections but never responds. The second refuses every request.
    let silent = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let refusing = RecordingServer::responding_with(None, || (407, Vec::new(), String::new()));
    for unusable_proxy in [silent.local_addr().expect("the socket has an address"), refusing.address()] {
        assert_previous_proxy_is_used(unusable_proxy);
    }
}

/// Changes the proxy in a leader's kubeconfig to one that cannot be used. Checks that the leader keeps the lock through
/// the previous proxy.
fn assert_previous_proxy_is_used(unusable_proxy: SocketAddr) {
    let cluster = Cluster::shared();
    let (faults, witnesses) = (Proxy::start(cluster), Witnesses::new());
    let proxy = TunnelProxy::start(TunnelProtocol::Http, faults.address());
    let write_kubeconfig = |file: &Path, proxy: SocketAddr| {
        let config = json!({
            "clusters": [{ "name": "c", "cluster": {
                "server": format!("https://{}", cluster.address()), "insecure-skip-tls-verify": true,
                "proxy-url": format!("http://{proxy}"),
            } }],
            "users": [{ "name": "u", "user": { "token": ADMIN.token } }],
            "contexts": [{ "name": "x", "context": { "cluster": "c", "user": "u" } }],
            "current-context": "x",
        });
        fs::write(file, config.to_string()).expect("the kubeconfig can be written");
    };
    let file = scratch::directory("proxies").join("config");
    write_kubeconfig(&file, proxy.address());
    let lock = TestLock::lease_through(file.clone());
    let mut a = Candidate::with_timing("a", &lock, TIMING).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    write_kubeconfig(&file, unusable_proxy);
    // After a 401, leaderrun reads the kubeconfig again.
    faults.respond(Match::put().next(1), 401, None);
    cluster.wait_for_renewals(&lock, 2);
    proxy.take_destinations();
    faults.break_connections();
    cluster.wait_for_renewals(&lock, 3);
    assert!(!proxy.take_destinations().is_empty());
    assert_eq!(witnesses.lifetimes_of("a")[0].signaled_at, 0, "the command got a stop signal: {}", a.log());
    a.stop();
}

#[testkit::test]
fn the_proxy_in_the_environment_is_used() {
    let proxy = RecordingServer::start(None);
    let (address, kubeconfig) = (proxy.address(), kubeconfig(SERVER, ""));
    let tunnel = ["CONNECT api.leaderrun.invalid:6443"];
    for (name, value) in [
        ("HTTPS_PROXY", format!("http://{address}")),
        ("https_proxy", format!("http://{address}/")),
        ("HTTPS_PROXY", address.to_string()),
    ] {
        assert_eq!(requests_to(&proxy, &kubeconfig, &[(name, value.clone())]), tunnel, "{name}={value}");
    }
    let with_password = format!("http://me:p%40ss@{address}");
    let authorized = ["CONNECT api.leaderrun.invalid:6443 Basic bWU6cEBzcw=="];
    assert_eq!(requests_to(&proxy, &kubeconfig, &[("HTTPS_PROXY", with_password)]), authorized);
    for name in ["HTTP_PROXY", "ALL_PROXY"] {
        assert!(requests_to(&proxy, &kubeconfig, &[(name, format!("http://{address}"))]).is_empty(), "{name}");
    }
}

#[testkit::test]
fn the_variable_no_proxy_applies_to_the_server_and_not_to_the_proxy() {
    let proxy = RecordingServer::start(None);
    let kubeconfig = kubeconfig(SERVER, "");
    let is_used = |exceptions: &str| {
        let variables = [("HTTPS_PROXY", format!("http://{}", proxy.address())), ("NO_PROXY", exceptions.to_owned())];
        !requests_to(&proxy, &kubeconfig, &variables).is_empty()
    };
    for exceptions in ["api.leaderrun.invalid", "x, leaderrun.invalid ,", ".invalid", "*.leaderrun.invalid:6443", "*"] {
        assert!(!is_used(exceptions), "{exceptions:?}");
    }
    for exceptions in ["127.0.0.1", "127.0.0.0/8", "api", "leaderrun.invalid:443", ","] {
        assert!(is_used(exceptions), "{exceptions:?}");
    }
}

#[testkit::test]
fn proxy_url_takes_precedence_over_the_environment() {
    let (proxy, other) = (RecordingServer::start(None), RecordingServer::start(None));
    let variables = [("HTTPS_PROXY", format!("http://{}", other.address())), ("NO_PROXY", "*".to_owned())];
    let kubeconfig = kubeconfig(SERVER, &format!(", proxy-url: 'http://{}'", proxy.address()));
    assert_eq!(requests_to(&proxy, &kubeconfig, &variables), ["CONNECT api.leaderrun.invalid:6443"]);
    assert!(other.take_requests().is_empty());
}

#[testkit::test]
fn the_proxy_in_the_environment_is_not_used_for_a_server_on_this_machine() {
    let proxy = RecordingServer::start(None);
    let kubeconfig = kubeconfig("https://127.0.0.1:1", "");
    assert!(requests_to(&proxy, &kubeconfig, &[("HTTPS_PROXY", format!("http://{}", proxy.address()))]).is_empty());
}

/// Writes a kubeconfig for [`SERVER`] that trusts the CA of the test servers. `user` contains the fields of its user.
/// Returns its path.
fn trusting_kubeconfig(proxy_url: &str, user: &str) -> PathBuf {
    let authority = BASE64_STANDARD.encode(tls::authority());
    let file = scratch::directory("proxies").join("config");
    let text = format!(
        "{{clusters: [{{name: c, cluster: {{server: '{SERVER}', certificate-authority-data: {authority}, \
         tls-server-name: localhost, proxy-url: '{proxy_url}'}}}}], users: [{{name: u, user: {user}}}], \
         contexts: [{{name: x, context: {{cluster: c, user: u}}}}], current-context: x}}"
    );
    fs::write(&file, text).expect("the kubeconfig can be written");
    file
}

/// Runs `leaderrun status`. Returns whether its request arrives at the server, and its log.
fn leaderrun_request_arrives(server: &RecordingServer, kubeconfig: &Path) -> (bool, String) {
    let mut status = Candidate::without_default_options("status")
        .args(["status", "--lock", "probe", "--kubeconfig"])
        .args([kubeconfig]);
    status = status.env("NO_PROXY", "*");
    let mut status = status.start();
    status.wait();
    (!server.take_requests().is_empty(), status.log())
}

/// Runs `kubectl version`. Returns whether its request arrives at the server; `None` if kubectl is not installed.
fn kubectl_request_arrives(server: &RecordingServer, kubeconfig: &Path) -> Option<bool> {
    let mut kubectl = Command::new("kubectl");
    kubectl.args(["version", "--request-timeout", "20s"]).env("KUBECONFIG", kubeconfig).stdin(Stdio::null());
    kubectl.stdout(Stdio::null()).stderr(Stdio::null()).status().ok()?;
    Some(!server.take_requests().is_empty())
}

#[testkit::test]
fn requests_arrive_through_proxies_of_each_kind() {
    let server = RecordingServer::start(Some(tls::server_config()));
    for (protocol, scheme) in
        [(TunnelProtocol::Http, "http"), (TunnelProtocol::Https, "https"), (TunnelProtocol::Socks5, "socks5")]
    {
        let proxy = TunnelProxy::start(protocol, server.address());
        for (credentials, decoded) in [("", ""), ("me:p%40ss@", "me:p@ss")] {
            let kubeconfig =
                trusting_kubeconfig(&format!("{scheme}://{credentials}{}", proxy.address()), USER_WITH_TOKEN);
            if let Some(arrived) = kubectl_request_arrives(&server, &kubeconfig) {
                assert!(arrived, "kubectl's request should arrive through {scheme}");
            }
            proxy.take_destinations();
            let (arrived, log) = leaderrun_request_arrives(&server, &kubeconfig);
            assert!(arrived, "{scheme}: {log}");
            let credentials_as_sent = match (decoded, protocol) {
                ("", _) => String::new(),
                (_, TunnelProtocol::Socks5) => format!(" {decoded}"),
                _ => format!(" Basic {}", BASE64_STANDARD.encode(decoded)),
            };
            let mut requested = proxy.take_destinations();
            requested.dedup();
            assert_eq!(requested, [format!("api.leaderrun.invalid:6443{credentials_as_sent}")], "{scheme}");
        }
    }
}

#[testkit::test]
fn an_https_proxy_gets_the_client_certificate() {
    let server = RecordingServer::start(Some(tls::server_config()));
    let proxy = TunnelProxy::start(TunnelProtocol::MutualHttps, server.address());
    let client = tls::client_identity("me");
    let [certificate, key] = [client.certificate, client.key].map(|pem| BASE64_STANDARD.encode(pem));
    let user = format!("{{client-certificate-data: {certificate}, client-key-data: {key}}}");
    let proxy_url = format!("https://{}", proxy.address());
    let kubeconfig = trusting_kubeconfig(&proxy_url, &user);
    assert_ne!(
        kubectl_request_arrives(&server, &kubeconfig),
        Some(false),
        "kubectl should present the certificate, too"
    );
    let (arrived, log) = leaderrun_request_arrives(&server, &kubeconfig);
    assert!(arrived, "{log}");
    let (arrived, log) = leaderrun_request_arrives(&server, &trusting_kubeconfig(&proxy_url, USER_WITH_TOKEN));
    assert!(!arrived && log.contains("the proxy asks for a client certificate, but the kubeconfig has none"), "{log}");
}

#[testkit::test]
fn a_proxys_certificate_is_verified_like_the_api_servers_certificate() {
    let server = RecordingServer::start(Some(tls::server_config()));
    let proxy = TunnelProxy::start(TunnelProtocol::Https, server.address());
    let proxy_url = format!(", proxy-url: 'https://{}'", proxy.address());
    // With insecure-skip-tls-verify, the proxy's certificate is not verified either.
    assert!(leaderrun_request_arrives(&server, &kubeconfig(SERVER, &proxy_url)).0);
    let insecure = fs::read_to_string(kubeconfig(SERVER, &proxy_url)).expect("the kubeconfig can be read");
    let file = scratch::directory("proxies").join("config");
    fs::write(&file, insecure.replace("verify: true", "verify: false")).expect("the kubeconfig can be written");
    let (arrived, log) = leaderrun_request_arrives(&server, &file);
    assert!(!arrived, "a proxy whose CA is unknown should not be trusted");
    assert!(log.contains("the proxy's certificate"), "{log}");
    assert!(log.contains("this system does not trust its issuer"), "{log}");
}

#[testkit::test]
fn requests_to_a_server_without_tls_are_sent_to_the_proxy_without_a_tunnel() {
    let proxy = RecordingServer::start(None);
    let kubeconfig = kubeconfig("http://api.leaderrun.invalid/prefix", "");
    let requests = requests_to(&proxy, &kubeconfig, &[("http_proxy", format!("http://me:p%40ss@{}", proxy.address()))]);
    let target = "http://api.leaderrun.invalid/prefix/apis/coordination.k8s.io/v1/namespaces/default/leases/probe";
    assert_eq!(requests[0], format!("GET {target} Basic bWU6cEBzcw=="));
}

#[testkit::test]
fn the_message_names_a_proxy_that_cannot_be_reached() {
    let kubeconfig = kubeconfig(SERVER, "");
    let mut status = Candidate::without_default_options("status")
        .args(["status", "--lock", "probe", "--kubeconfig"])
        .args([&kubeconfig]);
    status = status.env("HTTPS_PROXY", "http://127.0.0.1:1").env("NO_PROXY", "");
    let mut status = status.start();
    status.wait();
    let expected = "cannot connect to https://api.leaderrun.invalid:6443 through http://127.0.0.1:1 (HTTPS_PROXY): ";
    assert!(status.log().contains(expected), "{}", status.log());
}

#[testkit::test]
fn the_message_names_a_proxy_that_refuses_and_the_reason() {
    for (code, credentials, reason) in [
        (403, "", "the proxy refused the tunnel with 403 Forbidden"),
        (502, "", "the proxy refused the tunnel with 502 Bad Gateway"),
        (407, "", "the proxy asks for a user name and a password; add them to proxy-url"),
        (407, "me:pw@", "the proxy rejected the user name \"me\" and its password; check proxy-url"),
    ] {
        let proxy = RecordingServer::responding_with(None, move || (code, Vec::new(), "no".to_owned()));
        let proxy_url = format!(", proxy-url: 'http://{credentials}{}'", proxy.address());
        let (_, log) = leaderrun_request_arrives(&proxy, &kubeconfig(SERVER, &proxy_url));
        let expected = format!("through http://{} (proxy-url): {reason}", proxy.address());
        assert!(log.contains(&expected), "{code}: {log}");
        assert!(!log.contains("pw"), "{log}");
    }
}
