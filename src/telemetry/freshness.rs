//! Whether what a standby knows of the lock is fresh enough to take over.
//!
//! A standby sends nothing while it waits: it watches the lock, and each event shows that it still hears. A holder
//! renews every few seconds, so a watch of a held lock that is silent for the lease duration is one whose path is dead,
//! or whose holder is; at that moment the election reads the lock, and the answer tells. A lock that is free but not due
//! has no holder and no events. There the watch's bookmarks, about one a minute, show that it is alive, and the election
//! reads a lock that has been silent for longer. So in either case something is heard in time while all is well:
//!
//! - until the record expires, or for one lease duration, whichever is longer,
//! - but of a lock that is not expected to change, for [`SILENT_WATCH_LIMIT`] at most,
//! - and the time of one request more, for the read that then follows.

use std::time::Duration;

use leaderrun_core::election::SILENT_WATCH_LIMIT;
use leaderrun_core::instant::Instant;

/// When the lock was last read, written or watched with success, and whether it could be claimed.
#[derive(Debug)]
pub struct Freshness {
    lease_duration: Duration,
    request_timeout: Duration,
    started_at: Instant,
    last_success: Option<Instant>,
    /// Since when claims of the free lock have been refused.
    claims_refused_since: Option<Instant>,
}

impl Freshness {
    /// Returns the freshness of a candidate that has not heard anything yet.
    pub fn new(now: Instant, lease_duration: Duration, request_timeout: Duration) -> Self {
        Self { lease_duration, request_timeout, started_at: now, last_success: None, claims_refused_since: None }
    }

    /// A request succeeded, or the watch said something.
    pub fn handle_success(&mut self, now: Instant) {
        self.last_success = Some(now);
    }

    /// A claim of the free lock was refused.
    pub fn handle_refused_claim(&mut self, now: Instant) {
        self.claims_refused_since.get_or_insert(now);
    }

    /// The lock was acquired, by this candidate or another one.
    pub fn handle_acquisition(&mut self) {
        self.claims_refused_since = None;
    }

    /// Returns the time since the last success, or since the start where there was none.
    pub fn age(&self, now: Instant) -> Duration {
        now.since(self.last_success.unwrap_or(self.started_at))
    }

    /// Returns since when this candidate cannot take over and why, if that is so. `takeable_at` is when the record as
    /// last seen may be taken over; nothing before it was seen.
    pub fn obstacle(&self, now: Instant, takeable_at: Option<Instant>) -> Option<Obstacle> {
        let (Some(last_success), Some(takeable_at)) = (self.last_success, takeable_at) else {
            return Some(Obstacle { since: self.started_at, kind: ObstacleKind::NeverRead });
        };
        let silent_until = takeable_at.min(last_success + SILENT_WATCH_LIMIT).max(last_success + self.lease_duration);
        if now >= silent_until + self.request_timeout {
            return Some(Obstacle { since: last_success, kind: ObstacleKind::NoAnswer });
        }
        self.claims_refused_since.map(|since| Obstacle { since, kind: ObstacleKind::ClaimsRefused })
    }
}

/// What keeps a standby from taking over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Obstacle {
    pub since: Instant,
    pub kind: ObstacleKind,
}

/// The kind of an [`Obstacle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObstacleKind {
    NeverRead,
    NoAnswer,
    ClaimsRefused,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::after_boot(Duration::from_secs(seconds))
    }

    /// Started at 0 with leases of 15 s and requests of 2 s.
    fn freshness() -> Freshness {
        Freshness::new(at(0), Duration::from_secs(15), Duration::from_secs(2))
    }

    #[test]
    fn a_candidate_that_has_heard_nothing_cannot_take_over() {
        let never = Obstacle { since: at(0), kind: ObstacleKind::NeverRead };
        assert_eq!(freshness().obstacle(at(1), None), Some(never));
        assert_eq!(freshness().age(at(1)), Duration::from_secs(1));
    }

    #[test]
    fn silence_for_the_lease_duration_and_a_request_is_an_obstacle() {
        let mut freshness = freshness();
        freshness.handle_success(at(10));
        assert_eq!(freshness.obstacle(at(26), Some(at(25))), None);
        let no_answer = Obstacle { since: at(10), kind: ObstacleKind::NoAnswer };
        assert_eq!(freshness.obstacle(at(27), Some(at(25))), Some(no_answer));
        assert_eq!(freshness.age(at(27)), Duration::from_secs(17));
        freshness.handle_success(at(30));
        assert_eq!(freshness.obstacle(at(30), Some(at(25))), None);
    }

    #[test]
    fn a_longer_record_may_be_silent_for_longer_but_not_without_limit() {
        let mut freshness = freshness();
        freshness.handle_success(at(10));
        assert_eq!(freshness.obstacle(at(69), Some(at(70))), None);
        assert_eq!(freshness.obstacle(at(101), Some(at(3600))), None);
        assert!(freshness.obstacle(at(102), Some(at(3600))).is_some());
    }

    #[test]
    fn refused_claims_are_an_obstacle_until_somebody_acquires_the_lock() {
        let mut freshness = freshness();
        freshness.handle_success(at(10));
        freshness.handle_refused_claim(at(11));
        freshness.handle_refused_claim(at(12));
        let refused = Obstacle { since: at(11), kind: ObstacleKind::ClaimsRefused };
        assert_eq!(freshness.obstacle(at(12), Some(at(10))), Some(refused));
        freshness.handle_acquisition();
        assert_eq!(freshness.obstacle(at(12), Some(at(10))), None);
    }
}
