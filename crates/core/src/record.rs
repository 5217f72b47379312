//! The leader election record: what candidates read and write, wherever it is stored.
//!
//! The fields are those of every implementation of the protocol (client-go's `LeaderElectionRecord`), and what leaderrun
//! adds in annotations.

use alloc::string::String;
use core::fmt;
use core::str::FromStr;
use core::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// The annotation that states how often the holder renews the record, in milliseconds: see [`Record::retry_period`].
pub const RETRY_PERIOD_ANNOTATION: &str = "leaderrun/retry-period-ms";

/// The annotation by which the record of a holder that is known to be dead was released: see
/// [`Record::is_released_by_force`].
pub const FORCED_ANNOTATION: &str = "leaderrun/released-by-force";

/// The annotation that states which run of leaderrun wrote the record: see [`RunMark`].
pub const RUN_ANNOTATION: &str = "leaderrun/run";

/// The annotation that states which lock, and which object of it, a mark was written for: `NAMESPACE/NAME UID`, without
/// the uid in the write that creates the object. A mark that was copied from elsewhere does not count.
pub const LOCK_ANNOTATION: &str = "leaderrun/lock";

/// The annotation that states when the command is due again, after it has succeeded: see [`Record::not_before`].
pub const NOT_BEFORE_ANNOTATION: &str = "leaderrun/not-before";

/// The annotation that states how many candidates a release wakes: see [`Record::contenders`].
pub const CONTENDERS_ANNOTATION: &str = "leaderrun/contenders";

/// The annotation by which the run that holds the lock is asked to release it: see [`Record::asks_to_step_down`].
pub const STEP_DOWN_ANNOTATION: &str = "leaderrun/step-down";

/// The least difference between two renewals: a record's times have microseconds.
const TIME_STEP: SignedDuration = SignedDuration::from_micros(1);

/// One leader election record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Record {
    /// The holder's identity; empty when nobody holds the lock.
    pub holder_identity: String,
    /// How long the record holds without being renewed, as its holder chose; whole seconds.
    pub lease_duration_seconds: Option<u32>,
    /// The holder's wall clock when it acquired the lock. For people; never compared with a clock.
    pub acquire_time: Option<Timestamp>,
    /// The holder's wall clock at the last renewal. Only ever compared for being different.
    pub renew_time: Option<Timestamp>,
    /// How often the lock was acquired after another candidate had held it.
    pub lease_transitions: u32,
    /// The mark as it is stored, whether it counts or not; see [`Record::mark`].
    pub run: Option<RunMark>,
    /// When the command is due again, as it is stored, whether it counts or not; see [`Record::due`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// About how many candidates a release wakes, as the last winner estimated it. It only ever delays a claim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contenders: Option<u32>,
    /// How often the holder renews the record, in milliseconds; see [`Record::retry_period`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_period_millis: Option<u64>,
    /// The time of a release by force, as it is stored, whether it counts or not; see [`Record::is_released_by_force`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forced: Option<Timestamp>,
    /// The run that is asked to step down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_down: Option<RunId>,
}

impl Record {
    /// Returns the time before which, by any candidate's wall clock, the lock is not to be acquired although it was
    /// released, or half of it was. No command is alive then, so a wrong clock costs a tick and never an overlap.
    pub fn due(&self) -> Option<Timestamp> {
        self.not_before.filter(|_| self.mark().is_some())
    }

    /// Returns how long the command was not to run again, counted from the acquisition of the lock.
    pub fn min_hold(&self) -> Option<Duration> {
        Duration::try_from(self.due()?.duration_since(self.acquire_time?)).ok()
    }

    /// Returns the mark of the run that wrote this record, if one did. A mark counts only while its time is the record's
    /// own, so that no other writer's record is mistaken for that run's.
    pub fn mark(&self) -> Option<&RunMark> {
        self.run.as_ref().filter(|mark| Some(mark.renew_time) == self.renew_time)
    }

    /// Returns this claim by `run`, which has failed elsewhere, as a release.
    pub fn taken_back(self, run: &RunId) -> Self {
        let mark =
            self.renew_time.map(|renew_time| RunMark { run: run.clone(), state: RunState::Released, renew_time });
        Self { holder_identity: String::new(), run: mark, ..self }
    }

    /// Returns this record as somebody writes it who knows that its holder is dead: released, in the name of the run that
    /// held the lock if one did.
    pub fn released_by_force(self, wall: Timestamp) -> Self {
        let renew_time = Self::next_renew_time(self.renew_time, wall);
        let run = self.mark().map_or_else(|| RunId::new("none"), |mark| mark.run.clone());
        Self {
            holder_identity: String::new(),
            renew_time: Some(renew_time),
            run: Some(RunMark { run, state: RunState::Released, renew_time }),
            forced: Some(renew_time),
            step_down: None,
            ..self
        }
    }

    /// Returns whether somebody other than the holder released the lock by this record, for good: no candidate waits for
    /// any earlier holder then. Like a mark it counts only while its time is the record's.
    pub fn is_released_by_force(&self) -> bool {
        self.forced.is_some() && self.forced == self.renew_time && !self.is_held()
    }

    /// Returns how often the holder renews the record, if it states that.
    pub fn retry_period(&self) -> Option<Duration> {
        self.retry_period_millis.filter(|_| self.mark().is_some()).map(Duration::from_millis)
    }

    /// Returns whether `run` wrote this record.
    pub fn is_marked_by(&self, run: &RunId) -> bool {
        self.mark().is_some_and(|mark| mark.run == *run)
    }

