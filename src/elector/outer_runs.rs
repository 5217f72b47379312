//! The runs inside whose commands this process runs.

use std::env;

use leaderrun_core::record::Record;

use crate::process::deadline::RUN_VARIABLE;

/// The run IDs of those outside of the run that [`RUN_VARIABLE`] names, with spaces between them.
pub const OUTER_RUNS_VARIABLE: &str = "LEADERRUN_OUTER_RUNS";

/// The run IDs of every leaderrun that this process was started under, the innermost one last.
///
/// A run ID tells the same lock under whatever name: another path to a file, another name of the API server.
#[derive(Debug, Default)]
pub struct OuterRuns(Vec<String>);

impl OuterRuns {
    /// Reads them from the variables that a command of leaderrun sees.
    pub fn from_environment() -> Self {
        let value = |name| env::var(name).unwrap_or_default();
        let runs = format!("{} {}", value(OUTER_RUNS_VARIABLE), value(RUN_VARIABLE));
        Self(runs.split_whitespace().map(str::to_owned).collect())
    }

    /// Returns whether one of them holds the lock by this record.
    pub fn hold(&self, record: &Record) -> bool {
        let holds = |run: &String| record.mark().is_some_and(|mark| mark.run.to_string() == *run);
        record.is_held() && self.0.iter().any(holds)
    }

    /// Returns the variable for the command, if it has anything to say.
    pub fn variable(&self) -> Option<(String, String)> {
        (!self.0.is_empty()).then(|| (OUTER_RUNS_VARIABLE.to_owned(), self.0.join(" ")))
    }
}
