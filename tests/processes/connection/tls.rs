//! Tests of TLS: leaderrun refuses the certificates that Go refuses, and accepts those that Go accepts, apart from the
//! exceptions in `docs/kubernetes.md`. If kubectl is installed, the tests compare leaderrun with kubectl.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CidrSubnet, CustomExtension, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, KeyPair, KeyUsagePurpose, NameConstraints, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use testkit::recording_server::RecordingServer;
use testkit::{Candidate, scratch};

type Issuer = CertifiedIssuer<'static, KeyPair>;

/// The reason in the log if the server's certificate or an intermediate certificate does not allow server
/// authentication.
const UNSUITABLE_KEY_USAGE: &str = "its extended key usage, or that of a certificate between it and the authority, \
                                    does not allow server authentication";

fn new_key() -> KeyPair {
    KeyPair::generate().expect("a key can be generated")
}

/// Returns the certificate fields of an authority with this name.
fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params
}

fn root_authority(params: CertificateParams) -> Issuer {
    CertifiedIssuer::self_signed(params, new_key()).expect("the authority can be created")
}

/// Returns the certificate fields of a server at 127.0.0.1.
fn server_params() -> CertificateParams {
    let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("the name is valid");
    params.distinguished_name.push(DnType::CommonName, "the server");
    params
}

/// The certificate chain and the key of a server, and the TLS settings in the kubeconfig.
struct Setup {
    chain: Vec<CertificateDer<'static>>,
    key: String,
    /// The certificates of the authorities in the kubeconfig.
    trusted: String,
    /// The `tls-server-name` in the kubeconfig; empty if there is none.
    server_name: &'static str,
}

impl Setup {
    /// Returns a setup whose server has a certificate from this authority. The kubeconfig contains the authority.
    fn issued(params: CertificateParams, issuer: &Issuer) -> Self {
        let key = new_key();
        let certificate = params.signed_by(&key, issuer).expect("the certificate can be signed");
        Self {
            chain: vec![certificate.der().clone()],
            key: key.serialize_pem(),
            trusted: issuer.pem(),
            server_name: "",
        }
    }

    /// Returns a setup whose server has a self-signed certificate. The kubeconfig contains this certificate.
    fn self_signed(params: CertificateParams) -> Self {
        let key = new_key();
        let certificate = params.self_signed(&key).expect("the certificate can be signed");
        Self {
            chain: vec![certificate.der().clone()],
            key: key.serialize_pem(),
            trusted: certificate.pem(),
            server_name: "",
        }
    }

    fn start(&self) -> RecordingServer {
        self.start_with_protocols(&[])
    }

    /// Starts the server with these application protocols (ALPN).
    fn start_with_protocols(&self, protocols: &[&str]) -> RecordingServer {
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("the key is in PEM");
        let config = ServerConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .and_then(|config| config.with_no_client_auth().with_single_cert(self.chain.clone(), key));
        let mut config = config.expect("the TLS settings are valid");
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        RecordingServer::start(Some(Arc::new(config)))
    }

    /// Writes a kubeconfig for a server. Returns its path.
    fn kubeconfig(&self, server: &RecordingServer) -> PathBuf {
        let directory = scratch::directory("tls");
        fs::write(directory.join("ca.crt"), &self.trusted).expect("the CA file can be written");
        let text = format!(
            "{{clusters: [{{name: c, cluster: {{server: 'https://{}', certificate-authority: ca.crt, \
             tls-server-name: '{}'}}}}], users: [{{name: u, user: {{token: t}}}}], contexts: [{{name: x, context: {{cluster: c, user: u}}}}], \
             current-context: x}}",
            server.address(),
            self.server_name
        );
        fs::write(directory.join("config"), text).expect("the kubeconfig can be written");
        directory.join("config")
    }
}

/// Starts the server and runs `leaderrun status`. Returns whether its request arrives at the server, and its log.
fn leaderrun_connects(setup: &Setup) -> (bool, String) {
    let server = setup.start();
    let kubeconfig = setup.kubeconfig(&server);
    let mut status = Candidate::without_default_options("status").args(["status", "--lock", "probe"]);
    status = status.env("KUBECONFIG", kubeconfig.to_str().expect("the path is UTF-8"));
    let mut status = status.start();
    status.wait();
    (!server.take_requests().is_empty(), status.log())
}

/// Starts the server and runs `kubectl version`. Returns whether its request arrives at the server; `None` if kubectl
/// is not installed.
fn kubectl_connects(setup: &Setup) -> Option<bool> {
    let server = setup.start();
    let mut kubectl = Command::new("kubectl");
    kubectl.args(["version", "--request-timeout", "5s"]).env("KUBECONFIG", setup.kubeconfig(&server));
    kubectl.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().ok()?;
    Some(!server.take_requests().is_empty())
}

