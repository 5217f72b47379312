//! The error for an invalid command line.

use std::error::Error;
use std::fmt;

/// The error for an invalid command line. Its text says what is wrong, why, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError {
    /// The option or environment variable as it was given; empty if the error is about neither.
    pub subject: String,
    pub reason: String,
    pub remedy: Option<String>,
}

impl UsageError {
    /// Creates an error without a remedy.
    pub fn new(subject: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { subject: subject.into(), reason: reason.into(), remedy: None }
    }

    /// Adds what to do about the error.
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Adds a suggestion of what to use instead. It must work when it is pasted.
    pub fn try_instead(self, words: impl fmt::Display) -> Self {
        self.remedy(format!("try {words}"))
    }

    /// Adds an example. It must work when it is pasted.
    pub fn for_example(self, words: impl fmt::Display) -> Self {
        self.remedy(format!("for example {words}"))
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subject, reason, remedy } = self;
        if !subject.is_empty() {
            write!(f, "{subject}: ")?;
        }
        f.write_str(reason)?;
        match remedy {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

impl Error for UsageError {}
