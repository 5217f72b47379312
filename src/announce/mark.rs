//! What an object is marked with when traffic is led by it: for which lock, by which run, and when.

use jiff::Timestamp;
use serde_json::Value;

/// Who leads traffic by an object, or did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The lock's namespace and name, which stay when it moves from one kind to another.
    pub lock: String,
    pub run: String,
    /// The fencing token of the leadership.
    pub token: String,
}

impl Mark {
    /// As an annotation has it. No two are equal, so each changes the object's version, and what was sent
    /// before arrives too late from then on.
    pub fn stamp(&self) -> String {
        let Self { lock, run, token } = self;
        format!("{lock} {run} {token} {:.9}", Timestamp::now())
    }

    /// What an annotation says, if it is one of these.
    pub fn read(annotation: &Value) -> Option<Self> {
        let mut words = annotation.as_str()?.split(' ').map(str::to_owned);
        let (Some(lock), Some(run), Some(token), Some(_), None) =
            (words.next(), words.next(), words.next(), words.next(), words.next())
        else {
            return None;
        };
        Some(Self { lock, run, token })
    }

    /// Whether this is of a later leadership of the same lock: tokens are decimal integers of any length.
    pub fn is_later_than(&self, other: &Self) -> bool {
        self.lock == other.lock && (self.token.len(), &self.token) > (other.token.len(), &other.token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(token: &str) -> Mark {
        Mark { lock: "default/job".into(), run: "r".into(), token: token.into() }
    }

    #[test]
    fn a_mark_survives_its_annotation() {
        assert_eq!(Mark::read(&mark("7").stamp().into()), Some(mark("7")));
        for garbage in [Value::Null, "".into(), "a b c".into(), "a b c d e".into(), 7.into()] {
            assert_eq!(Mark::read(&garbage), None);
        }
    }

    #[test]
    fn tokens_are_compared_as_numbers() {
        assert!(mark("10").is_later_than(&mark("9")));
        assert!(!mark("9").is_later_than(&mark("10")));
        assert!(!mark("9").is_later_than(&mark("9")));
        assert!(!Mark { lock: "default/other".into(), ..mark("10") }.is_later_than(&mark("9")));
    }
}