/// Checks that leaderrun, and kubectl if it is installed, accept the server. `description` describes the case in
/// failure messages.
#[track_caller]
fn assert_accepted(description: &str, setup: &Setup) {
    let (arrived, log) = leaderrun_connects(setup);
    assert!(arrived, "{description} is refused: {log}");
    assert_ne!(kubectl_connects(setup), Some(false), "kubectl refuses {description}");
}

/// Checks that leaderrun refuses the server for this reason, and that kubectl, if it is installed, refuses it, too.
#[track_caller]
fn assert_refused(description: &str, setup: &Setup, reason: &str) {
    let (arrived, log) = leaderrun_connects(setup);
    assert!(!arrived, "{description} is accepted");
    assert!(log.contains(reason), "{description}: {log:?} does not say {reason:?}");
    assert_ne!(kubectl_connects(setup), Some(true), "kubectl accepts {description}");
}

/// Checks that leaderrun refuses the server for this reason, and that kubectl, if it is installed, accepts it.
/// `docs/kubernetes.md` lists these cases.
#[track_caller]
fn assert_only_leaderrun_refuses(description: &str, setup: &Setup, reason: &str) {
    let (arrived, log) = leaderrun_connects(setup);
    assert!(!arrived, "{description} is accepted");
    assert!(log.contains(reason), "{description}: {log:?} does not say {reason:?}");
    assert_ne!(kubectl_connects(setup), Some(false), "kubectl refuses {description}, too");
}

#[testkit::test]
fn a_certificate_from_the_configured_authority_is_accepted_if_its_chain_is_complete() {
    let issuer = root_authority(authority_params("one"));
    assert_accepted("a certificate", &Setup::issued(server_params(), &issuer));
    let mut for_servers_and_clients = server_params();
    for_servers_and_clients.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    assert_accepted("a certificate for servers and clients", &Setup::issued(for_servers_and_clients, &issuer));
    let mut for_anything = server_params();
    for_anything.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any];
    assert_accepted("a certificate for any purpose", &Setup::issued(for_anything, &issuer));
    let intermediate = CertifiedIssuer::signed_by(authority_params("intermediate"), new_key(), &issuer)
        .expect("the authority can be created");
    let mut with_chain = Setup::issued(server_params(), &intermediate);
    with_chain.chain.push(intermediate.der().clone());
    assert_accepted("a certificate from a trusted intermediate authority", &with_chain);
    with_chain.trusted = issuer.pem();
    assert_accepted("a certificate with its intermediate certificate", &with_chain);
    with_chain.chain.pop();
    assert_refused(
        "a certificate without its intermediate certificate",
        &with_chain,
        "its issuer is not the configured authority",
    );
}

#[testkit::test]
fn a_server_certificate_that_is_the_configured_authority_is_accepted_if_it_is_valid_for_the_server() {
    let mut params = authority_params("self-made");
    params.subject_alt_names = server_params().subject_alt_names;
    assert_accepted("an authority as the server", &Setup::self_signed(params.clone()));
    assert_accepted("a self-signed certificate", &Setup::self_signed(server_params()));
    let mut expired = params.clone();
    expired.not_after = date_time_ymd(2020, 1, 1);
    assert_refused("an expired authority as the server", &Setup::self_signed(expired), "it expired at 2020-01-01");
    let mut for_other_host = params;
    for_other_host.subject_alt_names =
        CertificateParams::new(["other.example".to_owned()]).expect("the name is valid").subject_alt_names;
    assert_refused(
        "a certificate for another host",
        &Setup::self_signed(for_other_host),
        "it is for other.example, not for 127.0.0.1",
    );
    let mut for_clients = server_params();
    for_clients.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    assert_refused(
        "a certificate for clients",
        &Setup::self_signed(for_clients),
        "its extended key usage does not allow server authentication",
    );
}

#[testkit::test]
fn a_server_may_use_a_valid_authority_certificate_that_the_configured_authority_issued() {
    let issuer = root_authority(authority_params("one"));
    let mut server_authority = authority_params("server authority");
    server_authority.subject_alt_names = server_params().subject_alt_names;
    assert_accepted(
        "an authority that the configured authority issued",
        &Setup::issued(server_authority.clone(), &issuer),
    );
    let mut forged = Setup::issued(server_authority.clone(), &root_authority(authority_params("one")));
    forged.trusted = issuer.pem();
    // The configured authority has not issued this certificate, so the TLS library's refusal is not overridden.
    assert_refused("a certificate from another authority with the same name", &forged, "it is a CA certificate");
    let mut expired = server_authority.clone();
    expired.not_after = date_time_ymd(2020, 1, 1);
    assert_refused("an expired certificate", &Setup::issued(expired, &issuer), "it expired at 2020-01-01");
    let mut for_other_host = server_authority.clone();
    for_other_host.subject_alt_names =
        CertificateParams::new(["other.example".to_owned()]).expect("the name is valid").subject_alt_names;
    assert_refused(
        "a certificate for another host",
        &Setup::issued(for_other_host, &issuer),
        "it is for other.example, not for 127.0.0.1",
    );
    let mut constrained = authority_params("constrained");
    let other_network = GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix([10, 0, 0, 0], 8));
    constrained.name_constraints =
        Some(NameConstraints { permitted_subtrees: vec![other_network], excluded_subtrees: Vec::new() });
    let constrained = Setup::issued(server_authority, &root_authority(constrained));
    assert_refused("a certificate from an authority for other networks", &constrained, "is refused");
}

