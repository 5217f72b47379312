//! Parses certificates, for messages and for checks that webpki does not make.

use std::fmt;

use rustls::pki_types::UnixTime;
use x509_cert::certificate::{CertificateInner, Raw, Version};
use x509_cert::der::asn1::{ObjectIdentifier, Uint};
use x509_cert::der::{Decode, Encode, ErrorKind, Tag};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, NameConstraints, SubjectAltName};

use crate::telemetry::log::printable;

/// The purposes that allow a server to use a certificate.
const SERVER_PURPOSES: [ObjectIdentifier; 2] = [
    ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1"), // server authentication
    ObjectIdentifier::new_unwrap("2.5.29.37.0"),       // any purpose
];

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

/// The extensions that a CA certificate may mark as critical. Any other critical extension could restrict what the
/// authority is allowed to issue in a way that neither webpki nor this module checks.
const KNOWN_EXTENSIONS: [ObjectIdentifier; 9] = [
    ObjectIdentifier::new_unwrap("2.5.29.14"), // subject key identifier
    ObjectIdentifier::new_unwrap("2.5.29.15"), // key usage
    ObjectIdentifier::new_unwrap("2.5.29.17"), // subject alternative name
    ObjectIdentifier::new_unwrap("2.5.29.19"), // basic constraints
    ObjectIdentifier::new_unwrap("2.5.29.30"), // name constraints
    ObjectIdentifier::new_unwrap("2.5.29.31"), // CRL distribution points
    ObjectIdentifier::new_unwrap("2.5.29.32"), // certificate policies
    ObjectIdentifier::new_unwrap("2.5.29.35"), // authority key identifier
    ObjectIdentifier::new_unwrap("2.5.29.37"), // extended key usage
];

/// The minimum length of an RSA modulus in bytes; shorter keys can be broken. Like ring, leaderrun rounds the length up
/// to whole bytes.
const MIN_RSA_MODULUS_SIZE: usize = 2048 / 8;

/// Returns whether this purpose, a decoded object identifier, allows a server to use a certificate.
pub fn is_server_purpose(purpose: &[usize]) -> bool {
    let is_equal = |known: &ObjectIdentifier| known.arcs().map(|arc| arc as usize).eq(purpose.iter().copied());
    SERVER_PURPOSES.iter().any(is_equal)
}

/// A certificate of any version.
pub struct Certificate(CertificateInner<Raw>);

impl Certificate {
    /// Parses a certificate; `None` if it is invalid.
    pub fn parse(der: &[u8]) -> Option<Self> {
        CertificateInner::from_der(der).ok().map(Self)
    }

