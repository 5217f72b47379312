//! What a certificate says, for messages and for what webpki does not look at.

use std::fmt;

use rustls::pki_types::UnixTime;
use x509_cert::certificate::{CertificateInner, Raw, Version};
use x509_cert::der::Decode;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage};

use crate::telemetry::log::printable;

const SERVER_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");
const ANY_PURPOSE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37.0");

/// A certificate of any version.
pub struct Certificate(CertificateInner<Raw>);

impl Certificate {
    /// Parses a certificate, if it is one.
    pub fn parse(der: &[u8]) -> Option<Self> {
        CertificateInner::from_der(der).ok().map(Self)
    }

    /// Returns the key that the certificate is about.
    pub fn public_key(&self) -> &[u8] {
        self.0.tbs_certificate().subject_public_key_info().subject_public_key.raw_bytes()
    }

    /// Returns whether it may issue others: as in Go, only version 3 says anything about that.
    pub fn may_issue(&self) -> bool {
        let certificate = self.0.tbs_certificate();
        match certificate.get_extension::<BasicConstraints>() {
            Ok(Some((_, constraints))) => constraints.ca,
            Ok(None) => certificate.version() != Version::V3,
            Err(_) => false,
        }
    }

    /// Returns whether it may be a server's.
    pub fn is_for_servers(&self) -> bool {
        match self.0.tbs_certificate().get_extension::<ExtendedKeyUsage>() {
            Ok(Some((_, ExtendedKeyUsage(purposes)))) => {
                purposes.iter().any(|purpose| [SERVER_AUTH, ANY_PURPOSE].contains(purpose))
            }
            Ok(None) => true,
            Err(_) => false,
        }
    }

    /// Returns why it is not valid at that time, if it is not.
    pub fn invalidity(&self, now: UnixTime) -> Option<String> {
        let validity = self.0.tbs_certificate().validity();
        let now = now.as_secs();
        if now < validity.not_before.to_unix_duration().as_secs() {
            Some(format!("it is not valid before {}", validity.not_before))
        } else if now > validity.not_after.to_unix_duration().as_secs() {
            Some(format!("it expired at {}", validity.not_after))
        } else {
            None
        }
    }
}

/// Whose it is, and by whom it was issued.
impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let certificate = self.0.tbs_certificate();
        let [subject, issuer] = [certificate.subject(), certificate.issuer()].map(|name| printable(&name.to_string()));
        write!(f, "\"{subject}\", issued by \"{issuer}\"")
    }
}
