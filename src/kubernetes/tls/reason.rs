//! Reasons for TLS failures, in words.

use std::error::Error;
use std::io;

use rustls::{AlertDescription, CertificateError, InvalidMessage, OtherError};

use crate::telemetry::log::printable_root_cause;

/// Returns the reason for a failure of a connection: that of TLS, or else the innermost cause.
pub fn failure_reason(failure: &(dyn Error + 'static)) -> String {
    let mut cause = Some(failure);
    while let Some(error) = cause {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let tls = error.downcast_ref().or_else(|| inner.and_then(|inner| inner.downcast_ref()));
        if let Some(reason) = tls.map(tls_reason) {
            return reason;
        }
        cause = error.source();
    }
    printable_root_cause(failure)
}

fn tls_reason(failure: &rustls::Error) -> String {
    match failure {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(refusal))) => refusal.to_string(),
        rustls::Error::AlertReceived(alert) => alert_reason(*alert),
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "the server does not speak TLS; perhaps its address begins with http://".to_owned()
        }
        other => other.to_string(),
    }
}

fn alert_reason(alert: AlertDescription) -> String {
    let reason = match alert {
        AlertDescription::CertificateExpired => "it has expired",
        AlertDescription::CertificateRevoked => "it is revoked",
        AlertDescription::UnknownCA => "the server does not know its issuer",
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => {
            return "the server asks for a client certificate, and the kubeconfig has none".to_owned();
        }
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::AccessDenied
        | AlertDescription::DecryptError => "the server does not say why",
        AlertDescription::UnrecognisedName => return "the server does not know the name it was asked for".to_owned(),
        other => return format!("the server ended the TLS connection: {other:?}"),
    };
    format!("the server refused the client certificate: {reason}")
}
