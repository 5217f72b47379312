//! A lock whose record is stored in two objects, like client-go's multilock. It is used to move a running system from
//! one kind of lock to another.
//!
//! [`Pair`] combines the records of the two objects into a single record. The lock is held if the record in either
//! object is held:
//!
//! - If both objects contain the same write of a run, or a run is between its two writes, the result is that run's
//!   record. It is held if either record is held, and the later `not_before` applies.
//! - If only one record is held, it is the result. A claim that the [`Viewer`] has written to only one object does not
//!   count as held.
//! - If neither record is held, the result is the record with the later `not_before`. If these are equal, a record that
//!   states which run released the lock takes precedence, then the record with the later renewal.
//! - Otherwise, both records are held, and the result has the longer of the two lease durations. If the records name
//!   different holders, the holder of the result is unknown.
//!
//! [`PairRequests`] writes first one object, then the other, and rolls back a claim that reached only one of them.

mod requests;

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;

use jiff::Timestamp;

pub use self::requests::{PairRequests, PairStep};
use crate::record::{Record, RunId, Stored, Version};

/// client-go's name for the holder if the two records name different holders.
const UNKNOWN_HOLDER: &str = "leaderelection.k8s.io/unknown";

/// The separator between the parts of a version. Neither a uid nor a resourceVersion contains it.
const SEPARATOR: char = '+';

/// One of the two objects of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Member {
    /// The object that candidates used before the migration. It is written first.
    First,
    /// The object that candidates will use after the migration.
    Second,
}

/// The run for which a pair is evaluated. If a claim of this run is in only one object, the run does not hold the lock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Viewer {
    pub run: RunId,
    /// Whether both objects have contained a claim of this run that it did not roll back. If so, the command of this
    /// run may be alive.
    pub may_lead: bool,
    /// The `renewTime` of the last claim that this run rolled back. The claim is ignored even while both objects
    /// contain it, because the rollback may take effect only later.
    pub rolled_back: Option<Timestamp>,
}

impl Viewer {
    /// Creates the viewer for a run that has not written anything yet.
    pub fn new(run: RunId) -> Self {
        Self { run, may_lead: false, rolled_back: None }
    }

    fn has_written(&self, record: &Record) -> bool {
        record.is_marked_by(&self.run)
    }

    fn has_rolled_back(&self, record: &Record) -> bool {
        self.has_written(record) && self.rolled_back.is_some() && record.renew_time == self.rolled_back
    }
}

/// The last known contents of the two objects.
#[derive(Clone, Debug, Default, Hash)]
pub struct Pair {
    first: Option<Stored>,
    second: Option<Stored>,
}

impl Pair {
    /// Creates a pair from the contents of both objects.
    pub fn new(first: Option<Stored>, second: Option<Stored>) -> Self {
        Self { first, second }
    }

    /// Returns the contents of one object.
    pub fn member(&self, member: Member) -> Option<&Stored> {
        match member {
            Member::First => self.first.as_ref(),
            Member::Second => self.second.as_ref(),
        }
    }

    /// Sets the contents of one object.
    pub fn set(&mut self, member: Member, stored: Option<Stored>) {
        match member {
            Member::First => self.first = stored,
            Member::Second => self.second = stored,
        }
    }

    /// Returns whether both objects contain the same claim or renewal of the viewer, which the viewer has not rolled
    /// back.
    pub fn is_held_in_both_by(&self, viewer: &Viewer) -> bool {
        let holds = |stored: &Option<Stored>| {
            stored
                .as_ref()
                .map(|stored| &stored.record)
                .is_some_and(|record| viewer.has_written(record) && record.is_held() && !viewer.has_rolled_back(record))
        };
        holds(&self.first) && holds(&self.second) && self.both_contain_same_write()
    }

    /// Returns whether the object `member` contains a claim of the viewer that is not in both objects, or that the
    /// viewer has rolled back. Returns false once the viewer may lead.
    pub fn is_half_claimed(&self, member: Member, viewer: &Viewer) -> bool {
        let holds = |stored: &Stored| viewer.has_written(&stored.record) && stored.record.is_held();
        !viewer.may_lead && self.member(member).is_some_and(holds) && !self.is_held_in_both_by(viewer)
    }

    /// Returns the combined record and version of both objects; `None` if neither object exists.
    pub fn stored(&self, viewer: &Viewer) -> Option<Stored> {
        Some(Stored { version: self.version()?, record: self.record(viewer) })
    }

    /// Returns the version in each object that a write must replace if it is based on the combined version `base`.
    /// Returns `None` if `base` is not the last known combined version.
    pub fn versions_to_replace(&self, base: Option<&Version>) -> Option<[Option<Version>; 2]> {
        let version = |stored: &Option<Stored>| stored.as_ref().map(|stored| stored.version.clone());
        (self.version().as_ref() == base).then(|| [version(&self.first), version(&self.second)])
    }

