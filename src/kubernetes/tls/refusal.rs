//! Explains in words why a server's certificate is refused.

use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::Error;

use super::authority::Authorities;
use super::certificate::Certificate;
use super::reason::Peer;
use crate::telemetry::log::printable;

/// The maximum number of names from a certificate that a message lists.
const MAX_NAMES: usize = 10;

/// Returns why the certificate is refused.
pub fn reason(
    error: Error,
    peer: Peer,
    authorities: &Authorities,
    der: &CertificateDer<'_>,
    server_name: &ServerName<'_>,
    now: UnixTime,
) -> String {
    match error {
        Error::CertExpired { .. } | Error::CertNotValidYet { .. } => {
            let own_reason = Certificate::parse(der).and_then(|certificate| certificate.validity_problem(now));
            own_reason.unwrap_or_else(|| "a certificate between it and the authority is not valid now".to_owned())
        }
        Error::CertNotValidForName(names) => {
            let name = server_name.to_str();
            let presented = names.presented.iter().take(MAX_NAMES);
            let presented: Vec<String> = presented.map(|name| printable(unqualified(name))).collect();
            if presented.is_empty() {
                return format!("it has no host name in subjectAltName, so it is not valid for {name}");
            }
            let remedy = match peer {
                Peer::Server => "try setting tls-server-name",
                Peer::Proxy => "use one of these names for the proxy",
            };
            format!("it is for {}, not for {name}; {remedy}", presented.join(", "))
        }
        Error::UnknownIssuer => match authorities.validity_problem(now) {
            Some(reason) => reason,
            None if authorities.is_system_store => {
                "this system does not trust its issuer; set certificate-authority in the kubeconfig".into()
            }
            None => "its issuer is not the configured authority (certificate-authority)".into(),
        },
        Error::UnsupportedCertVersion => "it uses an old version of X.509, which has no field for host names".into(),
        Error::CaUsedAsEndEntity => "it is a CA certificate".into(),
        Error::EndEntityUsedAsCa => "its issuer may not issue certificates".into(),
        Error::RequiredEkuNotFoundContext(_) => {
            "its extended key usage, or that of a certificate between it and the authority, does not allow server authentication".into()
        }
        Error::NameConstraintViolation => "one of its authorities may not issue certificates for its names".into(),
        Error::PathLenConstraintViolated => "its chain is longer than one of its authorities permits".into(),
        Error::MaximumPathDepthExceeded => "there are more than six certificates between it and the authority".into(),
        Error::UnsupportedCriticalExtension => {
            "it, or its issuer, has a critical extension that is not supported".into()
        }
        Error::BadDerTime => "it, or its issuer, has a date that is malformed or before 1970, which the TLS library does not support".into(),
        Error::InvalidSignatureForPublicKey => {
            "it is not signed with its issuer's key, or that key is an RSA key shorter than 2048 bits".into()
        }
        Error::UnsupportedSignatureAlgorithmContext(_) | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
            "it, or its issuer, has an unsupported signature algorithm; leaderrun supports RSA and ECDSA with SHA-256 or \
             stronger, and Ed25519"
                .into()
        }
        other => other.to_string(),
    }
}

/// Returns a name in a certificate without its type: `a` for `DnsName("a")`.
fn unqualified(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
    inner.trim_matches('"')
}
