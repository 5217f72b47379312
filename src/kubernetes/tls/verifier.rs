//! Verifies the server's certificate.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, OtherError, SignatureScheme};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter};

use super::algorithms::SUPPORTED;
use super::authority::Authorities;
use super::certificate::Certificate;
use crate::telemetry::log::printable;

/// How many names of a certificate a message has.
const MAX_NAMES: usize = 10;

/// Verifies servers by certificates that are trusted.
#[derive(Debug)]
pub struct ServerVerifier {
    authorities: Authorities,
}

/// Why the server's certificate is refused, as a sentence.
#[derive(Debug)]
struct Refusal(String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Refusal {}

impl ServerVerifier {
    pub fn new(authorities: Authorities) -> Self {
        Self { authorities }
    }

    fn verify(
        &self,
        der: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), String> {
        let reason = |error| self.reason(error, der, server_name, now);
        let certificate = EndEntityCert::try_from(der).map_err(reason)?;
        if self.authorities.contain(der) {
            // webpki only knows authorities that issue certificates of servers, and this one is a server's itself.
            let said = Certificate::parse(der).ok_or("it cannot be read")?;
            if let Some(invalidity) = said.invalidity(now) {
                return Err(invalidity);
            }
            if !said.is_for_servers() {
                return Err("it is not for servers".to_owned());
            }
        } else {
            let anchors = self.authorities.anchors(now);
            certificate
                .verify_for_usage(SUPPORTED.all, &anchors, intermediates, now, ServerPurpose, None, None)
                .map_err(reason)?;
        }
        certificate.verify_is_valid_for_subject_name(server_name).map_err(reason)
    }

    fn reason(
        &self,
        error: webpki::Error,
        der: &CertificateDer<'_>,
        server_name: &ServerName<'_>,
        now: UnixTime,
    ) -> String {
        match error {
            webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. } => {
                let of_this_one = Certificate::parse(der).and_then(|certificate| certificate.invalidity(now));
                of_this_one.unwrap_or_else(|| "a certificate between it and the authority is not valid now".to_owned())
            }
            webpki::Error::CertNotValidForName(names) => {
                let name = server_name.to_str();
                let presented = names.presented.iter().take(MAX_NAMES);
                let presented: Vec<String> = presented.map(|name| printable(unqualified(name))).collect();
                if presented.is_empty() {
                    return format!("it names no host in subjectAltName, so it is not for {name}");
                }
                format!("it is for {}, not for {name}; perhaps set tls-server-name", presented.join(", "))
            }
            webpki::Error::UnknownIssuer => match self.authorities.invalidity(now) {
                Some(invalidity) => invalidity,
                None if self.authorities.are_of_system => {
                    "its issuer is not one that this system trusts; set certificate-authority in the kubeconfig".into()
                }
                None => "its issuer is not the configured authority (certificate-authority)".into(),
            },
            webpki::Error::UnsupportedCertVersion => "it is of an old version of X.509, which names no host".into(),
            webpki::Error::CaUsedAsEndEntity => "it is an authority's own certificate".into(),
            webpki::Error::RequiredEkuNotFoundContext(_) => "it is not for servers".into(),
            other => other.to_string(),
        }
    }
}

/// Returns a name of a certificate without its type: `DnsName("a")` is `a`.
fn unqualified(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
    inner.trim_matches('"')
}

/// A certificate is a server's that does not say otherwise.
struct ServerPurpose;

impl ExtendedKeyUsageValidator for ServerPurpose {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        const SERVER_AUTH: &[usize] = &[1, 3, 6, 1, 5, 5, 7, 3, 1];
        const ANY_PURPOSE: &[usize] = &[2, 5, 29, 37, 0];
        let mut present = Vec::new();
        for purpose in purposes {
            let purpose: Vec<usize> = purpose?.to_decoded_oid();
            if purpose == SERVER_AUTH || purpose == ANY_PURPOSE {
                return Ok(());
            }
            present.push(purpose);
        }
        if present.is_empty() {
            return Ok(());
        }
        let required = webpki::KeyUsage::server_auth();
        Err(webpki::Error::RequiredEkuNotFoundContext(webpki::RequiredEkuNotFoundContext { required, present }))
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.verify(end_entity, intermediates, server_name, now);
        verified.map(|()| ServerCertVerified::assertion()).map_err(|reason| {
            let whose =
                Certificate::parse(end_entity).map(|certificate| format!(" {certificate},")).unwrap_or_default();
            let refusal = Refusal(format!("the server's certificate{whose} is refused: {reason}"));
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refusal))))
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &SUPPORTED)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &SUPPORTED)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SUPPORTED.supported_schemes()
    }
}

/// Takes every server for the right one: `insecure-skip-tls-verify`.
#[derive(Debug)]
pub struct InsecureVerifier;

impl ServerCertVerifier for InsecureVerifier {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SUPPORTED.supported_schemes()
    }
}
