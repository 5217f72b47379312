//! TLS to the API server: what Go accepts is accepted, and what Go refuses is refused.
//!
//! rustls is stricter than Go in some points that clusters depend on: it takes no X.509 v1 client certificate and no
//! P-521 key, and no server certificate that is itself the configured authority. What is relaxed here is that.

mod algorithms;
mod authority;
mod certificate;
mod identity;
mod p521;
mod pem;
mod reason;
mod verifier;

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, ring};

use self::authority::Authorities;
use self::verifier::{InsecureVerifier, ServerVerifier};
use super::connection::{ConfigError, TlsOptions};

pub use self::reason::failure_reason;

/// Returns what connections are encrypted with. `authority` has the certificates that are trusted, or the system's are
/// without it; `certificate` has the client's own and its key, all as PEM.
///
/// # Errors
/// When one of them cannot be used.
pub fn client_config(
    options: &TlsOptions,
    authority: Option<&[u8]>,
    certificate: Option<(&[u8], &[u8])>,
) -> Result<ClientConfig, ConfigError> {
    let provider =
        CryptoProvider { signature_verification_algorithms: algorithms::SUPPORTED, ..ring::default_provider() };
    let verifier: Arc<dyn ServerCertVerifier> = match authority {
        _ if options.insecure => Arc::new(InsecureVerifier),
        Some(pem) => Arc::new(ServerVerifier::new(Authorities::configured(pem)?)),
        None => Arc::new(ServerVerifier::new(Authorities::of_system()?)),
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .expect("the provider has the default TLS versions")
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match certificate {
        Some((certificate, key)) => builder.with_client_cert_resolver(Arc::new(identity::resolver(certificate, key)?)),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
