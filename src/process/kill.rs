//! Killing the processes below this one until none is left.

use std::mem;
use std::time::Duration;

use leaderrun_core::instant::Instant;

use super::tree::{KillFailure, Tree};

/// Between two looks at a tree that does not die, when nothing changes; doubled up to the second.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(100));

/// A kill under way: SIGKILL to every descendant that is found, again and again.
#[derive(Debug)]
pub struct Kill {
    next_round: Instant,
    pause: Duration,
    refused: bool,
}

impl Kill {
    /// A kill whose first round is due.
    pub fn begin(now: Instant) -> Self {
        Self { next_round: now, pause: PAUSES.0, refused: false }
    }

    /// When to call [`run_round`](Self::run_round) again.
    pub fn next_round(&self) -> Instant {
        self.next_round
    }

    /// Children have ended: theirs are ours now.
    pub fn handle_ended(&mut self, now: Instant) {
        (self.next_round, self.pause) = (now, PAUSES.0);
    }

    /// Kills everything that is found now.
    ///
    /// # Errors
    /// Once, why something cannot be killed.
    pub fn run_round(&mut self, tree: &mut Tree, now: Instant) -> Result<(), KillFailure> {
        self.next_round = now + self.pause;
        self.pause = (self.pause * 2).min(PAUSES.1);
        let killed = tree.kill();
        if killed.is_err() && mem::replace(&mut self.refused, true) {
            return Ok(());
        }
        killed
    }
}
