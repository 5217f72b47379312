//! The mark in a record, which names a run and states whether that run holds the lock or the lock was released.

use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The unique ID of a run: one execution of leaderrun, or of another program that contains a candidate. Candidates with
/// the same identity have different run IDs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(String);

impl RunId {
    /// Returns the run ID that a forced release writes if the record that it releases has no valid mark.
    pub fn unknown() -> Self {
        Self::new("none")
    }

    /// Creates a run ID, for example from a UUID. The text is not checked: a mark whose run ID is empty or contains a
    /// space cannot be parsed.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The mark in a record: the ID of a run, whether the lock is held or released, and the time of the write. A run marks
/// its own records. The mark of a forced release names the run whose lock was released.
///
/// Its text form is `RUN held|released TIME`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RunMark {
    pub run: RunId,
    pub state: MarkState,
    /// The `renewTime` written together with this mark.
    pub renew_time: Timestamp,
}

/// The state of the lock after the write of a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MarkState {
    Held,
    Released,
}

impl fmt::Display for RunMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            MarkState::Held => "held",
            MarkState::Released => "released",
        };
        write!(f, "{} {state} {:.6}", self.run, self.renew_time)
    }
}

/// The error for text that is not a valid [`RunMark`].
#[derive(Debug, PartialEq, Eq)]
pub struct ParseRunMarkError;

impl fmt::Display for ParseRunMarkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected RUN held|released TIME")
    }
}

impl core::error::Error for ParseRunMarkError {}

impl FromStr for RunMark {
    type Err = ParseRunMarkError;

    fn from_str(text: &str) -> Result<Self, ParseRunMarkError> {
        let mut words = text.split(' ');
        let (Some(run), Some(state), Some(time), None) = (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(ParseRunMarkError);
        };
        if run.is_empty() {
            return Err(ParseRunMarkError);
        }
        let state = match state {
            "held" => MarkState::Held,
            "released" => MarkState::Released,
            _ => return Err(ParseRunMarkError),
        };
        let renew_time = time.parse().map_err(|_| ParseRunMarkError)?;
        Ok(Self { run: RunId::new(run), state, renew_time })
    }
}

impl Serialize for RunMark {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RunMark {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
