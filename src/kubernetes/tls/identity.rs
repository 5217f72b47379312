//! A client certificate and its key, in every format that Go accepts.

use std::sync::Arc;

use p256::pkcs8::EncodePrivateKey;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use x509_cert::der::Decode;
use x509_cert::spki::SubjectPublicKeyInfoRef;

use super::super::connection::ConfigError;
use super::certificate::Certificate;
use super::p521::ClientKey;
use super::pem;
use super::{CLIENT_CERTIFICATE, CLIENT_KEY};

/// Offers the same certificate to every server that requests one. It replaces the resolver of rustls, which refuses
/// version 1 certificates.
#[derive(Debug)]
pub struct ClientIdentity(Arc<CertifiedKey>);

impl ResolvesClientCert for ClientIdentity {
    fn resolve(&self, _issuers: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Parses a certificate and its key, both as PEM.
///
/// # Errors
/// Fails if one of them cannot be used, or if they do not match.
pub fn parse(certificate: &[u8], key: &[u8]) -> Result<ClientIdentity, ConfigError> {
    let refused = |reason: String| ConfigError::new(CLIENT_CERTIFICATE, reason);
    let blocks = pem::blocks(certificate).into_iter().filter(|block| block.label == "CERTIFICATE");
    let chain: Vec<_> = blocks.map(|block| CertificateDer::from(block.der)).collect();
    let Some(first) = chain.first() else { return Err(refused("it contains no certificate".to_owned())) };
    let parsed = Certificate::parse(first).ok_or_else(|| refused(Certificate::parse_failure(first).to_owned()))?;
    let key = signing_key(key).map_err(|reason| ConfigError::new(CLIENT_KEY, reason))?;
    if let Some(public_key) = key.public_key()
        && let Ok(public_key) = SubjectPublicKeyInfoRef::from_der(&public_key)
        && public_key.subject_public_key.raw_bytes() != parsed.public_key()
    {
        // The certificate is formatted as `"subject", issued by "issuer"`, so a comma follows it.
        return Err(refused(format!("the certificate of {parsed}, does not match the key in client-key")));
    }
    Ok(ClientIdentity(Arc::new(CertifiedKey::new(chain, key))))
}

/// Returns the first key of a PEM file. As in Go, every format is tried, whatever the label of the block says.
fn signing_key(pem: &[u8]) -> Result<Arc<dyn SigningKey>, String> {
    let mut blocks = pem::blocks(pem).into_iter();
    let block = blocks.find(|block| block.label.ends_with("PRIVATE KEY")).ok_or("it contains no private key")?;
    if block.has_headers || block.label.contains("ENCRYPTED") {
        return Err("the key is encrypted; decrypt it, for example with openssl pkey".to_owned());
    }
    let formats: [fn(Vec<u8>) -> PrivateKeyDer<'static>; 3] = [
        |der| PrivateKeyDer::Pkcs8(der.into()),
        |der| PrivateKeyDer::Pkcs1(der.into()),
        |der| PrivateKeyDer::Sec1(der.into()),
    ];
    let known = formats.iter().find_map(|format| any_supported_type(&format(block.der.clone())).ok());
    let known = known.or_else(|| any_supported_type(&with_public_key(&block.der)?.into()).ok());
    let known = known.or_else(|| ClientKey::parse(&block.der).map(|key| Arc::new(key) as _));
    known.ok_or_else(|| {
        "the key cannot be used; try one of P-256, P-384, P-521 or Ed25519, or an RSA key of 2048, 3072 or 4096 bits"
            .to_owned()
    })
}

/// Returns a P-256 or P-384 key with its public key, which is optional in PKCS#8 but required by ring.
fn with_public_key(der: &[u8]) -> Option<PrivatePkcs8KeyDer<'static>> {
    let p256 = || p256::SecretKey::from_der(der).ok()?.to_pkcs8_der().ok();
    let p384 = || p384::SecretKey::from_der(der).ok()?.to_pkcs8_der().ok();
    let complete = p256().or_else(p384)?;
    Some(PrivatePkcs8KeyDer::from(complete.as_bytes().to_vec()))
}