#[testkit::test]
fn certificates_may_expire_in_any_year_but_must_not_begin_before_1970() {
    let issuer = root_authority(authority_params("one"));
    let with_years = |mut params: CertificateParams, from, until| {
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(until, 12, 31);
        params
    };
    for (from, until) in [(1970, 2049), (2020, 2050), (2020, 9999)] {
        assert_accepted(
            &format!("a certificate valid from {from} to {until}"),
            &Setup::issued(with_years(server_params(), from, until), &issuer),
        );
        let authority = root_authority(with_years(authority_params("two"), from, until));
        assert_accepted(
            &format!("an authority valid from {from} to {until}"),
            &Setup::issued(server_params(), &authority),
        );
    }
    let reason = "has a date that is malformed or before 1970, which the TLS library does not support";
    assert_only_leaderrun_refuses(
        "a server certificate from 1960",
        &Setup::issued(with_years(server_params(), 1960, 2049), &issuer),
        reason,
    );
    let old = root_authority(with_years(authority_params("old"), 1960, 2049));
    let mut issued_by_old = Setup::issued(server_params(), &old);
    assert_only_leaderrun_refuses("an authority from 1960", &issued_by_old, reason);
    issued_by_old.trusted += &issuer.pem();
    assert_only_leaderrun_refuses(
        "an authority from 1960 beside another one",
        &issued_by_old,
        "its issuer is not the configured authority",
    );
    let mut with_unneeded_old = Setup::issued(server_params(), &issuer);
    with_unneeded_old.trusted += &old.pem();
    assert_accepted("an authority from 1960 that is not needed", &with_unneeded_old);
    let intermediate =
        CertifiedIssuer::signed_by(with_years(authority_params("intermediate"), 1960, 2049), new_key(), &issuer);
    let intermediate = intermediate.expect("the authority can be created");
    let mut with_intermediate = Setup::issued(server_params(), &intermediate);
    with_intermediate.chain.push(intermediate.der().clone());
    with_intermediate.trusted = issuer.pem();
    assert_only_leaderrun_refuses("an intermediate authority from 1960", &with_intermediate, reason);
}

#[testkit::test]
fn an_address_in_a_certificate_may_be_an_ipv4_mapped_ipv6_address() {
    let issuer = root_authority(authority_params("one"));
    let setup_with_name =
        |name: &str| Setup::issued(CertificateParams::new([name.to_owned()]).expect("the name is valid"), &issuer);
    assert_accepted("a certificate for the IPv4-mapped address", &setup_with_name("::ffff:127.0.0.1"));
    assert_refused(
        "a certificate for another IPv4-mapped address",
        &setup_with_name("::ffff:127.0.0.2"),
        "not for 127.0.0.1; try setting tls-server-name",
    );
}

#[testkit::test]
fn the_message_about_a_server_that_speaks_only_http_2_says_so() {
    let setup = Setup::issued(server_params(), &root_authority(authority_params("one")));
    let server = setup.start_with_protocols(&["h2"]);
    let mut status = Candidate::without_default_options("status").args(["status", "--lock", "probe", "--kubeconfig"]);
    status = status.args([setup.kubeconfig(&server)]);
    let mut status = status.start();
    status.wait();
    assert!(status.log().contains("the server does not speak HTTP/1.1, the only protocol that"), "{}", status.log());
    assert!(server.take_requests().is_empty());
}

#[testkit::test]
fn a_wildcard_in_a_certificate_matches_exactly_one_label() {
    let issuer = root_authority(authority_params("one"));
    let setup_with_names = |server_name, name: &str| {
        let params = CertificateParams::new([name.to_owned()]).expect("the name is valid");
        Setup { server_name, ..Setup::issued(params, &issuer) }
    };
    for (server_name, name) in [("api.example.com", "*.example.com"), ("api.lan", "*.lan"), ("API.lan", "*.LAN")] {
        assert_accepted(&format!("a certificate for {name} as {server_name}"), &setup_with_names(server_name, name));
    }
    for (server_name, name) in [("a.b.lan", "*.lan"), ("lan", "*.lan"), ("api.other", "*.lan"), ("a.b", "*")] {
        assert_refused(
            &format!("a certificate for {name} as {server_name}"),
            &setup_with_names(server_name, name),
            "try setting tls-server-name",
        );
    }
}

