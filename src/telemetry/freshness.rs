//! Decides whether a standby's view of the lock is recent enough to take over.
//!
//! A standby sends no requests while it watches the lock. If the lock is held, its holder renews it every few seconds.
//! If the watch is silent for the lease duration, the holder or the connection is dead, and the election reads the
//! lock. If the lock is free but may not be acquired yet, because the next run of the command is not due, the API
//! server sends about one bookmark a minute, and the election reads the lock if the watch is silent for
//! [`SILENT_WATCH_LIMIT`]. A watch can therefore be silent although everything works: until the lock may be taken over,
//! but for at most [`SILENT_WATCH_LIMIT`], or for one lease duration if that is longer. The election then sends a
//! request, and the response arrives within the request timeout.

use std::time::Duration;

use leaderrun_core::election::SILENT_WATCH_LIMIT;
use leaderrun_core::instant::Instant;

/// Tracks when a request last succeeded or the watch last delivered an event, and since when claims have been refused.
#[derive(Debug)]
pub struct Freshness {
    lease_duration: Duration,
    request_timeout: Duration,
    started_at: Instant,
    last_success: Option<Instant>,
    /// When a write other than a renewal, usually a claim, was first refused since the last acquisition.
    claims_refused_since: Option<Instant>,
}

impl Freshness {
    /// Creates the state of a candidate that has had no response yet.
    pub fn new(now: Instant, lease_duration: Duration, request_timeout: Duration) -> Self {
        Self { lease_duration, request_timeout, started_at: now, last_success: None, claims_refused_since: None }
    }

    /// Records that a request succeeded or the watch delivered an event.
    pub fn handle_success(&mut self, now: Instant) {
        self.last_success = Some(now);
    }

    /// Records that a write other than a renewal was refused. Usually it is a claim.
    pub fn handle_refused_write(&mut self, now: Instant) {
        self.claims_refused_since.get_or_insert(now);
    }

    /// Records that this candidate or another candidate has acquired the lock.
    pub fn handle_acquisition(&mut self) {
        self.claims_refused_since = None;
    }

    /// Returns the time since the last success, or since the start if there was none.
    pub fn age(&self, now: Instant) -> Duration {
        now.since(self.last_success.unwrap_or(self.started_at))
    }

    /// Returns the reason why this candidate cannot take over, if there is one. `acquirable_at` is the instant at which
    /// the record, as last seen, may be taken over; `None` before the first read.
    pub fn obstacle(&self, now: Instant, acquirable_at: Option<Instant>) -> Option<Obstacle> {
        let (Some(last_success), Some(acquirable_at)) = (self.last_success, acquirable_at) else {
            return Some(Obstacle { since: self.started_at, kind: ObstacleKind::NeverRead });
        };
        let silent_until = acquirable_at.min(last_success + SILENT_WATCH_LIMIT).max(last_success + self.lease_duration);
        if now >= silent_until + self.request_timeout {
            return Some(Obstacle { since: last_success, kind: ObstacleKind::NoResponse });
        }
        self.claims_refused_since.map(|since| Obstacle { since, kind: ObstacleKind::ClaimsRefused })
    }
}

/// A reason why a standby cannot take over, and when it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Obstacle {
    pub since: Instant,
    pub kind: ObstacleKind,
}

/// The kind of an [`Obstacle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObstacleKind {
    NeverRead,
    NoResponse,
    ClaimsRefused,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::after_boot(Duration::from_secs(seconds))
    }

    /// Returns the freshness of a candidate that started at 0 s. Its lease duration is 15 s, and its request timeout is
    /// 2 s.
    fn freshness() -> Freshness {
        Freshness::new(at(0), Duration::from_secs(15), Duration::from_secs(2))
    }

    #[test]
    fn a_candidate_without_any_response_cannot_take_over() {
        let never = Obstacle { since: at(0), kind: ObstacleKind::NeverRead };
        assert_eq!(freshness().obstacle(at(1), None), Some(never));
        assert_eq!(freshness().age(at(1)), Duration::from_secs(1));
    }

    #[test]
    fn silence_for_the_lease_duration_and_a_request_timeout_is_an_obstacle() {
        let mut freshness = freshness();
        freshness.handle_success(at(10));
        assert_eq!(freshness.obstacle(at(26), Some(at(25))), None);
        let no_response = Obstacle { since: at(10), kind: ObstacleKind::NoResponse };
        assert_eq!(freshness.obstacle(at(27), Some(at(25))), Some(no_response));
        assert_eq!(freshness.age(at(27)), Duration::from_secs(17));
        freshness.handle_success(at(30));
        assert_eq!(freshness.obstacle(at(30), Some(at(25))), None);
    }

    #[test]
    fn silence_until_a_later_expiry_is_allowed_but_not_beyond_the_limit_for_a_silent_watch() {
        let mut freshness = freshness();
        freshness.handle_success(at(10));
        assert_eq!(freshness.obstacle(at(69), Some(at(70))), None);
        assert_eq!(freshness.obstacle(at(101), Some(at(3600))), None);
        assert!(freshness.obstacle(at(102), Some(at(3600))).is_some());
    }

    #[test]
    fn refused_claims_are_an_obstacle_until_the_lock_is_acquired() {
        let mut freshness = freshness();
        freshness.handle_success(at(10));
        freshness.handle_refused_write(at(11));
        freshness.handle_refused_write(at(12));
        let refused = Obstacle { since: at(11), kind: ObstacleKind::ClaimsRefused };
        assert_eq!(freshness.obstacle(at(12), Some(at(10))), Some(refused));
        freshness.handle_acquisition();
        assert_eq!(freshness.obstacle(at(12), Some(at(10))), None);
    }
}
