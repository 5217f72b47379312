//! Reasons for TLS failures, in words.

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};

use rustls::{AlertDescription, CertificateError, InvalidMessage, OtherError};

use crate::telemetry::log::printable_root_cause;

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Server,
    Proxy,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "the server",
            Self::Proxy => "the proxy",
        })
    }
}

/// Returns the reason for a failure of a connection to this peer: that of TLS, or else the innermost cause.
pub fn failure_reason(failure: &(dyn Error + 'static), peer: Peer) -> String {
    let mut cause = Some(failure);
    while let Some(error) = cause {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let tls = error.downcast_ref().or_else(|| inner.and_then(|inner| inner.downcast_ref()));
        if let Some(reason) = tls.map(|failure| tls_reason(failure, peer)) {
            return reason;
        }
        if error.downcast_ref().is_some_and(|error: &io::Error| error.kind() == ErrorKind::UnexpectedEof) {
            return format!("{peer} closed the connection");
        }
        cause = error.source();
    }
    printable_root_cause(failure)
}

fn tls_reason(failure: &rustls::Error, peer: Peer) -> String {
    match failure {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(refusal))) => refusal.to_string(),
        rustls::Error::AlertReceived(alert) => alert_reason(*alert, peer),
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            format!("{peer} does not speak TLS; perhaps its address begins with http://")
        }
        other => other.to_string(),
    }
}

fn alert_reason(alert: AlertDescription, peer: Peer) -> String {
    let reason = match alert {
        AlertDescription::CertificateExpired => "it has expired",
        AlertDescription::CertificateRevoked => "it is revoked",
        AlertDescription::UnknownCA => "its issuer is unknown to it",
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => {
            return match peer {
                Peer::Server => "the server asks for a client certificate, and the kubeconfig has none".to_owned(),
                Peer::Proxy => "the proxy asks for a client certificate, and proxies get none".to_owned(),
            };
        }
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::AccessDenied
        | AlertDescription::DecryptError => "it does not say why",
        AlertDescription::UnrecognisedName => return format!("{peer} does not know the name it was asked for"),
        AlertDescription::NoApplicationProtocol => {
            return format!("{peer} does not speak HTTP/1.1, the only protocol that leaderrun speaks");
        }
        other => return format!("{peer} ended the TLS connection: {other:?}"),
    };
    format!("{peer} refused the client certificate: {reason}")
}
