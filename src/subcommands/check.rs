//! `leaderrun check`: checks whether the run that this process belongs to will hold the lock for long enough.

use std::time::Duration;

use anyhow::Result;

use super::CommandOutput;
use crate::process::clock;
use crate::process::deadline;

/// Checks that the lock is held for at least `min_remaining` longer, and returns the result as an exit status. It sends
/// no request, but reads the deadline from the memory that the supervisor shares.
pub fn check(min_remaining: Duration) -> Result<CommandOutput> {
    let held_until = deadline::read()?;
    let holds = clock::now() + min_remaining < held_until;
    Ok(CommandOutput { text: String::new(), status: if holds { 0 } else { 1 } })
}
