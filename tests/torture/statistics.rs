//! The statistics of a torture run: counts of faults, commands and violations.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// The statistics of one torture run.
#[derive(Default)]
pub struct Statistics {
    /// The number of times that each fault was injected.
    pub faults: BTreeMap<String, u32>,
    /// The number of faults that were not injected, for example because the [rules](crate::rules) did not allow them
    /// or because they had no target.
    pub skipped: u32,
    /// The number of candidates that were started.
    pub starts: u32,
    /// The number of commands that were started.
    pub commands: usize,
    /// The number of witnesses: the processes of all commands.
    pub witnesses: usize,
    /// The number of commands that were followed by another candidate's command.
    pub hand_overs: usize,
    /// The smallest margin between the last time that a command was seen alive and the expiry of its lease, in
    /// nanoseconds. It is negative if a command outlived its lease.
    pub worst_margin: Option<i64>,
    pub violations: usize,
}

impl Statistics {
    pub fn count(&mut self, fault: &str) {
        *self.faults.entry(fault.to_owned()).or_default() += 1;
    }
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let injected: u32 = self.faults.values().sum();
        writeln!(f, "  {injected} faults injected:")?;
        for (fault, count) in &self.faults {
            writeln!(f, "    {count:5} {fault}")?;
        }
        writeln!(f, "  {} faults skipped (for example because the rules did not allow them)", self.skipped)?;
        writeln!(f, "  {} starts of leaderrun", self.starts)?;
        writeln!(f, "  {} commands with {} witnesses, {} hand-overs", self.commands, self.witnesses, self.hand_overs)?;
        match self.worst_margin {
            Some(margin @ 0..) => {
                let margin = Duration::from_millis(margin as u64 / 1_000_000);
                writeln!(f, "  worst margin between the end of a command and the expiry of its lease: {margin:?}")?;
            }
            Some(late) => writeln!(f, "  worst margin: a command outlived its lease by {} ms", -late / 1_000_000)?,
            None => writeln!(f, "  no margin was observed")?,
        }
        write!(f, "  {} violations", self.violations)
    }
}
