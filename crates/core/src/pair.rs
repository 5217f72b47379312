//! What two objects make together when the record lives in both. Without I/O: the lock and the simulation
//! drive the same code.
//!
//! What is read is made of both records so that whatever keeps somebody alive in either of them counts:
//!
//! - Both bear the same write of one run, or a run is in between its two writes: that is the record. What keeps it
//!   held counts, and when the command is due.
//! - One is held and the other is not: the held one. What only one of them says of us counts for nothing.
//! - Neither is: the one by which the command is due later, or which says who released it.
//! - Both are held, and not by one write: held by somebody unknown, for the longer of the two durations.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;

use jiff::Timestamp;

use crate::record::{Record, RunId, Stored, Version};

/// What client-go calls a holder when the two records name different ones.
const UNKNOWN_HOLDER: &str = "leaderelection.k8s.io/unknown";

/// Between the parts of a version. In neither a uid nor a resourceVersion.
const SEPARATOR: char = '+';

/// One of the two objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member {
    /// Where the present candidates look.
    First,
    /// Where the future ones will.
    Second,
}

/// What each object was last seen to have.
#[derive(Clone, Debug, Default)]
pub struct Pair {
    first: Option<Stored>,
    second: Option<Stored>,
}

impl Pair {
    /// What was read of both.
    pub fn new(first: Option<Stored>, second: Option<Stored>) -> Self {
        Self { first, second }
    }

    /// What one of them has.
    pub fn of(&self, member: Member) -> Option<&Stored> {
        match member {
            Member::First => self.first.as_ref(),
            Member::Second => self.second.as_ref(),
        }
    }

    /// Takes in what one of them has.
    pub fn note(&mut self, member: Member, stored: Option<Stored>) {
        match member {
            Member::First => self.first = stored,
            Member::Second => self.second = stored,
        }
    }

    /// Whether a write of this record is a claim by this run, and nothing of an earlier one may still be under way. Not
    /// a renewal, nor what a leader writes again that somebody deleted: those were acquired before they are written.
    pub fn is_first_claim(&self, record: &Record, run: &RunId) -> bool {
        let holds = |record: &Record| record.is_marked_by(run) && record.is_held();
        let held = [&self.first, &self.second].into_iter().flatten().any(|stored| holds(&stored.record));
        holds(record) && record.acquire_time == record.renew_time && !held
    }

    /// Whether what one of them has is half a claim of this run: no news to it, which hears by the answer what becomes
    /// of the claim.
    pub fn is_half_claimed(&self, member: Member, run: &RunId) -> bool {
        let by_us = |stored: &Stored| stored.record.is_marked_by(run);
        self.of(member).is_some_and(by_us) && !self.stored(run).is_some_and(|both| by_us(&both))
    }

    /// What both make together; `run` is whose writes are ours.
    pub fn stored(&self, run: &RunId) -> Option<Stored> {
        Some(Stored { version: self.version()?, record: self.record(run) })
    }

    /// A write that replaces this version of both: what it replaces in the one, and then in the other.
    /// Nothing when that is not what was last seen.
    pub fn writes(&self, replaced: Option<&Version>) -> Option<[(Member, Option<Version>); 2]> {
        let write = |member| (member, self.of(member).map(|stored| stored.version.clone()));
        (self.version().as_ref() == replaced).then(|| [Member::First, Member::Second].map(write))
    }

    /// That part of a resourceVersion of both that is the second object's.
    pub fn second_resource_version(resource_version: &str) -> &str {
        resource_version.rsplit(SEPARATOR).next().unwrap_or_default()
    }

    /// The parts of a uid of both.
    pub fn uids(uid: &str) -> impl Iterator<Item = &str> {
        uid.split(SEPARATOR)
    }

    fn version(&self) -> Option<Version> {
        let part = |part: fn(&Version) -> &str| {
            let of = |stored: &Option<Stored>| stored.as_ref().map_or("", |stored| part(&stored.version)).to_owned();
            format!("{}{SEPARATOR}{}", of(&self.first), of(&self.second))
        };
        let anything = self.first.is_some() || self.second.is_some();
        anything.then(|| Version {
            uid: part(|version| &version.uid),
            resource_version: part(|version| &version.resource_version),
        })
    }

