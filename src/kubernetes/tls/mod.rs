//! TLS to the API server: what Go accepts is accepted, and what Go refuses is refused.
//!
//! rustls is stricter than Go in some points that clusters depend on: it accepts no X.509 v1 client certificate, no
//! P-521 key, no P-256 signature with SHA-512, no server certificate that is itself an authority's, and no wildcard of
//! one label. These are accepted here. It is less strict in what an authority may do, which is checked here, too.
//!
//! These are accepted by Go and still refused: RSA keys of less than 2048 bits, which can be broken; RSA keys of more than
//! 8192 bits; client keys that are RSA of other lengths than 2048, 3072 or 4096 bits, or with a public exponent below 65537,
//! which ring cannot use; dates before 1970; critical certificate policies; more than six certificates between the
//! server's and the authority's; an authority's certificate as the server's that was issued by an intermediate
//! authority; CBC cipher suites in TLS 1.2.

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

/// The only protocol to servers and proxies.
const HTTP_1_1: &[u8] = b"http/1.1";

/// Returns the TLS configuration of connections. `authority` contains the trusted certificates, or the system's are
/// trusted without it; `certificate` contains the client's certificate and its key. All are PEM.
///
/// # Errors
/// Fails if one of them cannot be used.
pub fn client_config(
    options: &TlsOptions,
    authority: Option<&[u8]>,
    certificate: Option<(&[u8], &[u8])>,
) -> Result<ClientConfig, ConfigError> {
    let verifier: Arc<dyn ServerCertVerifier> = match authority {
        _ if options.insecure => Arc::new(InsecureVerifier),
        Some(pem) => Arc::new(ServerVerifier::new(Peer::Server, Authorities::configured(pem)?)),
        None => Arc::new(ServerVerifier::new(Peer::Server, Authorities::of_system()?)),
    };
    config_with(verifier, certificate)
}

/// Checks that these authorities can be trusted.
///
/// # Errors
/// Fails if there is no certificate that can be used.
pub fn check_authority(pem: &[u8]) -> Result<(), ConfigError> {
    Authorities::configured(pem).map(drop)
}

/// Checks that this client certificate can be used with this key.
///
/// # Errors
/// Fails if one of them cannot be used, or they do not belong together.
pub fn check_certificate(certificate: &[u8], key: &[u8]) -> Result<(), ConfigError> {
    identity::resolver(certificate, key).map(drop)
}

/// Returns the TLS configuration of a connection to a proxy. kubectl trusts a proxy like the API server, and presents the
/// same client certificate; certificates that the system trusts are trusted here as well.
///
/// # Errors
/// Fails if there are no trusted certificates, or the client's certificate cannot be used.
pub fn proxy_config(
    options: &TlsOptions,
    authority: Option<&[u8]>,
    certificate: Option<(&[u8], &[u8])>,
) -> Result<ClientConfig, ConfigError> {
    let verifier: Arc<dyn ServerCertVerifier> = if options.insecure {
        Arc::new(InsecureVerifier)
    } else {
        Arc::new(ServerVerifier::new(Peer::Proxy, Authorities::of_system_and(authority)?))
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
        Some((certificate, key)) => builder.with_client_cert_resolver(Arc::new(identity::resolver(certificate, key)?)),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![HTTP_1_1.to_vec()];
    Ok(config)
}
