//! The leader election record, which candidates read and write.
//!
//! It has the fields of client-go's `LeaderElectionRecord`, which all implementations of the protocol share, and fields
//! that leaderrun stores in annotations.

mod mark;

use alloc::string::String;
use core::fmt;
use core::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

pub use self::mark::{MarkState, ParseRunMarkError, RunId, RunMark};

/// The annotation with the time between two renewals by the holder, in milliseconds: see [`Record::retry_period`].
pub const RETRY_PERIOD_ANNOTATION: &str = "leaderrun/retry-period-ms";

/// The annotation that marks a release by a user who knows that the holder is dead: see
/// [`Record::is_released_by_force`].
pub const FORCED_ANNOTATION: &str = "leaderrun/released-by-force";

/// The annotation that states which run wrote the record: see [`RunMark`].
pub const RUN_ANNOTATION: &str = "leaderrun/run";

/// The annotation that states for which lock and which object a mark was written, as `NAMESPACE/NAME UID`. The write
/// that creates the object leaves out the uid. Because of this annotation, a mark that was copied from another lock
/// does not count.
pub const LOCK_ANNOTATION: &str = "leaderrun/lock";

/// The annotation that states when a command that succeeded is due again: see [`Record::not_before`].
pub const NOT_BEFORE_ANNOTATION: &str = "leaderrun/not-before";

/// The annotation with the estimated number of candidates that a release wakes: see [`Record::contenders`].
pub const CONTENDERS_ANNOTATION: &str = "leaderrun/contenders";

/// The annotation that asks the holder to step down: see [`Record::asks_to_step_down`].
pub const STEP_DOWN_ANNOTATION: &str = "leaderrun/step-down";

/// The annotation with the holder's claim delay in milliseconds, if it has one: see [`Record::claim_delay`].
pub const CLAIM_DELAY_ANNOTATION: &str = "leaderrun/claim-delay-ms";

/// The annotation that states which version of the object the acquisition replaced: see [`Record::replaced_version`].
pub const REPLACED_VERSION_ANNOTATION: &str = "leaderrun/replaced-version";

/// The annotation that states which slot the record is for, if the lock has slots: see [`RecordSlot`].
pub const SLOT_ANNOTATION: &str = "leaderrun/slot";

/// The smallest difference between the times of two renewals, which have a resolution of microseconds.
const TIME_STEP: SignedDuration = SignedDuration::from_micros(1);

/// One leader election record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Record {
    /// The holder's identity; empty after a release, or if another client has emptied it.
    pub holder_identity: String,
    /// How long the record is valid without a renewal, in seconds. The holder chooses this duration.
    pub lease_duration_seconds: Option<u32>,
    /// The time of the acquisition on the holder's wall clock. It is shown to people and used to calculate
    /// [`Record::not_before`] and [`Record::min_hold`], but the election never compares it with a clock.
    pub acquire_time: Option<Timestamp>,
    /// The time of the last renewal on the holder's wall clock. Only its changes show that the holder is alive.
    pub renew_time: Option<Timestamp>,
    /// The number of acquisitions after the one that created the record.
    pub lease_transitions: u32,
    /// The resourceVersion that the acquisition replaced; `None` if it created the object. Every later holder has
    /// replaced a later version, so a copy of an old record can be distinguished from the record of a successor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaced_version: Option<String>,
    /// The stored mark. It may be invalid; see [`Record::mark`].
    pub run: Option<RunMark>,
    /// The stored time before which the command must not run again. It may be invalid; see
    /// [`Record::valid_not_before`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// The estimated number of candidates that a release wakes. Each acquisition corrects it. It only affects how long
    /// claims are delayed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contenders: Option<u32>,
    /// The time between two renewals by the holder, in milliseconds; see [`Record::retry_period`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_period_millis: Option<u64>,
    /// The holder's claim delay in milliseconds; see [`Record::claim_delay`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim_delay_millis: Option<u64>,
    /// The slot of this record, if its lock has slots. It is only shown to people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<RecordSlot>,
    /// The stored time of a forced release. It may be invalid; see [`Record::is_released_by_force`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forced: Option<Timestamp>,
    /// The run that is asked to step down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_down: Option<RunId>,
}

