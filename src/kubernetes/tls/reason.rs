//! The reasons for failed connections, in words.

use std::error::Error;
use std::{fmt, io};

use nix::errno::Errno;
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

/// Returns the reason why a connection to this peer failed: the outermost cause that `tls_reason` or `io_reason`
/// describes, or else the innermost cause.
pub fn failure_reason(failure: &(dyn Error + 'static), peer: Peer) -> String {
    let mut cause = Some(failure);
    while let Some(error) = cause {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let tls = error.downcast_ref().or_else(|| inner.and_then(|inner| inner.downcast_ref()));
        if let Some(reason) = tls.map(|failure| tls_reason(failure, peer)) {
            return reason;
        }
        if let Some(reason) = error.downcast_ref().and_then(|failure| io_reason(failure, peer)) {
            return reason;
        }
        cause = error.source();
    }
    printable_root_cause(failure)
}

/// Returns a clearer reason for an I/O error; `None` if its own description is clear enough.
fn io_reason(failure: &io::Error, peer: Peer) -> Option<String> {
    match Errno::from_raw(failure.raw_os_error().unwrap_or_default()) {
        errno @ (Errno::EPERM | Errno::EACCES | Errno::ENOSYS) => {
            Some(format!("{}; look for a firewall or a seccomp profile on this machine", errno.desc()))
        }
        _ if failure.kind() == io::ErrorKind::UnexpectedEof => Some(format!("{peer} closed the connection")),
        _ => None,
    }
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
        AlertDescription::CertificateExpired => "the certificate has expired",
        AlertDescription::CertificateRevoked => "the certificate has been revoked",
        AlertDescription::UnknownCA => "it does not know the certificate's issuer",
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => {
            return format!("{peer} asks for a client certificate, but the kubeconfig has none");
        }
        // In TLS 1.2, this is also Go's response to a missing certificate.
        AlertDescription::BadCertificate => {
            return format!("{peer} refused the client certificate, or requires one; it gave no reason");
        }
        AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::AccessDenied
        | AlertDescription::DecryptError => "it gave no reason",
        AlertDescription::UnrecognisedName => return format!("{peer} does not know the name it was asked for"),
        AlertDescription::NoApplicationProtocol => {
            return format!("{peer} does not speak HTTP/1.1, the only protocol that leaderrun speaks");
        }
        other => return format!("{peer} ended the TLS connection: {other:?}"),
    };
    format!("{peer} refused the client certificate: {reason}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_ends_without_close_notify_is_reported_as_closed() {
        let failure =
            io::Error::new(io::ErrorKind::UnexpectedEof, "peer closed connection without sending TLS close_notify");
        assert_eq!(failure_reason(&failure, Peer::Server), "the server closed the connection");
    }

    #[test]
    fn the_message_about_a_connection_that_this_machine_blocks_has_a_remedy() {
        let failure = io::Error::from(Errno::EPERM);
        assert_eq!(
            failure_reason(&failure, Peer::Server),
            "Operation not permitted; look for a firewall or a seccomp profile on this machine"
        );
    }
}
