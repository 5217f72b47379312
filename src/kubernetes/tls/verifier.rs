//! Verifies the certificate of the API server or of a proxy.

use std::error::Error;
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, IpAddr, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, OtherError, SignatureScheme};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, VerifiedPath};

use super::algorithms::SUPPORTED;
use super::authority::Authorities;
use super::certificate::{Certificate, is_server_purpose};
use super::reason::Peer;
use super::refusal;

/// Verifies the certificates of servers against the trusted certificate authorities.
#[derive(Debug)]
pub struct ServerVerifier {
    peer: Peer,
    authorities: Authorities,
}

/// The reason why the server's certificate is refused, as a sentence.
#[derive(Debug)]
struct Refusal(String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Refusal {}

impl ServerVerifier {
    pub fn new(peer: Peer, authorities: Authorities) -> Self {
        Self { peer, authorities }
    }

    /// Verifies that a server may use this certificate, that the certificate is itself trusted or was issued by a
    /// trusted authority, and that it contains the server's name. Otherwise returns the reason for the refusal.
    fn verify(
        &self,
        der: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), String> {
        let Self { peer, authorities } = self;
        let reason = |error| refusal::reason(error, *peer, authorities, der, server_name, now);
        let certificate = EndEntityCert::try_from(der).map_err(reason)?;
        let parsed = Certificate::parse(der).ok_or_else(|| Certificate::parse_failure(der))?;
        if parsed.has_short_rsa_key() {
            return Err("its RSA key is shorter than 2048 bits".to_owned());
        }
        match self.verify_issuer(&certificate, intermediates, now) {
            // Unlike webpki, Go accepts a server certificate that is itself trusted or is a CA certificate.
            _ if authorities.contains(der) => parsed.check_server(now)?,
            Err(webpki::Error::CaUsedAsEndEntity) if authorities.have_issued(&parsed, now) => {
                parsed.check_server(now)?;
            }
            issued => issued.map_err(reason)?,
        }
        let verify_name = |name: &ServerName<'_>| certificate.verify_is_valid_for_subject_name(name);
        match server_name {
            ServerName::DnsName(name) if parsed.has_short_wildcard_for(name.as_ref()) => Ok(()),
            // As in Go, the certificate may contain an IPv4 address as an IPv4-mapped IPv6 address.
            ServerName::IpAddress(IpAddr::V4(address)) => verify_name(server_name).or_else(|error| {
                let mapped = Ipv4Addr::from(*address).to_ipv6_mapped();
                verify_name(&ServerName::from(std::net::IpAddr::from(mapped))).map_err(|_| error)
            }),
            _ => verify_name(server_name),
        }
        .map_err(reason)
    }

    fn verify_issuer(
        &self,
        certificate: &EndEntityCert<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), webpki::Error> {
        let anchors = self.authorities.anchors(now);
        let check_path = |path: &VerifiedPath<'_>| self.check_path(path);
        let (usage, check_path) = (ServerPurpose, Some(&check_path as _));
        certificate.verify_for_usage(SUPPORTED.all, &anchors, intermediates, now, usage, None, check_path).map(drop)
    }

    /// Checks what webpki does not check: that the intermediate authorities may sign certificates, and that there are
    /// not too many of them.
    fn check_path(&self, path: &VerifiedPath<'_>) -> Result<(), webpki::Error> {
        let may_sign =
            |der: &CertificateDer<'_>| Certificate::parse(der).is_some_and(|parsed| parsed.may_sign_certificates());
        if !path.intermediate_certificates().all(|intermediate| may_sign(&intermediate.der())) {
            return Err(webpki::Error::EndEntityUsedAsCa);
        }
        if !self.authorities.anchor_allows_intermediates(path.anchor(), path.intermediate_certificates().count()) {
            return Err(webpki::Error::PathLenConstraintViolated);
        }
        Ok(())
    }
}

/// Requires that a certificate may be used by a server. A certificate that states no purpose may be used for any
/// purpose.
struct ServerPurpose;

impl ExtendedKeyUsageValidator for ServerPurpose {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        let mut present = Vec::new();
        for purpose in purposes {
            let purpose: Vec<usize> = purpose?.to_decoded_oid();
            if is_server_purpose(&purpose) {
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
            let subject_and_issuer =
                Certificate::parse(end_entity).map(|certificate| format!(" {certificate},")).unwrap_or_default();
            let refusal = Refusal(format!("{}'s certificate{subject_and_issuer} is refused: {reason}", self.peer));
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

/// Accepts every server, as `insecure-skip-tls-verify` requests.
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