impl Record {
    /// Returns the time on the wall clock before which the released lock must not be acquired, if the record's mark is
    /// valid. No command is alive at the release, so a wrong clock can shift when the command runs next, but two
    /// commands cannot overlap.
    pub fn valid_not_before(&self) -> Option<Timestamp> {
        self.not_before.filter(|_| self.mark().is_some())
    }

    /// Returns the time from the acquisition of the lock to [`Self::valid_not_before`].
    pub fn min_hold(&self) -> Option<Duration> {
        Duration::try_from(self.valid_not_before()?.duration_since(self.acquire_time?)).ok()
    }

    /// Returns the holder's claim delay, or zero if the record does not contain it or has no valid mark. Candidates
    /// with a shorter delay are preferred.
    pub fn claim_delay(&self) -> Duration {
        self.claim_delay_millis.filter(|_| self.mark().is_some()).map_or(Duration::ZERO, Duration::from_millis)
    }

    /// Returns the mark of the run that wrote this record, if there is a valid one. A mark is valid only while its time
    /// equals the record's `renewTime`, so a later write by another client invalidates it.
    pub fn mark(&self) -> Option<&RunMark> {
        self.run.as_ref().filter(|mark| Some(mark.renew_time) == self.renew_time)
    }

    /// Returns the record that releases the lock again, to roll back this claim by `run`.
    pub fn into_rolled_back(self, run: &RunId) -> Self {
        let mark =
            self.renew_time.map(|renew_time| RunMark { run: run.clone(), state: MarkState::Released, renew_time });
        Self { holder_identity: String::new(), run: mark, ..self }
    }

    /// Returns the record that releases the lock by force, for a user who knows that the holder in this record is dead.
    /// Its mark names the run in this record's mark, or [`RunId::unknown`] if this record has no valid mark.
    pub fn released_by_force(self, wall: Timestamp) -> Self {
        let renew_time = Self::next_renew_time(self.renew_time, wall);
        let run = self.mark().map_or_else(RunId::unknown, |mark| mark.run.clone());
        Self {
            holder_identity: String::new(),
            renew_time: Some(renew_time),
            run: Some(RunMark { run, state: MarkState::Released, renew_time }),
            forced: Some(renew_time),
            step_down: None,
            ..self
        }
    }

    /// Returns whether this record is a forced release, after which no candidate waits for the former holder's lease to
    /// expire. Like a mark, it is valid only while its time equals the record's `renewTime`.
    pub fn is_released_by_force(&self) -> bool {
        self.forced.is_some() && self.forced == self.renew_time && !self.is_held()
    }

    /// Returns the time between two renewals by the holder, if the record contains it and has a valid mark.
    pub fn retry_period(&self) -> Option<Duration> {
        self.retry_period_millis.filter(|_| self.mark().is_some()).map(Duration::from_millis)
    }

    /// Returns whether this record has a valid mark of `run`.
    pub fn is_marked_by(&self, run: &RunId) -> bool {
        self.mark().is_some_and(|mark| mark.run == *run)
    }

    /// Returns whether this record states that `run`, with this identity, holds the lock.
    pub fn is_held_by_run(&self, run: &RunId, identity: &str) -> bool {
        self.holder_identity == identity && self.marked_holder() == Some(run)
    }

    /// Returns whether `run` is asked to end its command and to release the lock. The next write of `run` removes the
    /// request.
    pub fn asks_to_step_down(&self, run: &RunId) -> bool {
        self.step_down.as_ref() == Some(run)
    }

    /// Returns whether the lock is held. If so, the holder's command may be alive.
    ///
    /// If the record names a holder although its mark says `released`, another program has acquired the lock without
    /// changing `renewTime`. leaderrun itself removes the holder when it releases the lock.
    pub fn is_held(&self) -> bool {
        self.marked_holder().is_some() || !self.holder_identity.is_empty()
    }

    /// Returns the run that holds the lock according to a valid mark.
    pub fn marked_holder(&self) -> Option<&RunId> {
        self.mark().filter(|mark| mark.state == MarkState::Held).map(|mark| &mark.run)
    }

