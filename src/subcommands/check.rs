//! `leaderrun check`: checks whether the run that this process belongs to still holds the lock.

use std::time::Duration;

use anyhow::Result;

use super::CommandOutput;
use crate::process::clock;
use crate::process::deadline;

/// Compares the current time with the deadline in the memory that the supervisor shares. It sends no request.
pub fn check(min_remaining: Duration) -> Result<CommandOutput> {
    let held_until = deadline::read()?;
    let holds = clock::now() + min_remaining < held_until;
    Ok(CommandOutput { text: String::new(), status: if holds { 0 } else { 1 } })
}