    /// Returns the second object's part of a combined resourceVersion.
    pub fn second_resource_version(resource_version: &str) -> &str {
        resource_version.rsplit(SEPARATOR).next().unwrap_or_default()
    }

    /// Returns the two parts of a combined uid. The part of an object that does not exist is empty.
    pub fn uids(uid: &str) -> impl Iterator<Item = &str> {
        uid.split(SEPARATOR)
    }

    fn version(&self) -> Option<Version> {
        let join = |part: fn(&Version) -> &str| {
            let part_of =
                |stored: &Option<Stored>| stored.as_ref().map_or("", |stored| part(&stored.version)).to_owned();
            format!("{}{SEPARATOR}{}", part_of(&self.first), part_of(&self.second))
        };
        let exists = self.first.is_some() || self.second.is_some();
        exists.then(|| Version {
            uid: join(|version| &version.uid),
            resource_version: join(|version| &version.resource_version),
        })
    }

    fn both_contain_same_write(&self) -> bool {
        self.first.as_ref().zip(self.second.as_ref()).is_some_and(
            |(Stored { record: first, .. }, Stored { record: second, .. })| {
                first.mark().is_some()
                    && first.mark() == second.mark()
                    && first.holder_identity == second.holder_identity
            },
        )
    }

    fn record(&self, viewer: &Viewer) -> Record {
        let record_of =
            |stored: &Option<Stored>| stored.as_ref().map(|stored| stored.record.clone()).unwrap_or_default();
        let (first, second) = (record_of(&self.first), record_of(&self.second));
        if self.both_contain_same_write() && !viewer.has_rolled_back(&first) {
            return first;
        }
        let is_same_run = first.mark().zip(second.mark()).is_some_and(|(first, second)| first.run == second.run);
        let is_viewer_run = is_same_run && viewer.has_written(&first);
        let has_two_holders = have_different_holders(&first, &second);
        let is_between_writes = is_same_run && (!is_viewer_run || viewer.may_lead && !has_two_holders);
        if is_between_writes {
            // If both records are held and the viewer wrote them, the older one counts, because both objects have
            // contained it.
            let takes_first =
                first.is_held() && (!is_viewer_run || !second.is_held() || first.renew_time < second.renew_time);
            let not_before = first.not_before.max(second.not_before);
            return Record { not_before, ..if takes_first { first } else { second } };
        }
        // If the viewer wrote both records but they name different holders, another client has edited one of them, so
        // both count. Otherwise, a record of the viewer does not count as held, because it is not in both objects or
        // was rolled back.
        let viewer_records_are_valid = is_viewer_run && (viewer.may_lead || has_two_holders);
        let counts_as_held =
            |record: &Record| record.is_held() && (viewer_records_are_valid || !viewer.has_written(record));
        match (counts_as_held(&first), counts_as_held(&second)) {
            (true, false) => first,
            (false, true) => second,
            (false, false) => {
                let [first, second] = [first, second].map(without_holder);
                if release_precedence(&second) > release_precedence(&first) { second } else { first }
            }
            (true, true) => Record {
                holder_identity: if first.holder_identity == second.holder_identity {
                    first.holder_identity
                } else {
                    UNKNOWN_HOLDER.to_owned()
                },
                lease_duration_seconds: first.lease_duration_seconds.max(second.lease_duration_seconds),
                // The result contains both renew times, so it changes whenever one of the two records is renewed.
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

/// Returns whether both records are held, by different holders.
fn have_different_holders(first: &Record, second: &Record) -> bool {
    first.is_held() && second.is_held() && first.holder_identity != second.holder_identity
}

/// Returns a record without its holder. A record that is not held is returned unchanged.
fn without_holder(record: Record) -> Record {
    if record.is_held() { Record { holder_identity: String::new(), run: None, ..record } } else { record }
}

/// Returns the key by which one of two free records is chosen: the record with the later `not_before`, then the record
/// that states which run released it, then the record with the later renewal.
fn release_precedence(free: &Record) -> (Option<Timestamp>, bool, Option<Timestamp>) {
    (free.valid_not_before(), free.mark().is_some(), free.renew_time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{MarkState, RunMark};

    /// Returns an object with a record that `run` wrote at `time`, in seconds since 1970.
    fn stored(run: &str, state: MarkState, time: i64) -> Option<Stored> {
        let renew_time = Timestamp::from_second(time).unwrap();
        let record = Record {
            holder_identity: if state == MarkState::Held { run.into() } else { String::new() },
            lease_duration_seconds: Some(15),
            renew_time: Some(renew_time),
            run: Some(RunMark { run: RunId::new(run), state, renew_time }),
            ..Record::default()
        };
        Some(Stored { record, version: Version { uid: "u".into(), resource_version: time.to_string() } })
    }

    /// Returns the viewer for the run "us".
    fn viewer(may_lead: bool) -> Viewer {
        Viewer { may_lead, ..Viewer::new(RunId::new("us")) }
    }

    fn holder(first: Option<Stored>, second: Option<Stored>) -> String {
        Pair::new(first, second).stored(&viewer(false)).unwrap().record.holder_identity
    }

    #[test]
    fn a_holder_in_either_object_holds_the_lock() {
        use MarkState::{Held, Released};
        assert_eq!(holder(stored("a", Held, 1), stored("a", Held, 1)), "a");
        // The run is between its two writes of a renewal, a release or a claim.
        assert_eq!(holder(stored("a", Held, 2), stored("a", Held, 1)), "a");
        assert_eq!(holder(stored("a", Released, 2), stored("a", Held, 1)), "a");
        assert_eq!(holder(stored("a", Held, 1), None), "a");
        assert_eq!(holder(stored("a", Held, 2), stored("b", Held, 1)), UNKNOWN_HOLDER);
        assert_eq!(holder(None, stored("b", Held, 1)), "b");
        assert_eq!(holder(stored("a", Released, 2), stored("a", Released, 2)), "");
    }

    #[test]
    fn a_claim_of_the_viewer_in_only_one_object_does_not_hold_the_lock() {
        use MarkState::Held;
        assert_eq!(holder(stored("us", Held, 2), None), "");
        assert_eq!(holder(stored("us", Held, 2), stored("b", Held, 1)), "b");
        assert_eq!(holder(stored("us", Held, 2), stored("us", Held, 2)), "us");
    }

    #[test]
    fn the_older_write_of_a_leader_counts_while_its_two_objects_differ() {
        use MarkState::{Held, Released};
        for (first, second) in [(Held, Held), (Released, Held)] {
            let pair = Pair::new(stored("us", first, 2), stored("us", second, 1));
            let record = pair.stored(&viewer(true)).unwrap().record;
            assert_eq!((record.is_held(), record.renew_time), (true, Timestamp::from_second(1).ok()));
            assert!(
                !pair.stored(&viewer(false)).unwrap().record.is_held(),
                "halves of two different claims should not count"
            );
        }
    }

    #[test]
    fn the_holder_is_unknown_if_the_holder_in_one_object_was_edited() {
        use MarkState::Held;
        let with_edited_holder = |mut stored: Option<Stored>| {
            stored.as_mut().unwrap().record.holder_identity = "b".into();
            stored
        };
        assert_eq!(holder(with_edited_holder(stored("us", Held, 1)), stored("us", Held, 1)), UNKNOWN_HOLDER);
        assert_eq!(holder(stored("us", Held, 1), with_edited_holder(stored("us", Held, 1))), UNKNOWN_HOLDER);
    }

    #[test]
    fn a_run_recognizes_its_claim_that_is_in_only_one_object() {
        use MarkState::Held;
        let us = viewer(false);
        let half = Pair::new(stored("us", Held, 2), stored("a", Held, 1));
        assert!(half.is_half_claimed(Member::First, &us) && !half.is_half_claimed(Member::Second, &us));
        for other in [Pair::new(stored("us", Held, 2), stored("us", Held, 2)), Pair::new(stored("a", Held, 2), None)] {
            assert!(!other.is_half_claimed(Member::First, &us));
        }
    }

    #[test]
    fn the_not_before_of_a_release_in_only_one_object_counts() {
        let not_before = Timestamp::from_second(100).unwrap();
        let mut released = stored("a", MarkState::Released, 2);
        released.as_mut().unwrap().record.not_before = Some(not_before);
        let record = Pair::new(released, stored("a", MarkState::Held, 1)).stored(&viewer(false)).unwrap().record;
        assert_eq!((record.is_held(), record.valid_not_before()), (true, Some(not_before)));
    }

    #[test]
    fn a_not_before_counts_in_either_object() {
        use MarkState::{Held, Released};
        let not_before = Timestamp::from_second(100).unwrap();
        let mut succeeded = stored("a", Released, 1);
        succeeded.as_mut().unwrap().record.not_before = Some(not_before);
        for other in [None, stored("b", Released, 2), stored("us", Held, 2)] {
            for pair in [Pair::new(succeeded.clone(), other.clone()), Pair::new(other, succeeded.clone())] {
                assert_eq!(pair.stored(&viewer(false)).unwrap().record.valid_not_before(), Some(not_before));
            }
        }
    }

    #[test]
    fn a_write_replaces_only_the_versions_that_were_seen() {
        let pair = Pair::new(stored("a", MarkState::Released, 1), None);
        let version = pair.stored(&viewer(false)).unwrap().version;
        let [first, second] = pair.versions_to_replace(Some(&version)).unwrap();
        assert_eq!(first, Some(Version { uid: "u".into(), resource_version: "1".into() }));
        assert_eq!(second, None);
        assert_eq!(pair.versions_to_replace(None), None);
        assert_eq!(Pair::default().versions_to_replace(None), Some([None, None]));
    }
}
