//! Why a request to the API server failed, and what that means for the next one.

use std::fmt;
use std::time::Duration;

use kube::core::Status;

use super::credentials::CredentialsError;
use super::tls::failure_reason;
use super::transport::ConnectError;
use crate::telemetry::log::printable;

/// Why a request failed.
#[derive(Clone, Debug)]
pub struct Error {
    pub kind: ErrorKind,
    /// What failed and why, for people. Text from outside is made printable.
    pub message: String,
    /// How long the API server wants to be left alone.
    pub retry_after: Option<Duration>,
    /// RBAC refused it: a Role that allows it would help.
    pub lacks_role: bool,
}

/// What a failed request means for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The object is not what it was when it was read. Nothing was written: read it again.
    Conflict,
    /// There is no such object, or no such namespace. Nothing was written.
    NotFound,
    /// This user may not do that. Nothing was written: try again after a while, rights may arrive later.
    Forbidden,
    /// The resourceVersion to watch from is too old: watch from the present state on.
    Expired,
    /// The API server refused the request for another reason. Nothing was written.
    Refused,
    /// It is not known whether something was written: read before anything is concluded from it.
    Unknown,
}

impl Error {
    /// Returns an error of this kind with nothing else to say about it.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: None, lacks_role: false }
    }

    /// Returns the error for a request that got no answer, or none that says what became of it.
    pub fn unknown(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unknown, message)
    }

    /// Returns the error of kube, or of the layers below it.
    pub fn of_client(failure: &kube::Error) -> Self {
        match failure {
            kube::Error::Api(status) => Self::of_status(status),
            // Nothing was sent.
            kube::Error::Service(failure) if failure.is::<CredentialsError>() || failure.is::<ConnectError>() => {
                Self::new(ErrorKind::Refused, failure.to_string())
            }
            other => Self::unknown(failure_reason(other)),
        }
    }

    /// Returns the error that a `Status` of the API server stands for.
    pub fn of_status(status: &Status) -> Self {
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
        // A 403 can have other reasons: a quota, a webhook, a namespace that is being deleted. RBAC names the user.
        let lacks_role = status.code == 403 && status.message.contains("\" cannot ");
        Self { kind, message, retry_after: retry_after.map(|seconds| Duration::from_secs(seconds.into())), lacks_role }
    }

    /// Says in the message what failed, in front of why.
    pub fn context(self, what: impl fmt::Display) -> Self {
        Self { message: format!("{what}: {}", self.message), ..self }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
