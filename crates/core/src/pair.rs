//! A record that lives in two objects, for moving a running system from one kind of lock to another: client-go's
//! multilock.
//!
//! [`Pair`] is what the two objects say together. Whatever keeps a holder alive in either of them counts:
//!
//! - Both have the same write of one run, or a run is between its two writes: that is the record. What keeps it held
//!   counts, and the later time before which the command is not due.
//! - One is held and the other is not: the held one counts. A claim of this run that is in one object only counts for
//!   nothing.
//! - Neither is held: the one counts by which the command is due later, or that tells who released it.
//! - Both are held, and not by one write: an unknown holder has it, for the longer of the two durations.
//!
//! [`PairRequests`] writes the two objects one after the other, and gives back a claim that reached only one.

mod requests;

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;

use jiff::Timestamp;

pub use self::requests::{PairRequests, PairStep};
use crate::record::{Record, RunId, Stored, Version};

/// What client-go calls a holder when the two records name different ones.
const UNKNOWN_HOLDER: &str = "leaderelection.k8s.io/unknown";

/// Separates the parts of a version. Neither a uid nor a resourceVersion contains it.
const SEPARATOR: char = '+';

/// One of the two objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Member {
    /// The one that the present candidates use. It is written first.
    First,
    /// The one that future candidates will use.
    Second,
}

/// Who looks at a pair: to a run, its own half-written claims are no holder.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Viewer {
    pub run: RunId,
    /// Whether both objects have had a claim of this run that it did not give back: then it may be the leader.
    pub may_lead: bool,
    /// The `renewTime` of the last claim that this run gave back. The write that does so may be carried out late, so
    /// that this claim counts for nothing even while both objects have it.
    pub given_back: Option<Timestamp>,
}

impl Viewer {
    /// Returns a view in which nothing is this run's own yet.
    pub fn new(run: RunId) -> Self {
        Self { run, may_lead: false, given_back: None }
    }

    fn has_written(&self, record: &Record) -> bool {
        record.is_marked_by(&self.run)
    }

    fn has_given_back(&self, record: &Record) -> bool {
        self.has_written(record) && self.given_back.is_some() && record.renew_time == self.given_back
    }
}

/// What each of the two objects was last seen to contain.
#[derive(Clone, Debug, Default, Hash)]
pub struct Pair {
    first: Option<Stored>,
    second: Option<Stored>,
}

impl Pair {
    /// Returns what was read of both objects.
    pub fn new(first: Option<Stored>, second: Option<Stored>) -> Self {
        Self { first, second }
    }

    /// Returns what one object contains.
    pub fn of(&self, member: Member) -> Option<&Stored> {
        match member {
            Member::First => self.first.as_ref(),
            Member::Second => self.second.as_ref(),
        }
    }

    /// Takes in what one object contains.
    pub fn note(&mut self, member: Member, stored: Option<Stored>) {
        match member {
            Member::First => self.first = stored,
            Member::Second => self.second = stored,
        }
    }

    /// Returns whether both objects have one write of the viewer by which it holds the lock.
    pub fn is_held_in_both_by(&self, viewer: &Viewer) -> bool {
        let holds = |stored: &Option<Stored>| {
            stored
                .as_ref()
                .map(|stored| &stored.record)
                .is_some_and(|record| viewer.has_written(record) && record.is_held() && !viewer.has_given_back(record))
        };
        holds(&self.first) && holds(&self.second) && self.has_one_write()
    }

    /// Returns whether an object has a claim of the viewer that is not in both, or that it gave back.
    pub fn is_half_claimed(&self, member: Member, viewer: &Viewer) -> bool {
        let holds = |stored: &Stored| viewer.has_written(&stored.record) && stored.record.is_held();
        !viewer.may_lead && self.of(member).is_some_and(holds) && !self.is_held_in_both_by(viewer)
    }

    /// Returns what both objects say together.
    pub fn stored(&self, viewer: &Viewer) -> Option<Stored> {
        Some(Stored { version: self.version()?, record: self.record(viewer) })
    }

    /// Returns what a write replaces in each object if it replaces this version of both. None if that is not what was
    /// last seen.
    pub fn writes(&self, replaced: Option<&Version>) -> Option<[Option<Version>; 2]> {
        let version = |stored: &Option<Stored>| stored.as_ref().map(|stored| stored.version.clone());
        (self.version().as_ref() == replaced).then(|| [version(&self.first), version(&self.second)])
    }

    /// Returns the part of a resourceVersion of both that belongs to the second object.
    pub fn second_resource_version(resource_version: &str) -> &str {
        resource_version.rsplit(SEPARATOR).next().unwrap_or_default()
    }

