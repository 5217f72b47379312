//! Outer runs: the runs of leaderrun whose commands started this process, directly or indirectly.

use std::env;

use leaderrun_core::record::Record;

use crate::process::deadline::{OUTER_RUNS_VARIABLE, RUN_VARIABLE};

/// The IDs of the outer runs, the innermost one last.
///
/// leaderrun compares run IDs and not names of locks, because one lock can have several names, such as two paths to its
/// file or two addresses of the API server.
#[derive(Debug, Default)]
pub struct OuterRuns(Vec<String>);

impl OuterRuns {
    /// Reads the run IDs from the variables that leaderrun sets for its command.
    pub fn from_environment() -> Self {
        let value = |name| env::var(name).unwrap_or_default();
        let runs = format!("{} {}", value(OUTER_RUNS_VARIABLE), value(RUN_VARIABLE));
        Self(runs.split_whitespace().map(str::to_owned).collect())
    }

    /// Returns whether one of these runs holds the lock with this record.
    pub fn hold(&self, record: &Record) -> bool {
        let holds = |run: &String| record.mark().is_some_and(|mark| mark.run.to_string() == *run);
        record.is_held() && self.0.iter().any(holds)
    }

    /// Returns [`OUTER_RUNS_VARIABLE`] and its value for the command, if there are outer runs.
    pub fn variable(&self) -> Option<(String, String)> {
        (!self.0.is_empty()).then(|| (OUTER_RUNS_VARIABLE.to_owned(), self.0.join(" ")))
    }
}