#[testkit::test]
fn the_restrictions_in_an_authoritys_certificate_are_enforced() {
    let issuer = root_authority(authority_params("one"));
    let mut signs_nothing = authority_params("signs nothing");
    signs_nothing.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let mut for_clients = authority_params("for clients");
    for_clients.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    for (description, params, reason) in [
        ("an authority that may not issue certificates", &signs_nothing, "may not issue certificates"),
        ("an authority for clients", &for_clients, UNSUITABLE_KEY_USAGE),
    ] {
        assert_refused(
            description,
            &Setup::issued(server_params(), &root_authority(params.clone())),
            "its issuer is not the configured",
        );
        let intermediate =
            CertifiedIssuer::signed_by(params.clone(), new_key(), &issuer).expect("the authority can be created");
        let mut with_intermediate = Setup::issued(server_params(), &intermediate);
        with_intermediate.chain.push(intermediate.der().clone());
        with_intermediate.trusted = issuer.pem();
        assert_refused(&format!("{description} as an intermediate authority"), &with_intermediate, reason);
    }
    let mut direct = authority_params("direct");
    direct.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let direct = root_authority(direct);
    assert_accepted("an authority that permits no intermediate authorities", &Setup::issued(server_params(), &direct));
    let intermediate = CertifiedIssuer::signed_by(authority_params("intermediate"), new_key(), &direct)
        .expect("the authority can be created");
    let mut with_intermediate = Setup::issued(server_params(), &intermediate);
    with_intermediate.chain.push(intermediate.der().clone());
    with_intermediate.trusted = direct.pem();
    assert_refused(
        "an intermediate authority that its issuer does not permit",
        &with_intermediate,
        "its chain is longer than one of its authorities permits",
    );
    let mut unknown = authority_params("unknown");
    let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
    extension.set_criticality(true);
    unknown.custom_extensions.push(extension);
    assert_refused(
        "an authority with an unknown critical extension",
        &Setup::issued(server_params(), &root_authority(unknown)),
        "is refused",
    );
}

#[testkit::test]
fn certificates_that_go_refuses_are_refused_with_a_reason() {
    let issuer = root_authority(authority_params("one"));
    let mut expired = server_params();
    expired.not_after = date_time_ymd(2020, 1, 1);
    let reason =
        "the server's certificate \"CN=the server\", issued by \"CN=one\", is refused: it expired at 2020-01-01";
    assert_refused("an expired certificate", &Setup::issued(expired, &issuer), reason);
    let mut early = server_params();
    early.not_before = date_time_ymd(2090, 1, 1);
    assert_refused(
        "a certificate that is not yet valid",
        &Setup::issued(early, &issuer),
        "it is not valid before 2090-01-01",
    );
    let mut other = Setup::issued(server_params(), &root_authority(authority_params("one")));
    other.trusted = issuer.pem();
    assert_refused("a certificate from another authority with the same name", &other, "is refused");
    let mut unknown = Setup::issued(server_params(), &root_authority(authority_params("two")));
    unknown.trusted = issuer.pem();
    assert_refused("a certificate from an unknown authority", &unknown, "its issuer is not the configured authority");
    let mut for_other_host = CertificateParams::new(["other.example".to_owned()]).expect("the name is valid");
    for_other_host.distinguished_name.push(DnType::CommonName, "127.0.0.1");
    assert_refused(
        "a certificate for another host",
        &Setup::issued(for_other_host, &issuer),
        "it is for other.example, not for 127.0.0.1",
    );
    let mut nameless = server_params();
    nameless.subject_alt_names.clear();
    assert_refused("a certificate for no host", &Setup::issued(nameless, &issuer), "it has no host name");
    let mut for_clients = server_params();
    for_clients.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    assert_refused("a certificate for clients", &Setup::issued(for_clients, &issuer), UNSUITABLE_KEY_USAGE);
    let mut expired_authority = authority_params("past");
    expired_authority.not_after = date_time_ymd(2020, 1, 1);
    assert_refused(
        "an expired authority",
        &Setup::issued(server_params(), &root_authority(expired_authority)),
        "cannot be used: it expired",
    );
    let mut no_authority = authority_params("no_authority");
    no_authority.is_ca = IsCa::ExplicitNoCa;
    assert_refused(
        "a certificate that is not an authority",
        &Setup::issued(server_params(), &root_authority(no_authority)),
        "is refused",
    );
}