    /// Returns how long the record is valid without a renewal; `fallback` if it does not contain a lease duration.
    pub fn lease_duration(&self, fallback: Duration) -> Duration {
        self.lease_duration_seconds.map_or(fallback, |seconds| Duration::from_secs(seconds.into()))
    }

    /// Returns the `renewTime` of the next renewal: the wall-clock time, but later than the previous `renewTime`, or at
    /// least different if there is no later time. With an unchanged time, the renewal would not change the object: the
    /// API server would store nothing, and standbys would consider the holder dead.
    pub fn next_renew_time(previous: Option<Timestamp>, wall: Timestamp) -> Timestamp {
        let wall = to_microseconds(wall);
        match previous {
            Some(previous) if wall <= previous => previous.checked_add(TIME_STEP).unwrap_or(wall),
            _ => wall,
        }
    }
}

/// Truncates a time to the resolution of a record.
pub(crate) fn to_microseconds(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}

/// The slot that a record is for. Its text form is `NUMBER of COUNT`; numbers begin at 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RecordSlot {
    pub number: u32,
    /// How many slots the lock has.
    pub count: u32,
}

impl RecordSlot {
    /// Parses the text form.
    pub fn parse(text: &str) -> Option<Self> {
        let (number, count) = text.split_once(" of ")?;
        Some(Self { number: number.parse().ok()?, count: count.parse().ok()? })
    }
}

impl fmt::Display for RecordSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.number, self.count)
    }
}

/// The version of the stored object that contains a record. Each update contains the version that it replaces.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Version {
    /// The unique ID of the object. It changes when the object is deleted and recreated under the same name.
    pub uid: String,
    /// The resourceVersion, which changes with every write. The fencing token is derived from the resourceVersion of
    /// the acquisition.
    pub resource_version: String,
}

/// A record and its version.
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
            run: Some(RunMark { run: RunId::new(run), state: MarkState::Held, renew_time }),
            ..Record::default()
        }
    }

    #[test]
    fn a_mark_round_trips() {
        let mark = held("r1").run.unwrap();
        assert_eq!(mark.to_string(), "r1 held 2026-01-02T03:04:05.678901Z");
        assert_eq!(mark.to_string().parse(), Ok(mark));
    }

    #[test]
    fn text_that_is_not_a_mark_is_rejected() {
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
    fn a_mark_is_valid_only_with_the_time_of_the_record() {
        let mut record = held("r1");
        assert!(record.is_held_by_run(&RunId::new("r1"), "somebody"));
        assert!(
            !record.is_held_by_run(&RunId::new("r2"), "somebody"),
            "a holder with the same identity, but another run"
        );
        record.renew_time = Some(time("2026-01-02T03:04:06Z"));
        assert_eq!(record.mark(), None);
        assert!(!record.is_held_by_run(&RunId::new("r1"), "somebody"));
        assert!(record.is_held(), "without a valid mark, the identity counts");
    }

    #[test]
    fn an_emptied_record_with_a_valid_mark_is_held() {
        let record = Record { holder_identity: String::new(), ..held("r1") };
        assert!(record.is_held());
    }

    #[test]
    fn a_released_record_that_names_a_holder_again_is_held() {
        let mark = held("r1").run.map(|mark| RunMark { state: MarkState::Released, ..mark });
        let named_again = Record { run: mark, ..held("r1") };
        assert!(named_again.is_held());
        assert_eq!(named_again.marked_holder(), None);
        assert!(!Record { holder_identity: String::new(), ..named_again }.is_held());
    }

    #[test]
    fn renewals_always_differ() {
        let previous = time("2026-01-02T03:04:05.000001Z");
        let unchanged = Record::next_renew_time(Some(previous), previous);
        assert_eq!(unchanged, time("2026-01-02T03:04:05.000002Z"));
        let jumped_back = Record::next_renew_time(Some(previous), time("2026-01-02T02:04:05Z"));
        assert_eq!(jumped_back, time("2026-01-02T03:04:05.000002Z"));
        let jumped_ahead = Record::next_renew_time(Some(previous), time("2026-01-02T04:04:05.0000019Z"));
        assert_eq!(jumped_ahead, time("2026-01-02T04:04:05.000001Z"));
        assert_ne!(Record::next_renew_time(Some(Timestamp::MAX), previous), Timestamp::MAX);
    }
}
