//! The certificate authority of this test process, and the certificate of its servers on 127.0.0.1.

use std::sync::{Arc, LazyLock};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientCertVerifierBuilder, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

/// A certificate for a server on this machine, with its key, both as PEM.
pub struct ServerCertificate {
    pub certificate: String,
    pub key: String,
}

/// A client certificate with its key, both as PEM, and the certificate as DER.
pub struct ClientIdentity {
    pub certificate: String,
    pub der: Vec<u8>,
    pub key: String,
}

static AUTHORITY: LazyLock<CertifiedIssuer<'static, KeyPair>> = LazyLock::new(|| {
    CertifiedIssuer::self_signed(authority_named("leaderrun tests"), new_key()).expect("the authority can be created")
});

fn authority_named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

static SERVER: LazyLock<ServerCertificate> = LazyLock::new(|| {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let mut params = CertificateParams::new(names).expect("the names are valid");
    params.distinguished_name.push(DnType::CommonName, "leaderrun test server");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = new_key();
    let certificate = params.signed_by(&key, &AUTHORITY).expect("the certificate can be signed");
    ServerCertificate { certificate: certificate.pem(), key: key.serialize_pem() }
});

/// Returns the certificate authority's own certificate, which clients must trust, as PEM.
pub fn authority() -> String {
    AUTHORITY.pem()
}

/// Returns the certificate and the key that all servers of this process share.
pub fn server_certificate() -> &'static ServerCertificate {
    &SERVER
}

/// Returns a client certificate for a user.
pub fn client_identity(user: &str) -> ClientIdentity {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, user);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let (certificate, key) = sign(params);
    ClientIdentity { certificate: certificate.pem(), der: certificate.der().to_vec(), key }
}

/// Generates a private key. Returns it and its public key, both as PEM.
pub fn key_pair() -> (String, String) {
    let key = new_key();
    (key.serialize_pem(), key.public_key_pem())
}

/// Creates a certificate with a new key, signed by the authority. Returns the certificate, and the key as PEM.
pub fn sign(params: CertificateParams) -> (Certificate, String) {
    let key = new_key();
    (params.signed_by(&key, &AUTHORITY).expect("the certificate can be signed"), key.serialize_pem())
}

/// Creates a certificate with a new key, signed by a new intermediate authority. Returns the certificate, and, as PEM,
/// the key and the intermediate authority's certificate.
pub fn sign_by_intermediate(params: CertificateParams) -> (Certificate, String, String) {
    let (key, authority) = (new_key(), authority_named("leaderrun tests, intermediate"));
    let authority = CertifiedIssuer::signed_by(authority, new_key(), &AUTHORITY).expect("the authority can be created");
    (params.signed_by(&key, &authority).expect("the certificate can be signed"), key.serialize_pem(), authority.pem())
}

/// Returns the TLS settings of the servers: HTTP/1.1, with optional client certificates.
pub fn server_config() -> Arc<ServerConfig> {
    server_config_with(ClientCertVerifierBuilder::allow_unauthenticated)
}

/// Returns the TLS settings of servers that require client certificates.
pub fn mutual_server_config() -> Arc<ServerConfig> {
    server_config_with(|clients| clients)
}

fn server_config_with(configure: fn(ClientCertVerifierBuilder) -> ClientCertVerifierBuilder) -> Arc<ServerConfig> {
    let certificate = CertificateDer::from_pem_slice(SERVER.certificate.as_bytes()).expect("the certificate is valid");
    let key = PrivateKeyDer::from_pem_slice(SERVER.key.as_bytes()).expect("the key is valid");
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots()), ring::default_provider().into());
    let verifier = configure(builder).build().expect("the authority is valid");
    let mut config = ServerConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_client_cert_verifier(verifier).with_single_cert(vec![certificate], key))
        .expect("the TLS settings are valid");
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

/// Returns the TLS settings of a client of these servers.
pub fn client_config() -> Arc<ClientConfig> {
    static CONFIG: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
        let mut config = ClientConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .expect("the provider supports the default TLS versions")
            .with_root_certificates(roots())
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    });
    CONFIG.clone()
}

/// Returns the certificate that the client presented, as DER.
pub fn client_certificate<S>(stream: &TlsStream<S>) -> Option<Vec<u8>> {
    let (_, connection) = stream.get_ref();
    Some(connection.peer_certificates()?.first()?.to_vec())
}

fn roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(AUTHORITY.der().clone()).expect("the authority is valid");
    roots
}

fn new_key() -> KeyPair {
    KeyPair::generate().expect("a key can be generated")
}
