//! Repeats [`Tree::kill`] until no process is left.

use std::mem;
use std::time::Duration;

use leaderrun_core::instant::Instant;
use leaderrun_core::kill_time::KillPace;

use super::{KillFailure, Tree};

/// The shortest and the longest pause between two rounds while nothing changes. Each pause is twice the one before.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(100));

/// How long no process may end before one is reported. It allows for a busy machine.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// A kill that is under way, and when its next round is due.
#[derive(Debug)]
pub struct KillRounds {
    /// The number of threads that are killed at once, and until when it is limited.
    pace: Option<(KillPace, Instant)>,
    next_round: Instant,
    pause: Duration,
    /// When a process has ended most recently, or the kill began.
    progress_at: Instant,
    has_failed: bool,
}

impl KillRounds {
    /// Creates a kill at this pace, whose first round is due.
    pub fn begin(now: Instant, pace: Option<KillPace>) -> Self {
        let pace = pace.map(|pace| (pace, now + pace.lasts));
        Self { pace, next_round: now, pause: PAUSES.0, progress_at: now, has_failed: false }
    }

    /// Returns when to call [`run_round`](Self::run_round) again.
    pub fn next_round(&self) -> Instant {
        self.next_round
    }

    /// Brings the next round forward, because children have ended and theirs have become ours.
    pub fn handle_ended(&mut self, now: Instant) {
        (self.next_round, self.pause, self.progress_at) = (now, PAUSES.0, now);
    }

    /// Kills every descendant that one scan finds, as far as the pace allows.
    ///
    /// # Errors
    /// Returns why a process could not be killed, but only the first time.
    pub fn run_round(&mut self, tree: &mut Tree, now: Instant) -> Result<(), KillFailure> {
        self.next_round = now + self.pause;
        self.pause = (self.pause * 2).min(PAUSES.1);
        let pace = self.pace.filter(|(_, until)| now < *until).map(|(pace, _)| pace);
        let mut killed = tree.kill(pace.map(|pace| pace.max_killed));
        if killed.is_ok() && !self.has_failed && now >= self.progress_at + STUCK_AFTER {
            killed = tree.check_progress();
        }
        if killed.is_err() && mem::replace(&mut self.has_failed, true) {
            return Ok(());
        }
        killed
    }
}
