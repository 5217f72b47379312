//! An election over several locks, called slots. A candidate holds at most one slot, so a lock with N slots has up to N
//! leaders.
//!
//! [`SlotElection`] contains one [`Election`] for each slot. It is driven like an election, except that replies, watch
//! events and actions carry the number of their slot.
//!
//! # The rules
//!
//! - A candidate waits for all slots and claims any free slot. The seed determines which slot it tries first, so that
//!   the candidates do not all claim the same slot. After a claim has failed, it tries the next slot first.
//! - A candidate claims one slot at a time. While a claim is pending, it claims no other slot.
//! - A candidate that leads in a slot ends its candidacy in all other slots.

use alloc::vec::Vec;
use core::time::Duration;

use crate::election::{CommandGone, Election, ElectionAction, ElectionConfig, ElectionInputs, Now, Outcome};
use crate::instant::Instant;
use crate::lateness::Lateness;
use crate::record::RecordSlot;

/// Everything that has arrived since the last step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotInputs {
    /// No process of the command is alive, or the command was never started.
    pub command_gone: Option<CommandGone>,
    /// Whether to end the candidacy. A leader continues until its command is gone.
    pub stop: bool,
    /// The replies, late writes and watch events of each slot, with the slot's number. The other fields of these inputs
    /// are ignored.
    pub slots: Vec<(usize, ElectionInputs)>,
}

impl SlotInputs {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// An action for the driver of a slot election to carry out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "actions are few and not stored")]
pub enum SlotAction {
    /// Carry out this action in this slot. After [`ElectionAction::Finish`], drop the slot's request and watch.
    In(usize, ElectionAction),
    /// The candidacy is over in all slots.
    Finish(Outcome),
}

/// One candidate in an election over several slots; see the [module](self).
#[derive(Clone, Debug, Hash)]
pub struct SlotElection {
    slots: Vec<Slot>,
    /// The slot that is tried first.
    first: usize,
    /// The slot in which a claim is pending, or in which this candidate leads.
    claimed: Option<usize>,
    /// Whether this candidate leads in the claimed slot.
    leads: bool,
    /// Whether [`SlotAction::Finish`] was returned.
    finished: bool,
    /// How late the scheduler wakes this candidate's thread.
    lateness: Lateness,
}

#[derive(Clone, Debug, Hash)]
struct Slot {
    election: Election,
    outcome: Option<Outcome>,
}

impl SlotElection {
    /// Creates a candidate for this many slots. If `slots` is 1 or 0, there is one election, and its records name no
    /// slot. `seed` determines which slot is tried first, the jitter of pauses, and how claims are spread.
    pub fn new(slots: usize, config: &ElectionConfig, now: Now, seed: u64) -> Self {
        let count = slots.max(1);
        let election = |number: usize| {
            let election = Election::new(config.clone(), now, seed.wrapping_add(number as u64));
            if count == 1 {
                return election;
            }
            election.in_slot(RecordSlot { number: number as u32, count: count as u32 })
        };
        let slots: Vec<Slot> = (0..count).map(|number| Slot { election: election(number), outcome: None }).collect();
        let first = (seed % slots.len() as u64) as usize;
        Self { slots, first, claimed: None, leads: false, finished: false, lateness: Lateness::default() }
    }

    /// Records that this candidate was woken `delay` too late. Returns the delay that is passed to
    /// [`Election::set_wakeup_delay`], if it has changed.
    pub fn note_delay(&mut self, now: Instant, delay: Duration) -> Option<Duration> {
        let delay = self.lateness.add(now, delay)?;
        self.slots.iter_mut().for_each(|slot| slot.election.set_wakeup_delay(delay));
        Some(delay)
    }

    /// Processes everything that has arrived, then expired timers, and returns the actions to carry out, in order.
    pub fn step(&mut self, now: Now, inputs: SlotInputs) -> Vec<SlotAction> {
        let nothing_arrived = inputs.is_empty();
        let SlotInputs { command_gone, stop, slots: mut arrived } = inputs;
        let mut actions = Vec::new();
        for offset in 0..self.slots.len() {
            let number = (self.first + offset) % self.slots.len();
            let position = arrived.iter().position(|(slot, _)| *slot == number);
            let has_input = position.is_some();
            let mut inputs = position.map(|position| arrived.swap_remove(position).1).unwrap_or_default();
            inputs.stop = stop;
            inputs.command_gone = command_gone.filter(|_| self.claimed == Some(number));
            let is_due = self.slots[number].election.next_timeout().is_some_and(|at| now.boot >= at);
            let must_step = has_input || stop || inputs.command_gone.is_some() || is_due || nothing_arrived;
            if self.slots[number].outcome.is_none() && must_step {
                self.step_slot(number, now, inputs, &mut actions);
            }
        }
        self.finish_if_over(&mut actions);
        actions
    }

    /// Returns when to call [`step`](Self::step) next if nothing arrives before then.
    pub fn next_timeout(&self) -> Option<Instant> {
        let running = self.slots.iter().filter(|slot| slot.outcome.is_none());
        running.filter_map(|slot| slot.election.next_timeout()).min()
    }