    /// Returns the parts of a uid of both.
    pub fn uids(uid: &str) -> impl Iterator<Item = &str> {
        uid.split(SEPARATOR)
    }

    fn version(&self) -> Option<Version> {
        let join = |part: fn(&Version) -> &str| {
            let of = |stored: &Option<Stored>| stored.as_ref().map_or("", |stored| part(&stored.version)).to_owned();
            format!("{}{SEPARATOR}{}", of(&self.first), of(&self.second))
        };
        let exists = self.first.is_some() || self.second.is_some();
        exists.then(|| Version {
            uid: join(|version| &version.uid),
            resource_version: join(|version| &version.resource_version),
        })
    }

    fn has_one_write(&self) -> bool {
        self.first.as_ref().zip(self.second.as_ref()).is_some_and(
            |(Stored { record: first, .. }, Stored { record: second, .. })| {
                first.mark().is_some()
                    && first.mark() == second.mark()
                    && first.holder_identity == second.holder_identity
            },
        )
    }

    fn record(&self, viewer: &Viewer) -> Record {
        let of = |stored: &Option<Stored>| stored.as_ref().map(|stored| stored.record.clone()).unwrap_or_default();
        let (first, second) = (of(&self.first), of(&self.second));
        if self.has_one_write() && !viewer.has_given_back(&first) {
            return first;
        }
        let is_one_run = first.mark().zip(second.mark()).is_some_and(|(one, other)| one.run == other.run);
        let is_ours = is_one_run && viewer.has_written(&first);
        let has_two_holders = !may_be_of_one(&first, &second);
        let is_between_writes = is_one_run && (!is_ours || viewer.may_lead && !has_two_holders);
        if is_between_writes {
            // Of two writes of ours the older one counts: that much is in both.
            let takes_first =
                first.is_held() && (!is_ours || !second.is_held() || first.renew_time < second.renew_time);
            let not_before = first.not_before.max(second.not_before);
            return Record { not_before, ..if takes_first { first } else { second } };
        }
        // What was ours and names two holders was given away. Anything else of ours is a claim that is not in both.
        let counts_ours = is_ours && (viewer.may_lead || has_two_holders);
        let is_held = |record: &Record| record.is_held() && (counts_ours || !viewer.has_written(record));
        match (is_held(&first), is_held(&second)) {
            (true, false) => first,
            (false, true) => second,
            (false, false) => {
                let [first, second] = [first, second].map(without_holder);
                if release_precedence(&second) > release_precedence(&first) { second } else { first }
            }
            (true, true) => Record {
                holder_identity: match first.holder_identity == second.holder_identity {
                    true => first.holder_identity,
                    false => UNKNOWN_HOLDER.to_owned(),
                },
                lease_duration_seconds: first.lease_duration_seconds.max(second.lease_duration_seconds),
                // With both times in it, a change of either record is a change of this one.
                acquire_time: second.renew_time,
                renew_time: first.renew_time,
                lease_transitions: first.lease_transitions.max(second.lease_transitions),
                ..Record::default()
            },
        }
    }
}

impl From<(Option<Stored>, Option<Stored>)> for Pair {
    fn from((first, second): (Option<Stored>, Option<Stored>)) -> Self {
        Self { first, second }
    }
}

/// Returns whether two records of one run have one holder, as far as they name any.
fn may_be_of_one(first: &Record, second: &Record) -> bool {
    first.holder_identity == second.holder_identity || !first.is_held() || !second.is_held()
}

/// Returns a record that nobody holds: a release as it was written, or one whose holder does not count.
fn without_holder(record: Record) -> Record {
    match record.is_held() {
        true => Record { holder_identity: String::new(), run: None, ..record },
        false => record,
    }
}

