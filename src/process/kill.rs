//! Killing the processes below this one until none is left.

use std::time::Duration;

use leaderrun_core::instant::Instant;
use nix::sys::signal::Signal;

use super::tree;

/// Between two looks at a tree that does not die, when nothing changes; doubled up to the second.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(100));

/// A kill under way: SIGKILL to every child, again and again. Those that die leave us theirs, for the
/// next round.
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

    /// When to call [`kill_children`](Self::kill_children) again.
    pub fn next_round(&self) -> Instant {
        self.next_round
    }

    /// Children have ended: theirs are ours now.
    pub fn handle_ended(&mut self, now: Instant) {
        (self.next_round, self.pause) = (now, PAUSES.0);
    }

    /// One round. Says, once, what cannot be killed.
    pub fn kill_children(&mut self, now: Instant) -> Option<String> {
        self.next_round = now + self.pause;
        self.pause = (self.pause * 2).min(PAUSES.1);
        let refused = match tree::signal_children(Signal::SIGKILL) {
            Ok(refused) => refused.first().map(|(process, errno)| format!("process {process}: {}", errno.desc())),
            Err(error) => Some(format!("what /proc does not list: {error}")),
        };
        let refused = refused.filter(|_| !self.refused)?;
        self.refused = true;
        Some(refused)
    }
}
