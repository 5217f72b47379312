//! What was done and what came of it, in numbers.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// The numbers of one arena.
#[derive(Default)]
pub struct Tally {
    /// How often which fault was injected.
    pub faults: BTreeMap<String, u32>,
    /// Faults that the rules did not allow at that moment, or that met nobody.
    pub left_out: u32,
    /// Candidates that were started.
    pub starts: u32,
    /// Runs of a command, and the processes of all of them that wrote something.
    pub commands: usize,
    pub witnesses: usize,
    /// Commands that were followed by another candidate's.
    pub hand_overs: usize,
    /// The shortest time between a command's last sign of life and the end of its lease, nanoseconds.
    pub worst_margin: Option<i64>,
    pub overlaps: usize,
}

impl Tally {
    pub fn count(&mut self, fault: &str) {
        *self.faults.entry(fault.to_owned()).or_default() += 1;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let injected: u32 = self.faults.values().sum();
        writeln!(f, "  {injected} faults ({} left out by the rules or for want of a target):", self.left_out)?;
        for (fault, count) in &self.faults {
            writeln!(f, "    {count:5} {fault}")?;
        }
        writeln!(f, "  {} starts of leaderrun", self.starts)?;
        writeln!(f, "  {} commands with {} witnesses, {} hand-overs", self.commands, self.witnesses, self.hand_overs)?;
        match self.worst_margin {
            Some(margin @ 0..) => {
                let margin = Duration::from_millis(margin as u64 / 1_000_000);
                writeln!(f, "  worst margin between a tree's death and the end of its lease: {margin:?}")?;
            }
            Some(late) => writeln!(f, "  worst margin: a tree lived {} ms longer than its lease", -late / 1_000_000)?,
            None => writeln!(f, "  no margin was seen")?,
        }
        write!(f, "  {} overlaps", self.overlaps)
    }
}
