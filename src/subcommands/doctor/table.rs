//! The table of results. It has a line for each result, followed by a line with the remedy if there is one.

use std::fmt;

use crate::lock::Finding;
use crate::telemetry::log::on_one_line;

/// The remedy for a failure whose message contains none.
pub const SEE_HELP: &str = "see leaderrun --help";

/// The results, in the order in which they were found.
#[derive(Debug, Default)]
pub struct Table(Vec<Row>);

/// One result.
#[derive(Debug)]
pub struct Row {
    grade: Grade,
    /// What was checked, in one or two words.
    subject: &'static str,
    finding: String,
    remedy: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grade {
    Ok,
    /// leaderrun works, but something could be better.
    Note,
    Failed,
}

impl Row {
    /// Creates a row for a requirement that is met.
    pub fn ok(subject: &'static str, finding: impl Into<String>) -> Self {
        Self { grade: Grade::Ok, subject, finding: finding.into(), remedy: None }
    }

    /// Creates a row for something that could be better.
    pub fn note(subject: &'static str, finding: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { grade: Grade::Note, subject, finding: finding.into(), remedy: Some(remedy.into()) }
    }

    /// Creates a row for a requirement that is not met.
    pub fn failed(subject: &'static str, finding: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { grade: Grade::Failed, subject, finding: finding.into(), remedy: Some(remedy.into()) }
    }
}

/// Splits a sentence of the form `what failed: why; what to do` into the finding and the remedy. If it contains no
/// remedy, `default_remedy` is returned instead.
pub fn finding_and_remedy<'a>(sentence: &'a str, default_remedy: &'a str) -> (&'a str, &'a str) {
    sentence.split_once("; ").unwrap_or((sentence, default_remedy))
}

impl From<Finding> for Row {
    fn from(Finding { subject, text, remedy }: Finding) -> Self {
        match remedy {
            None => Self::ok(subject, text),
            Some(remedy) => Self::failed(subject, text, remedy),
        }
    }
}

impl Table {
    pub fn add(&mut self, row: Row) {
        self.0.push(row);
    }

    pub fn has_failed(&self) -> bool {
        self.0.iter().any(|row| row.grade == Grade::Failed)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Row { grade, subject, finding, remedy } in &self.0 {
            let grade = match grade {
                Grade::Ok => "ok",
                Grade::Note => "note",
                Grade::Failed => "FAILED",
            };
            writeln!(f, "{grade:<7} {subject:<11} {}", on_one_line(finding))?;
            if let Some(remedy) = remedy {
                writeln!(f, "{:<7} {:<11} remedy: {}", "", "", on_one_line(remedy))?;
            }
        }
        Ok(())
    }
}
