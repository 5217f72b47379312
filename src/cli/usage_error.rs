//! A command line that cannot be carried out.

use std::error::Error;
use std::fmt;

/// Why a command line cannot be carried out, in one sentence: what failed, why, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError {
    /// The option or the variable as it was given; empty where it is none.
    pub subject: String,
    pub reason: String,
    pub remedy: Option<String>,
}

impl UsageError {
    /// An error without a remedy.
    pub fn new(subject: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { subject: subject.into(), reason: reason.into(), remedy: None }
    }

    /// Says what to do about it.
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Says what to use instead, which must work when it is pasted.
    pub fn try_instead(self, words: impl fmt::Display) -> Self {
        self.remedy(format!("try {words}"))
    }

    /// Gives an example, which must work when it is pasted.
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