    /// Returns the election for a slot.
    pub fn election(&self, slot: usize) -> &Election {
        &self.slots[slot].election
    }

    /// Returns how many slots there are.
    pub fn slot_count(&self) -> usize {
        self.slots.len()
    }

    /// Returns the slot in which this candidate leads.
    pub fn leading_slot(&self) -> Option<usize> {
        self.claimed.filter(|_| self.leads)
    }

    fn step_slot(&mut self, number: usize, now: Now, inputs: ElectionInputs, actions: &mut Vec<SlotAction>) {
        let slot = &mut self.slots[number];
        slot.election.set_may_claim(self.claimed.is_none_or(|claimed| claimed == number));
        for action in slot.election.step(now, inputs) {
            match &action {
                ElectionAction::Claiming => self.claimed = Some(number),
                ElectionAction::ClaimFailed => {
                    // From now on, try another slot first.
                    self.first = (number + 1) % self.slots.len();
                    self.end_claim(number);
                }
                ElectionAction::StartLeading(_) => {
                    (self.claimed, self.leads) = (Some(number), true);
                }
                ElectionAction::Finish(outcome) => {
                    self.slots[number].outcome = Some(*outcome);
                    if self.claimed == Some(number) && !self.leads {
                        self.end_claim(number);
                    }
                }
                _ => {}
            }
            let starts_leading = matches!(action, ElectionAction::StartLeading(_));
            actions.push(SlotAction::In(number, action));
            if starts_leading {
                self.stop_other_slots(number, now, actions);
            }
        }
    }

    /// Records that no claim is pending in slot `number` any more, and allows claims again in all others. Their
    /// elections claim at their next timeout.
    fn end_claim(&mut self, number: usize) {
        self.claimed = None;
        for (other, slot) in self.slots.iter_mut().enumerate() {
            if other != number {
                slot.election.set_may_claim(true);
            }
        }
    }

    fn stop_other_slots(&mut self, number: usize, now: Now, actions: &mut Vec<SlotAction>) {
        for other in 0..self.slots.len() {
            if other == number || self.slots[other].outcome.is_some() {
                continue;
            }
            self.slots[other].election.step(now, ElectionInputs::stop());
            self.slots[other].outcome = Some(Outcome::Stopped);
            actions.push(SlotAction::In(other, ElectionAction::Finish(Outcome::Stopped)));
        }
    }

