//! The error from a request to the API server, and what it implies for the next request.

use std::time::Duration;
use std::{error, fmt, iter};

use http_body_util::LengthLimitError;
use kube::core::Status;

use super::credentials::CredentialsError;
use super::response_limit::MAX_SIZE_TEXT;
use super::tls::{Peer, failure_reason};
use super::transport::ConnectError;
use crate::telemetry::log::printable;

/// The error from a request.
#[derive(Clone, Debug)]
pub struct Error {
    pub kind: ErrorKind,
    /// The message for users, which says what failed and why. Text from other programs has been made printable.
    pub message: String,
    /// The pause before the next request, if the API server requests one.
    pub retry_after: Option<Duration>,
    /// Whether RBAC refused the request, in which case a Role can permit it.
    pub refused_by_rbac: bool,
}

/// The kind of an error. It determines what is known about the object, and what the next request must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The object has changed since it was read, or exists already. Nothing was written; it must be read again.
    Conflict,
    /// There is no such object, or no such namespace. Nothing was written.
    NotFound,
    /// The API server responded with 403: usually the user lacks permission, but a quota, a webhook or a namespace that
    /// is being deleted can be the reason too. Nothing was written; a later attempt may succeed.
    Forbidden,
    /// The resourceVersion of a watch is too old. The next watch must begin with the current state.
    Expired,
    /// The API server refused the request for another reason, or the request could not be sent. Nothing was written.
    Refused,
    /// The response is larger than leaderrun accepts. It is not known whether the request was carried out.
    TooLarge,
    /// It is not known whether the request was carried out; a read must follow.
    Unknown,
}

impl Error {
    /// Creates an error with this message and no further details.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: None, refused_by_rbac: false }
    }

    /// Creates the error for a request with an unknown result.
    pub fn unknown(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unknown, message)
    }

    /// Converts the error from kube, or from the layers below it, for a request to the API server at this address.
    pub fn from_client(failure: &kube::Error, address: &str) -> Self {
        let not_an_event = || {
            Self::unknown(format!(
                "the response from {address} is not a watch event; perhaps a proxy in between does not support watches"
            ))
        };
        match failure {
            kube::Error::SerdeError(_) => not_an_event(),
            kube::Error::Api(status) if status.code == 0 => not_an_event(),
            kube::Error::Api(status) => Self::from_status(status),
            kube::Error::Service(failure) if failure.is::<Self>() => {
                failure.downcast_ref::<Self>().cloned().unwrap_or_else(not_an_event)
            }
            // The request was not sent.
            kube::Error::Service(failure) if failure.is::<CredentialsError>() || failure.is::<ConnectError>() => {
                Self::new(ErrorKind::Refused, failure.to_string())
            }
            other if is_too_large(other) => {
                let message = format!("the response from {address} is larger than {MAX_SIZE_TEXT}");
                Self::new(ErrorKind::TooLarge, message)
            }
            other => Self::unknown(format!("no response from {address}: {}", failure_reason(other, Peer::Server))),
        }
    }

    /// Converts a `Status` from the API server.
    pub fn from_status(status: &Status) -> Self {
        let kind = match status.code {
            409 => ErrorKind::Conflict,
            404 => ErrorKind::NotFound,
            403 => ErrorKind::Forbidden,
            400..=499 => ErrorKind::Refused,
            _ => ErrorKind::Unknown,
        };
        let message = match status.message.as_str() {
            "" => format!("HTTP status {}", status.code),
            message => printable(message),
        };
        let retry_after = status.details.as_ref().map(|details| details.retry_after_seconds);
        let retry_after = retry_after.filter(|seconds| *seconds > 0);
        // A 403 can have other reasons: a quota, a webhook, a namespace that is being deleted. Only the message of RBAC
        // says `User "NAME" cannot VERB`.
        let refused_by_rbac = status.code == 403 && status.message.contains("\" cannot ");
        Self {
            kind,
            message,
            retry_after: retry_after.map(|seconds| Duration::from_secs(seconds.into())),
            refused_by_rbac,
        }
    }

    /// Puts a description of what failed in front of the message.
    pub fn context(self, what: impl fmt::Display) -> Self {
        Self { message: format!("{what}: {}", self.message), ..self }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl error::Error for Error {}

/// Returns whether a request failed because its response is larger than leaderrun accepts.
fn is_too_large(failure: &kube::Error) -> bool {
    let first: &(dyn error::Error + 'static) = failure;
    iter::successors(Some(first), |failure| failure.source()).any(|failure| failure.is::<LengthLimitError>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_html_page_in_response_to_a_watch_is_not_reported_as_a_parse_error() {
        let failure = serde_json::from_str::<serde_json::Value>("<html>").expect_err("HTML should not be valid JSON");
        let error = Error::from_client(&kube::Error::SerdeError(failure), "https://10.96.0.1");
        assert!(error.message.starts_with("the response from https://10.96.0.1 is not a watch event"), "{error}");
    }
}