/// Returns what decides which of two free records counts: the later time before which the command is not due, then
/// whether it tells who released it.
fn release_precedence(free: &Record) -> (Option<Timestamp>, bool, Option<Timestamp>) {
    (free.due(), free.mark().is_some(), free.renew_time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{RunMark, RunState};

    fn stored(run: &str, state: RunState, second: i64) -> Option<Stored> {
        let renew_time = Timestamp::from_second(second).unwrap();
        let record = Record {
            holder_identity: if state == RunState::Held { run.into() } else { String::new() },
            lease_duration_seconds: Some(15),
            renew_time: Some(renew_time),
            run: Some(RunMark { run: RunId::new(run), state, renew_time }),
            ..Record::default()
        };
        Some(Stored { record, version: Version { uid: "u".into(), resource_version: second.to_string() } })
    }

    /// A run that may lead, if it holds anything, or a candidate that does not.
    fn us(may_lead: bool) -> Viewer {
        Viewer { may_lead, ..Viewer::new(RunId::new("us")) }
    }

    fn holder(first: Option<Stored>, second: Option<Stored>) -> String {
        Pair::new(first, second).stored(&us(false)).unwrap().record.holder_identity
    }

    #[test]
    fn whatever_keeps_somebody_alive_in_either_counts() {
        use RunState::{Held, Released};
        assert_eq!(holder(stored("a", Held, 1), stored("a", Held, 1)), "a");
        // In between two writes: a renewal, a release, a claim.
        assert_eq!(holder(stored("a", Held, 2), stored("a", Held, 1)), "a");
        assert_eq!(holder(stored("a", Released, 2), stored("a", Held, 1)), "a");
        assert_eq!(holder(stored("a", Held, 1), None), "a");
        assert_eq!(holder(stored("a", Held, 2), stored("b", Held, 1)), UNKNOWN_HOLDER);
        assert_eq!(holder(None, stored("b", Held, 1)), "b");
        assert_eq!(holder(stored("a", Released, 2), stored("a", Released, 2)), "");
    }

    #[test]
    fn a_write_of_ours_that_reached_one_keeps_nobody_alive() {
        use RunState::Held;
        assert_eq!(holder(stored("us", Held, 2), None), "");
        assert_eq!(holder(stored("us", Held, 2), stored("b", Held, 1)), "b");
        assert_eq!(holder(stored("us", Held, 2), stored("us", Held, 2)), "us");
    }

    #[test]
    fn what_of_ours_is_in_both_is_ours_once_it_may_lead() {
        use RunState::{Held, Released};
        for (first, second) in [(Held, Held), (Released, Held)] {
            let pair = Pair::new(stored("us", first, 2), stored("us", second, 1));
            let record = pair.stored(&us(true)).unwrap().record;
            assert_eq!((record.is_held(), record.renew_time), (true, Timestamp::from_second(1).ok()), "in between");
            assert!(!pair.stored(&us(false)).unwrap().record.is_held(), "the halves of two claims");
        }
        let given_away = |mut stored: Option<Stored>| {
            stored.as_mut().unwrap().record.holder_identity = "b".into();
            stored
        };
        assert_eq!(holder(given_away(stored("us", Held, 1)), stored("us", Held, 1)), UNKNOWN_HOLDER);
        assert_eq!(holder(stored("us", Held, 1), given_away(stored("us", Held, 1))), UNKNOWN_HOLDER);
    }

    #[test]
    fn half_a_claim_is_no_news_to_whose_it_is() {
        use RunState::Held;
        let us = us(false);
        let half = Pair::new(stored("us", Held, 2), stored("a", Held, 1));
        assert!(half.is_half_claimed(Member::First, &us) && !half.is_half_claimed(Member::Second, &us));
        for whole in [Pair::new(stored("us", Held, 2), stored("us", Held, 2)), Pair::new(stored("a", Held, 2), None)] {
            assert!(!whole.is_half_claimed(Member::First, &us));
        }
    }

    #[test]
    fn who_is_dead_after_half_a_release_has_said_when_the_command_is_due() {
        let not_before = Timestamp::from_second(100).unwrap();
        let mut released = stored("a", RunState::Released, 2);
        released.as_mut().unwrap().record.not_before = Some(not_before);
        let record = Pair::new(released, stored("a", RunState::Held, 1)).stored(&us(false)).unwrap().record;
        assert_eq!((record.is_held(), record.due()), (true, Some(not_before)));
    }

    #[test]
    fn a_release_counts_wherever_it_was_written() {
        use RunState::{Held, Released};
        let not_before = Timestamp::from_second(100).unwrap();
        let mut well_ended = stored("a", Released, 1);
        well_ended.as_mut().unwrap().record.not_before = Some(not_before);
        for other in [None, stored("b", Released, 2), stored("us", Held, 2)] {
            for pair in [Pair::new(well_ended.clone(), other.clone()), Pair::new(other, well_ended.clone())] {
                assert_eq!(pair.stored(&us(false)).unwrap().record.due(), Some(not_before));
            }
        }
    }

    #[test]
    fn what_was_not_seen_is_not_replaced() {
        let pair = Pair::new(stored("a", RunState::Released, 1), None);
        let version = pair.stored(&us(false)).unwrap().version;
        let [first, second] = pair.writes(Some(&version)).unwrap();
        assert_eq!(first, Some(Version { uid: "u".into(), resource_version: "1".into() }));
        assert_eq!(second, None);
        assert_eq!(pair.writes(None), None);
        assert_eq!(Pair::default().writes(None), Some([None, None]));
    }
}
