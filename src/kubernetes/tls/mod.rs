//! TLS to the API server: what Go accepts is accepted, and what Go refuses is refused.
//!
//! rustls is stricter than Go in some points that clusters depend on: it takes no X.509 v1 client certificate, no P-521
//! key, no P-256 signature with SHA-512, no server certificate that is itself an authority's, and no wildcard of one
//! label. These are relaxed here. It is laxer in what an authority may do, which is checked here, too.
//!
//! What Go takes and is still refused: RSA keys of less than 2048 bits, which can be broken; client keys that are RSA of
//! more than 4096 bits, of a length that is no multiple of 512, or with a public exponent below 65537, which ring
//! cannot use; critical certificate policies; more than six certificates between the server's and the authority's; an
//! authority's certificate as the server's that an authority between has issued; CBC cipher suites in TLS 1.2.

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
    let mut provider =
        CryptoProvider { signature_verification_algorithms: algorithms::SUPPORTED, ..ring::default_provider() };
    provider.kx_groups.push(&p521::KeyExchange);
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
