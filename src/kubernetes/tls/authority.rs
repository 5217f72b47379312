//! The trusted certificate authorities.

use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, anchor_from_trusted_cert};

use super::super::connection::ConfigError;
use super::CERTIFICATE_AUTHORITY;
use super::algorithms::SUPPORTED;
use super::certificate::Certificate;
use super::pem;

/// The trusted certificate authorities.
#[derive(Debug)]
pub struct Authorities {
    certificates: Vec<CertificateDer<'static>>,
    /// Whether these are only the system's authorities, because none are configured.
    pub is_system_store: bool,
}

impl Authorities {
    /// Reads the certificates of a PEM file. Skips those that cannot be parsed and, as Go does, those with PEM headers.
    ///
    /// # Errors
    /// Fails if no certificate can be parsed.
    pub fn from_pem(text: &[u8]) -> Result<Self, ConfigError> {
        let blocks = pem::blocks(text).into_iter();
        let certificates = blocks.filter(|block| block.label == "CERTIFICATE" && !block.has_headers);
        let certificates = certificates.map(|block| CertificateDer::from(block.der));
        let (certificates, unreadable): (Vec<_>, Vec<_>) =
            certificates.partition(|certificate| Certificate::parse(certificate).is_some());
        match unreadable.first() {
            _ if !certificates.is_empty() => Ok(Self { certificates, is_system_store: false }),
            Some(der) => Err(ConfigError::new(CERTIFICATE_AUTHORITY, Certificate::parse_failure(der))),
            None => Err(ConfigError::new(CERTIFICATE_AUTHORITY, "it contains no certificate")),
        }
    }

    /// Reads the certificates of the system, if there are any, and those of the PEM file, if it is given.
    ///
    /// # Errors
    /// Fails if no certificate in the PEM file can be parsed, or if there is no PEM file and the system has none.
    pub fn from_system_and_pem(text: Option<&[u8]>) -> Result<Self, ConfigError> {
        let Some(text) = text else { return Self::from_system() };
        let mut authorities = Self::from_pem(text)?;
        authorities.certificates.extend(rustls_native_certs::load_native_certs().certs);
        Ok(authorities)
    }

    /// Reads the certificates of the system.
    ///
    /// # Errors
    /// Fails if there are no certificates.
    pub fn from_system() -> Result<Self, ConfigError> {
        let loaded = rustls_native_certs::load_native_certs();
        if loaded.certs.is_empty() {
            let failure = loaded.errors.first().map(|failure| format!(" ({failure})")).unwrap_or_default();
            let reason = format!(
                "this system has no root certificates{failure}; \
                 set certificate-authority in the kubeconfig, or install ca-certificates"
            );
            return Err(ConfigError::new("cannot verify certificates", reason));
        }
        Ok(Self { certificates: loaded.certs, is_system_store: true })
    }

    /// Returns whether this certificate is itself one of the trusted certificates.
    pub fn contains(&self, certificate: &CertificateDer<'_>) -> bool {
        self.certificates.contains(certificate)
    }

    /// Returns the authorities that may issue certificates at `now`. As in Go, an authority may not issue certificates
    /// while its own certificate is not valid. Authorities that webpki can parse but `Certificate::parse` cannot are
    /// included: they can only come from the system store, so they are trusted.
    pub fn anchors(&self, now: UnixTime) -> Vec<TrustAnchor<'_>> {
        let may_issue = |der: &&CertificateDer<'_>| {
            Certificate::parse(der)
                .is_none_or(|certificate| certificate.may_issue() && certificate.validity_problem(now).is_none())
        };
        let certificates = self.certificates.iter().filter(may_issue);
        certificates.filter_map(|der| anchor_from_trusted_cert(der).ok()).collect()
    }

    /// Returns whether the authority `anchor` allows this many intermediate authorities between itself and a server.
    /// webpki does not check this limit.
    pub fn anchor_allows_intermediates(&self, anchor: &TrustAnchor<'_>, count: usize) -> bool {
        let is_anchor = |der: &&CertificateDer<'_>| anchor_from_trusted_cert(der).is_ok_and(|known| known == *anchor);
        let mut certificates = self.certificates.iter().filter(is_anchor);
        certificates
            .any(|der| Certificate::parse(der).is_none_or(|certificate| certificate.allows_intermediates(count)))
    }

    /// Returns whether an authority that may issue certificates at `now` has directly issued `certificate`. Authorities
    /// with name constraints do not count, because the constraints are not evaluated here.
    pub fn have_issued(&self, certificate: &Certificate, now: UnixTime) -> bool {
        let Some((message, algorithm, signature)) = certificate.signature_parts() else { return false };
        let has_signed = |der: &CertificateDer<'_>| {
            let Ok(issuer) = EndEntityCert::try_from(der) else { return false };
            let mut algorithms = SUPPORTED.all.iter().filter(|known| *known.signature_alg_id() == algorithm[..]);
            algorithms.any(|known| issuer.verify_signature(*known, &message, signature).is_ok())
        };
        self.certificates.iter().any(|der| {
            let issuer = Certificate::parse(der).filter(|issuer| certificate.names_issuer(issuer));
            let issuer = issuer.filter(|issuer| issuer.may_issue() && issuer.validity_problem(now).is_none());
            issuer.is_some_and(|issuer| !issuer.has_name_constraints()) && has_signed(der)
        })
    }

    /// Returns why the only authority's certificate is not valid at `now`; `None` if it is valid, or if there are
    /// several authorities.
    pub fn validity_problem(&self, now: UnixTime) -> Option<String> {
        let [only] = &self.certificates[..] else { return None };
        let certificate = Certificate::parse(only)?;
        let reason = certificate.validity_problem(now)?;
        // The certificate is formatted as `"subject", issued by "issuer"`, so a comma follows it.
        Some(format!("the only trusted CA certificate {certificate}, cannot be used: {reason}"))
    }
}
