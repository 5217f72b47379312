//! TLS to the API server. With a few exceptions, leaderrun accepts and refuses the same certificates as kubectl, which
//! uses the TLS library of Go.
//!
//! Because some clusters depend on it, leaderrun accepts the following, which Go accepts and rustls refuses:
//! - client certificates of X.509 version 1
//! - keys on the curve P-521
//! - signatures of P-256 and P-384 keys with SHA-512
//! - a server certificate that is itself a CA certificate
//! - wildcards such as `*.local`, with a single label after the asterisk
//!
//! rustls is less strict than Go about what an authority may do, so [`verifier`] checks that too.
//!
//! leaderrun refuses the following, which Go accepts:
//! - RSA keys shorter than 2048 bits, because they can be broken
//! - RSA keys longer than 8192 bits
//! - client keys that ring cannot use: RSA keys with a length other than 2048, 3072 or 4096 bits, or with a public
//!   exponent below 65537
//! - dates before 1970
//! - critical certificate policies
//! - chains with more than six intermediate certificates
//! - a server certificate that is itself a CA certificate and was issued by an intermediate authority, or by an
//!   authority with name constraints
//! - CBC cipher suites in TLS 1.2

mod algorithms;
mod authority;
mod certificate;
mod ecdsa;
mod identity;
mod p521;
mod pem;
mod reason;
mod refusal;
mod verifier;

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, ring};

use self::authority::Authorities;
use self::verifier::{InsecureVerifier, ServerVerifier};
use super::connection::{ConfigError, TlsOptions};

pub use self::reason::{Peer, failure_reason};

// The kubeconfig fields that error messages refer to.
pub const CERTIFICATE_AUTHORITY: &str = "certificate-authority";
pub const CLIENT_CERTIFICATE: &str = "client-certificate";
pub const CLIENT_KEY: &str = "client-key";

/// The only protocol that is offered to servers and proxies.
const HTTP_1_1: &[u8] = b"http/1.1";

/// Returns the TLS configuration for connections to the server. `authority` contains the trusted certificates; if it is
/// `None`, those of the system are trusted. `certificate` contains the client certificate and its key. All of them are
/// PEM.
///
/// # Errors
/// Fails if one of them cannot be used, or if the system's certificates are needed and there are none.
pub fn client_config(
    options: &TlsOptions,
    authority: Option<&[u8]>,
    certificate: Option<(&[u8], &[u8])>,
) -> Result<ClientConfig, ConfigError> {
    let verifier: Arc<dyn ServerCertVerifier> = match authority {
        _ if options.insecure => Arc::new(InsecureVerifier),
        Some(pem) => Arc::new(ServerVerifier::new(Peer::Server, Authorities::from_pem(pem)?)),
        None => Arc::new(ServerVerifier::new(Peer::Server, Authorities::from_system()?)),
    };
    config_with(verifier, certificate)
}

/// Checks that a file of trusted authorities contains a certificate that can be parsed.
///
/// # Errors
/// Fails if it contains none.
pub fn check_authority(pem: &[u8]) -> Result<(), ConfigError> {
    Authorities::from_pem(pem).map(drop)
}

/// Checks that this client certificate can be used with this key.
///
/// # Errors
/// Fails if one of them cannot be used, or if they do not match.
pub fn check_certificate(certificate: &[u8], key: &[u8]) -> Result<(), ConfigError> {
    identity::parse(certificate, key).map(drop)
}

/// Returns the TLS configuration for connections to a proxy. As in kubectl, the trusted authorities and the client
/// certificate are those for the API server. The authorities of the system are trusted too.
///
/// # Errors
/// Fails if `authority` contains no certificate that can be parsed, if there is no `authority` and the system has no
/// certificates, or if the client certificate cannot be used.
pub fn proxy_config(
    options: &TlsOptions,
    authority: Option<&[u8]>,
    certificate: Option<(&[u8], &[u8])>,
) -> Result<ClientConfig, ConfigError> {
    let verifier: Arc<dyn ServerCertVerifier> = if options.insecure {
        Arc::new(InsecureVerifier)
    } else {
        Arc::new(ServerVerifier::new(Peer::Proxy, Authorities::from_system_and_pem(authority)?))
    };
    config_with(verifier, certificate)
}

fn config_with(
    verifier: Arc<dyn ServerCertVerifier>,
    certificate: Option<(&[u8], &[u8])>,
) -> Result<ClientConfig, ConfigError> {
    let mut provider =
        CryptoProvider { signature_verification_algorithms: algorithms::SUPPORTED, ..ring::default_provider() };
    provider.kx_groups.push(&p521::KeyExchange);
    let builder = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .expect("the provider has the default TLS versions")
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match certificate {
        Some((certificate, key)) => builder.with_client_cert_resolver(Arc::new(identity::parse(certificate, key)?)),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![HTTP_1_1.to_vec()];
    Ok(config)
}
