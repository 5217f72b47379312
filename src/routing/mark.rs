//! The mark that leaderrun leaves on a pod, as a label, or on an EndpointSlice, as an annotation, when it routes
//! traffic. It contains the name of the lock and the fencing token of the leader.

use jiff::Timestamp;
use serde_json::Value;

/// The suffix of the lock's name in the key of a [`RouteMark`], as in `my-job.leaderrun/token`.
pub const SUFFIX: &str = ".leaderrun";

/// The maximum length of a lock's name. The name and the suffix are the prefix of a key, which is a DNS-1123 subdomain
/// of at most 253 characters.
pub const MAX_LOCK_NAME_LENGTH: usize = 253 - SUFFIX.len();

/// The mark of the leader that last changed a pod or an EndpointSlice to route traffic to itself or away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteMark {
    /// The lock's name without its kind, so that the mark remains valid when the lock is moved to another kind. The
    /// lock is in the same namespace as the object.
    pub lock: String,
    /// The fencing token of the leader.
    pub token: String,
}

impl RouteMark {
    /// Returns the key of the label or annotation.
    pub fn key(&self) -> String {
        self.key_of("token")
    }

    /// Returns the key under which the leader of this lock stores the value with this name. The key contains the lock's
    /// name, because several locks can mark one object.
    pub fn key_of(&self, value_name: &str) -> String {
        format!("{}{SUFFIX}/{value_name}", self.lock)
    }

    /// Returns a value for the label or annotation. No two values are equal, so each write changes the object's
    /// version, and pending writes based on the earlier version fail.
    pub fn stamp(&self) -> String {
        format!("{}.{}", self.token, Timestamp::now().as_nanosecond())
    }

    /// Returns the mark that a leader of the same lock has left in an object's labels or annotations, if there is one.
    pub fn find_in(&self, entries: &Value) -> Option<Self> {
        let (token, _) = entries[self.key()].as_str()?.split_once('.')?;
        Some(Self { lock: self.lock.clone(), token: token.to_owned() })
    }

    /// Returns whether this mark belongs to a later leader than `other`. Tokens are decimal integers of any length.
    pub fn is_later_than(&self, other: &Self) -> bool {
        (self.token.len(), &self.token) > (other.token.len(), &other.token)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn mark(token: &str) -> RouteMark {
        RouteMark { lock: "job".into(), token: token.into() }
    }

    #[test]
    fn a_mark_is_found_among_others() {
        let other = RouteMark { lock: "other".into(), token: "8".into() };
        let present = json!({ mark("7").key(): mark("7").stamp(), other.key(): other.stamp(), "app": "worker" });
        assert_eq!(mark("9").find_in(&present), Some(mark("7")));
        assert_eq!(other.find_in(&present), Some(other));
        for garbage in
            [json!(null), json!({}), json!({ "job.leaderrun/token": 7 }), json!({ "job.leaderrun/token": "" })]
        {
            assert_eq!(mark("9").find_in(&garbage), None);
        }
    }

    #[test]
    fn stamps_are_unique() {
        assert_ne!(mark("7").stamp(), mark("7").stamp());
    }

    #[test]
    fn the_longest_lock_name_still_fits_into_a_label() {
        let mark = RouteMark { lock: "a".repeat(MAX_LOCK_NAME_LENGTH), token: u64::MAX.to_string() };
        assert_eq!(mark.key().split_once('/').expect("the key has a prefix").0.len(), 253);
        assert!(mark.stamp().len() <= 63, "{}", mark.stamp());
    }

    #[test]
    fn tokens_are_compared_as_numbers() {
        assert!(mark("10").is_later_than(&mark("9")));
        assert!(!mark("9").is_later_than(&mark("10")));
        assert!(!mark("9").is_later_than(&mark("9")));
    }
}
