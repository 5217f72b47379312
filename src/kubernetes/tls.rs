//! How the API server's certificate is verified, and which certificate it is shown.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kube::Config;
use kube::client::ConfigExt;
use rustls::ClientConfig;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::connection::{ConfigError, TlsOptions};

/// Returns what connections are encrypted with. `authority` has the certificates that are trusted, `certificate` the
/// client's own and its key, all as PEM.
///
/// # Errors
/// When one of them cannot be used.
pub fn client_config(
    options: &TlsOptions,
    authority: Option<&[u8]>,
    certificate: Option<(&[u8], &[u8])>,
) -> Result<ClientConfig, ConfigError> {
    let mut config = Config::new("https://kubernetes.default.svc".parse().expect("an address"));
    if let Some(pem) = authority {
        let certificates = CertificateDer::pem_slice_iter(pem).map(|certificate| Ok(certificate?.to_vec()));
        let certificates: Result<Vec<_>, rustls_pki_types::pem::Error> = certificates.collect();
        config.root_cert =
            Some(certificates.map_err(|failure| ConfigError::new("the certificate authority", failure))?);
    }
    config.accept_invalid_certs = options.insecure;
    if let Some((certificate, key)) = certificate {
        config.auth_info.client_certificate_data = Some(BASE64_STANDARD.encode(certificate));
        config.auth_info.client_key_data = Some(BASE64_STANDARD.encode(key).into());
    }
    let made = config.rustls_client_config();
    let mut made = made.map_err(|failure| ConfigError::new("cannot prepare for TLS", failure))?;
    made.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(made)
}