    /// Finishes the candidacy when it is over in all slots. If this candidate leads in no slot, and at least one slot
    /// was held by another candidate or could not be acquired yet, the outcome is `NotAcquired`.
    fn finish_if_over(&mut self, actions: &mut Vec<SlotAction>) {
        if self.finished || self.slots.iter().any(|slot| slot.outcome.is_none()) {
            return;
        }
        self.finished = true;
        let outcomes = || self.slots.iter().filter_map(|slot| slot.outcome);
        let outcome = match self.leading_slot() {
            Some(number) => self.slots[number].outcome.unwrap_or(Outcome::Stopped),
            None if outcomes().any(|outcome| outcome == Outcome::NotAcquired) => Outcome::NotAcquired,
            None if outcomes().any(|outcome| outcome == Outcome::Unreachable) => Outcome::Unreachable,
            None => Outcome::Stopped,
        };
        actions.push(SlotAction::Finish(outcome));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::election::{Preference, Reply, Request, WatchEvent};
    use crate::record::{MarkState, Record, RunId, RunMark, Stored, Version};
    use crate::timing::Timing;

    const SECOND: Duration = Duration::from_secs(1);

    fn now(seconds: u64) -> Now {
        Now { boot: Instant::after_boot(SECOND * seconds as u32), wall: "2026-01-01T00:00:00Z".parse().unwrap() }
    }

    fn stored(record: Record, version: u64) -> Stored {
        Stored { record, version: Version { uid: "uid".into(), resource_version: version.to_string() } }
    }

    fn held() -> Record {
        let renew_time = "2025-01-01T00:00:00Z".parse().unwrap();
        Record {
            holder_identity: "other".into(),
            lease_duration_seconds: Some(15),
            renew_time: Some(renew_time),
            run: Some(RunMark { run: RunId::new("other"), state: MarkState::Held, renew_time }),
            ..Record::default()
        }
    }

    fn candidate(slots: usize, wait: Option<Duration>, seed: u64) -> (SlotElection, Vec<SlotAction>) {
        let timing = Timing::new(15 * SECOND, 10 * SECOND, 2 * SECOND, None).unwrap();
        let config = ElectionConfig {
            identity: "me".into(),
            run: RunId::new("me"),
            timing,
            wait,
            min_hold: None,
            ignores_min_hold: false,
            preference: Preference::default(),
        };
        let mut election = SlotElection::new(slots, &config, now(100), seed);
        let actions = election.step(now(100), SlotInputs::default());
        (election, actions)
    }

    fn reply(slot: usize, reply: Reply) -> (usize, ElectionInputs) {
        (slot, ElectionInputs::reply(reply))
    }

    fn arrived(slots: Vec<(usize, ElectionInputs)>) -> SlotInputs {
        SlotInputs { slots, ..SlotInputs::default() }
    }

    /// Returns the writes among these actions, with their slots.
    fn writes(actions: &[SlotAction]) -> Vec<(usize, Record)> {
        let write = |action: &SlotAction| match action {
            SlotAction::In(slot, ElectionAction::Send(Request::Create(record) | Request::Update(_, record))) => {
                Some((*slot, record.clone()))
            }
            _ => None,
        };
        actions.iter().filter_map(write).collect()
    }

    fn final_outcome(actions: &[SlotAction]) -> Option<Outcome> {
        actions.iter().find_map(|action| if let SlotAction::Finish(outcome) = action { Some(*outcome) } else { None })
    }

    #[test]
    fn a_candidate_reads_all_slots_and_claims_one() {
        let (mut election, actions) = candidate(3, None, 1);
        for slot in 0..3 {
            assert!(actions.contains(&SlotAction::In(slot, ElectionAction::Send(Request::Get))));
        }
        let all_free = (0..3).map(|slot| reply(slot, Reply::Read(None))).collect();
        let actions = election.step(now(100), arrived(all_free));
        let writes = writes(&actions);
        assert_eq!(writes.len(), 1, "{writes:?}");
        assert_eq!(writes[0].0, 1, "the slot that the seed determines");
        assert_eq!(writes[0].1.slot, Some(RecordSlot { number: 1, count: 3 }));
    }

    #[test]
    fn after_a_failed_claim_a_candidate_claims_another_slot() {
        let (mut election, _) = candidate(2, None, 0);
        election.step(now(100), arrived(vec![reply(0, Reply::Read(None)), reply(1, Reply::Read(None))]));
        let actions = election.step(now(100), arrived(vec![reply(0, Reply::Conflict)]));
        assert_eq!(writes(&actions), []);
        let after_read = election.step(now(100), arrived(vec![reply(0, Reply::Read(Some(stored(held(), 7))))]));
        let at_timeout = election.step(now(100), SlotInputs::default());
        let claims = writes(&[after_read, at_timeout].concat());
        assert_eq!(claims.iter().map(|(slot, _)| *slot).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn no_other_slot_is_claimed_while_a_claim_is_pending() {
        let (mut election, _) = candidate(2, None, 0);
        election.step(now(100), arrived(vec![reply(0, Reply::Read(None))]));
        let actions = election.step(now(100), arrived(vec![reply(1, Reply::Read(None))]));
        assert_eq!(writes(&actions), []);
        // The claim, which got no reply, is written again in its own slot, and nothing is written in the other slot.
        let actions = election.step(now(103), SlotInputs::default());
        assert!(writes(&actions).iter().all(|(slot, _)| *slot == 0), "{actions:?}");
        assert!(election.next_timeout().is_some_and(|at| at > now(103).boot), "the next timeout is in the future");
    }

    #[test]
    fn a_leader_ends_its_candidacy_in_the_other_slots() {
        let (mut election, _) = candidate(2, None, 0);
        let read = vec![reply(1, Reply::Read(Some(stored(held(), 7)))), reply(0, Reply::Read(None))];
        let actions = election.step(now(100), arrived(read));
        let (slot, claim) = writes(&actions).remove(0);
        assert_eq!(slot, 0);
        let actions = election.step(now(100), arrived(vec![reply(0, Reply::Written(stored(claim, 8)))]));
        assert!(matches!(actions[0], SlotAction::In(0, ElectionAction::StartLeading(_))), "{actions:?}");
        assert_eq!(actions[1..], [SlotAction::In(1, ElectionAction::Finish(Outcome::Stopped))]);
        assert_eq!(election.leading_slot(), Some(0));
        // The deletion of the other slot's object is ignored.
        let deleted = ElectionInputs::watch_event(WatchEvent::Deleted);
        assert_eq!(election.step(now(101), arrived(vec![(1, deleted)])), []);
        let gone = SlotInputs { command_gone: Some(CommandGone { succeeded: true }), ..SlotInputs::default() };
        let actions = election.step(now(102), gone);
        let (slot, release) = writes(&actions).remove(0);
        assert!(slot == 0 && !release.is_held());
        let actions = election.step(now(102), arrived(vec![reply(0, Reply::Written(stored(release, 9)))]));
        assert_eq!(final_outcome(&actions), Some(Outcome::Released));
    }

    #[test]
    fn a_candidate_gives_up_when_its_wait_is_over_in_all_slots() {
        let (mut election, _) = candidate(2, Some(3 * SECOND), 0);
        election.step(now(100), arrived(vec![reply(0, Reply::Read(Some(stored(held(), 7))))]));
        let actions = election.step(now(103), SlotInputs::default());
        assert_eq!(final_outcome(&actions), Some(Outcome::NotAcquired), "another candidate holds slot 0");
        let (mut unreachable, _) = candidate(2, Some(3 * SECOND), 0);
        assert_eq!(final_outcome(&unreachable.step(now(103), SlotInputs::default())), Some(Outcome::Unreachable));
    }
}