    /// Returns whether `run` wrote this record and holds the lock by it.
    pub fn is_held_by_run(&self, run: &RunId, identity: &str) -> bool {
        self.holder_identity == identity
            && self.mark().is_some_and(|mark| mark.run == *run && mark.state == RunState::Held)
    }

    /// Returns whether this run is asked to end its command and to release the lock. Its next write removes the request:
    /// a request is for one run, once.
    pub fn asks_to_step_down(&self, run: &RunId) -> bool {
        self.step_down.as_ref() == Some(run)
    }

    /// Returns whether a command may be alive on the strength of this record.
    pub fn is_held(&self) -> bool {
        match self.mark() {
            Some(mark) => mark.state == RunState::Held,
            None => !self.holder_identity.is_empty(),
        }
    }

    /// Returns how long the record holds without being renewed; `fallback` where it does not state that.
    pub fn lease_duration(&self, fallback: Duration) -> Duration {
        self.lease_duration_seconds.map_or(fallback, |seconds| Duration::from_secs(seconds.into()))
    }

    /// Returns the next renewal's time: the wall clock's, but always different from the one before. The API server drops
    /// a write that changes nothing, and standbys would see a dead holder.
    pub fn next_renew_time(previous: Option<Timestamp>, wall: Timestamp) -> Timestamp {
        let wall = to_microseconds(wall);
        match previous {
            Some(previous) if wall <= previous => previous.checked_add(TIME_STEP).unwrap_or(wall),
            _ => wall,
        }
    }
}

/// Cuts off what a record's times cannot store.
fn to_microseconds(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}

/// One start of leaderrun. No two starts have the same run ID, whatever their identities.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(String);

impl RunId {
    /// Creates a run ID from text without white space, such as a UUID.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which run wrote a record, whether it held or released the lock by that, and the record's time.
///
/// Its text is `RUN held|released TIME`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RunMark {
    pub run: RunId,
    pub state: RunState,
    /// The `renewTime` written together with this mark.
    pub renew_time: Timestamp,
}

/// What the write of a run did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RunState {
    Held,
    Released,
}

impl fmt::Display for RunMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            RunState::Held => "held",
            RunState::Released => "released",
        };
        write!(f, "{} {state} {:.6}", self.run, self.renew_time)
    }
}

/// The text of a run annotation is not a mark.
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
            "held" => RunState::Held,
            "released" => RunState::Released,
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

/// The state of the stored object that a record was read from. A write names the one it replaces.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Version {
    /// Differs between an object and one that was deleted and made anew under the same name.
    pub uid: String,
    /// Grows with every write. The one of the write that acquired the lock is the fencing token.
    pub resource_version: String,
}

/// A record and the version it was read at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stored {
    pub record: Record,
    pub version: Version,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn held(run: &str) -> Record {
        let renew_time = time("2026-01-02T03:04:05.678901Z");
        Record {
            holder_identity: "somebody".into(),
            renew_time: Some(renew_time),
            run: Some(RunMark { run: RunId::new(run), state: RunState::Held, renew_time }),
            ..Record::default()
        }
    }

    #[test]
    fn a_mark_is_read_as_it_was_written() {
        let mark = held("r1").run.unwrap();
        assert_eq!(mark.to_string(), "r1 held 2026-01-02T03:04:05.678901Z");
        assert_eq!(mark.to_string().parse(), Ok(mark));
    }

    #[test]
    fn text_that_is_not_a_mark_is_refused() {
        for text in [
            "",
            " ",
            "r1",
            "r1 held",
            "r1 held yesterday",
            "r1 kept 2026-01-02T03:04:05Z",
            " held 2026-01-02T03:04:05Z",
            "r1 held 2026-01-02T03:04:05Z x",
        ] {
            assert_eq!(text.parse::<RunMark>(), Err(ParseRunMarkError), "{text:?}");
        }
    }

    #[test]
    fn a_mark_counts_only_while_its_time_is_the_records() {
        let mut record = held("r1");
        assert!(record.is_held_by_run(&RunId::new("r1"), "somebody"));
        assert!(!record.is_held_by_run(&RunId::new("r2"), "somebody"), "bearing a name is not enough");
        record.renew_time = Some(time("2026-01-02T03:04:06Z"));
        assert_eq!(record.mark(), None);
        assert!(!record.is_held_by_run(&RunId::new("r1"), "somebody"));
        assert!(record.is_held(), "another writer's record is held by its holder");
    }

    #[test]
    fn emptying_does_not_release_what_a_run_holds() {
        let record = Record { holder_identity: String::new(), ..held("r1") };
        assert!(record.is_held());
    }

    #[test]
    fn renewals_always_differ() {
        let previous = time("2026-01-02T03:04:05.000001Z");
        let stands_still = Record::next_renew_time(Some(previous), previous);
        assert_eq!(stands_still, time("2026-01-02T03:04:05.000002Z"));
        let jumped_back = Record::next_renew_time(Some(previous), time("2026-01-02T02:04:05Z"));
        assert_eq!(jumped_back, time("2026-01-02T03:04:05.000002Z"));
        let jumped_ahead = Record::next_renew_time(Some(previous), time("2026-01-02T04:04:05.0000019Z"));
        assert_eq!(jumped_ahead, time("2026-01-02T04:04:05.000001Z"));
        assert_ne!(Record::next_renew_time(Some(Timestamp::MAX), previous), Timestamp::MAX);
    }
}