    /// Returns why a certificate cannot be parsed.
    pub fn parse_failure(der: &[u8]) -> &'static str {
        match CertificateInner::<Raw>::from_der(der).map_err(|error| error.kind()) {
            Err(ErrorKind::Value { tag: Tag::UtcTime | Tag::GeneralizedTime }) => {
                "it has a date that is malformed or before 1970, which the TLS library does not support"
            }
            _ => "it is not a well-formed certificate",
        }
    }

    /// Returns the public key in the certificate.
    pub fn public_key(&self) -> &[u8] {
        self.0.tbs_certificate().subject_public_key_info().subject_public_key.raw_bytes()
    }

    /// Returns whether the key is an RSA key that is shorter than [`MIN_RSA_MODULUS_SIZE`] or cannot be parsed.
    pub fn has_short_rsa_key(&self) -> bool {
        let algorithm = &self.0.tbs_certificate().subject_public_key_info().algorithm;
        let numbers = || Vec::<Uint>::from_der(self.public_key()).ok();
        let modulus = || Some(numbers()?.first()?.as_bytes().len());
        algorithm.oid == RSA && modulus().is_none_or(|length| length < MIN_RSA_MODULUS_SIZE)
    }

    /// Returns whether this certificate may be used to issue server certificates. Does not check its validity period.
    pub fn may_issue(&self) -> bool {
        self.is_authority()
            && self.may_sign_certificates()
            && self.permits_server_auth()
            && self.has_only_known_critical_extensions()
    }

    /// Returns whether this is a CA certificate. As in Go, every certificate of version 1 or 2 counts as one, because
    /// these versions have no field that says so.
    fn is_authority(&self) -> bool {
        match self.basic_constraints() {
            Ok(Some(constraints)) => constraints.ca,
            Ok(None) => self.0.tbs_certificate().version() != Version::V3,
            Err(_) => false,
        }
    }

    /// Returns whether the key of this certificate may sign certificates.
    pub fn may_sign_certificates(&self) -> bool {
        match self.0.tbs_certificate().get_extension::<KeyUsage>() {
            Ok(Some((_, usage))) => usage.key_cert_sign(),
            Ok(None) => true,
            Err(_) => false,
        }
    }

    /// Returns whether all critical extensions of this certificate are known.
    fn has_only_known_critical_extensions(&self) -> bool {
        let mut extensions = self.0.tbs_certificate().extensions().into_iter().flatten();
        extensions.all(|extension| !extension.critical || KNOWN_EXTENSIONS.contains(&extension.extn_id))
    }

    /// Returns whether this many intermediate authorities are allowed between this authority and a server.
    pub fn allows_intermediates(&self, count: usize) -> bool {
        let limit = self.basic_constraints().ok().flatten().and_then(|constraints| constraints.path_len_constraint);
        limit.is_none_or(|limit| count <= limit.into())
    }

    fn basic_constraints(&self) -> x509_cert::der::Result<Option<BasicConstraints>> {
        Ok(self.0.tbs_certificate().get_extension()?.map(|(_, constraints)| constraints))
    }

    /// Returns whether this certificate has name constraints, even if they cannot be parsed.
    pub fn has_name_constraints(&self) -> bool {
        !matches!(self.0.tbs_certificate().get_extension::<NameConstraints>(), Ok(None))
    }

    /// Returns whether this certificate names `issuer` as its issuer.
    pub fn names_issuer(&self, issuer: &Self) -> bool {
        self.0.tbs_certificate().issuer() == issuer.0.tbs_certificate().subject()
    }

    /// Returns the signed bytes (the TBSCertificate), the contents of the signature's AlgorithmIdentifier in DER, and
    /// the signature.
    pub fn signature_parts(&self) -> Option<(Vec<u8>, Vec<u8>, &[u8])> {
        let message = self.0.tbs_certificate().to_der().ok()?;
        // The first two bytes, the tag and the length, are removed, because webpki's identifiers do not contain them.
        let algorithm = self.0.signature_algorithm().to_der().ok()?.split_off(2);
        Some((message, algorithm, self.0.signature().raw_bytes()))
    }

    /// Returns whether the certificate has a matching wildcard with a single label after the asterisk, such as `*.lan`
    /// for the host `api.lan`. webpki refuses such wildcards.
    pub fn has_short_wildcard_for(&self, host: &str) -> bool {
        let Ok(Some((_, SubjectAltName(names)))) = self.0.tbs_certificate().get_extension() else { return false };
        let Some((_, domain)) = host.trim_end_matches('.').split_once('.').filter(|(label, _)| !label.is_empty())
        else {
            return false;
        };
        names.iter().any(|name| match name {
            GeneralName::DnsName(name) => name.as_str().strip_prefix("*.").is_some_and(|suffix| {
                !suffix.is_empty() && !suffix.contains('.') && suffix.eq_ignore_ascii_case(domain)
            }),
            _ => false,
        })
    }

    /// Returns whether the extended key usage, if there is one, permits server authentication.
    fn permits_server_auth(&self) -> bool {
        match self.0.tbs_certificate().get_extension::<ExtendedKeyUsage>() {
            Ok(Some((_, ExtendedKeyUsage(purposes)))) => {
                purposes.iter().any(|purpose| SERVER_PURPOSES.contains(purpose))
            }
            Ok(None) => true,
            Err(_) => false,
        }
    }

    /// Checks that a server may use this certificate at `now`.
    ///
    /// # Errors
    /// Returns the reason why a server may not use it.
    pub fn check_server(&self, now: UnixTime) -> Result<(), String> {
        match self.validity_problem(now) {
            Some(reason) => Err(reason),
            None if self.permits_server_auth() => Ok(()),
            None => Err("its extended key usage does not allow server authentication".to_owned()),
        }
    }

    /// Returns why the certificate is not valid at `now` (not yet valid, or expired), or `None` if it is valid.
    pub fn validity_problem(&self, now: UnixTime) -> Option<String> {
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

/// Writes the subject and the issuer.
impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let certificate = self.0.tbs_certificate();
        let [subject, issuer] = [certificate.subject(), certificate.issuer()].map(|name| printable(&name.to_string()));
        write!(f, "\"{subject}\", issued by \"{issuer}\"")
    }
}