    fn record(&self, run: &RunId) -> Record {
        let of = |stored: &Option<Stored>| stored.as_ref().map(|stored| stored.record.clone()).unwrap_or_default();
        let (first, second) = (of(&self.first), of(&self.second));
        if first.mark().is_some() && first.mark() == second.mark() && first.holder_identity == second.holder_identity {
            return first;
        }
        let by_one_run = first.mark().zip(second.mark()).is_some_and(|(one, other)| one.run == other.run);
        let by_us = by_one_run && first.is_marked_by(run);
        if by_one_run && (!by_us || may_be_of_one(&first, &second)) {
            // In between two writes. Of ours the older one counts: that much is in both.
            let takes_first = first.is_held() && (!by_us || !second.is_held() || first.renew_time < second.renew_time);
            let not_before = first.not_before.max(second.not_before);
            return Record { not_before, ..if takes_first { first } else { second } };
        }
        // A write of ours that reached only one of the two keeps nobody alive. Both of them with two holders' names were
        // given away.
        let held = |record: &Record| record.is_held() && (by_us || !record.is_marked_by(run));
        match (held(&first), held(&second)) {
            (true, false) => first,
            (false, true) => second,
            (false, false) => {
                let [first, second] = [first, second].map(without_holder);
                if says_more(&second) > says_more(&first) { second } else { first }
            }
            (true, true) => Record {
                holder_identity: match first.holder_identity == second.holder_identity {
                    true => first.holder_identity,
                    false => UNKNOWN_HOLDER.to_owned(),
                },
                lease_duration_seconds: first.lease_duration_seconds.max(second.lease_duration_seconds),
                // Both times are in it: a change of either is a change.
                acquire_time: second.renew_time,
                renew_time: first.renew_time,
                lease_transitions: first.lease_transitions.max(second.lease_transitions),
                ..Record::default()
            },
        }
    }
}

/// Whether two records of one run are of one holder, as far as they name one.
fn may_be_of_one(first: &Record, second: &Record) -> bool {
    first.holder_identity == second.holder_identity || !first.is_held() || !second.is_held()
}

/// A record that nobody holds: a release as it was written, or one without a holder.
fn without_holder(record: Record) -> Record {
    match record.is_held() {
        true => Record { holder_identity: String::new(), run: None, ..record },
        false => record,
    }
}

/// Which of two records that nobody holds counts: the command is due when the later one says, and a
/// release tells who is gone.
fn says_more(free: &Record) -> (Option<Timestamp>, bool, Option<Timestamp>) {
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

    fn holder(first: Option<Stored>, second: Option<Stored>) -> String {
        Pair::new(first, second).stored(&RunId::new("us")).unwrap().record.holder_identity
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
    fn what_of_ours_is_in_both_is_ours() {
        use RunState::{Held, Released};
        let ours = |first, second| Pair::new(first, second).stored(&RunId::new("us")).unwrap().record;
        for (first, second) in [(Held, Held), (Released, Held)] {
            let record = ours(stored("us", first, 2), stored("us", second, 1));
            assert_eq!((record.is_held(), record.renew_time), (true, Timestamp::from_second(1).ok()), "in between");
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
        let us = RunId::new("us");
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
        let record = Pair::new(released, stored("a", RunState::Held, 1)).stored(&RunId::new("us")).unwrap().record;
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
                assert_eq!(pair.stored(&RunId::new("us")).unwrap().record.due(), Some(not_before));
            }
        }
    }

    #[test]
    fn what_was_not_seen_is_not_replaced() {
        let pair = Pair::new(stored("a", RunState::Released, 1), None);
        let version = pair.stored(&RunId::new("us")).unwrap().version;
        let [first, second] = pair.writes(Some(&version)).unwrap();
        assert_eq!(first, (Member::First, Some(Version { uid: "u".into(), resource_version: "1".into() })));
        assert_eq!(second, (Member::Second, None));
        assert_eq!(pair.writes(None), None);
        assert_eq!(Pair::default().writes(None), Some([(Member::First, None), (Member::Second, None)]));
    }
}
