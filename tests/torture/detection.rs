//! Tests of the torture test itself. The checker reports two commands in one slot, and does not report commands in
//! different slots. The logs of candidates show which holders they have observed.

use testkit::witness::Lifetime;
use testkit::{TestLock, Witnesses, eventually};

use crate::candidate::TorturedCandidate;
use crate::checker::Checker;
use crate::observer::Renewals;

/// Returns the violations that the checker reports for these commands. Each command is given as its
/// [run](Lifetime::run) and the times at which it was first and last alive.
fn violations(commands: &[(&str, u64, u64)]) -> Vec<String> {
    let witnesses = Witnesses::new();
    for (pid, (run, started_at, last_seen_at)) in (1..).zip(commands) {
        let (started_at, last_seen_at) = (*started_at, *last_seen_at);
        let lifetime = Lifetime { run: (*run).to_owned(), pid, started_at, last_seen_at, signaled_at: 0 };
        lifetime.write(&lifetime.create_file(witnesses.directory()).expect("the file can be created"));
    }
    let renewals = [Renewals::new(), Renewals::new()];
    let has_slots = commands.iter().any(|(run, ..)| run.contains('@'));
    Checker::start(witnesses.directory().to_owned(), has_slots).check(&witnesses, &renewals).violations
}

#[testkit::test]
fn commands_in_different_slots_may_be_alive_at_the_same_time() {
    assert_eq!(violations(&[("10.a@0", 100, 200), ("11.b@1", 100, 200), ("12.c@0", 201, 300)]), [""; 0]);
}

#[testkit::test]
fn two_commands_in_one_slot_or_in_a_lock_without_slots_are_reported() {
    let in_slots = [("10.a@0", 100, 200), ("11.b@1", 100, 200), ("12.c@1", 199, 300)];
    let without_slots = [("11.b", 100, 200), ("12.c", 199, 300)];
    for commands in [&in_slots[..], &without_slots[..]] {
        let found = violations(commands);
        assert!(found.len() == 1 && found[0].contains("after the start of"), "{found:?}");
    }
}

#[testkit::test]
fn a_candidate_in_two_slots_is_reported() {
    let found = violations(&[("10.a@0", 100, 200), ("10.a@1", 100, 200)]);
    assert!(found.len() == 1 && found[0].contains("in two slots"), "{found:?}");
}

#[testkit::test]
fn a_token_that_does_not_grow_in_its_slot_is_reported() {
    let found = violations(&[("10.a@1", 100, 200), ("9.b@0", 300, 400), ("10.c@1", 300, 400)]);
    assert!(found.len() == 1 && found[0].contains("not greater"), "{found:?}");
}

/// The rules allow some faults only if the logs show that all candidates have observed the holder.
#[testkit::test]
fn the_log_of_a_standby_shows_the_observed_holder() {
    let (lock, witnesses) = (TestLock::file(), Witnesses::new());
    let start = |identity: &str| TorturedCandidate::start(identity.to_owned(), &lock, &witnesses, &[], &[]);
    let holder = start("a");
    eventually("a leads", || holder.has_led());
    let standby = start("b");
    eventually("b has observed a", || standby.has_observed("a"));
    assert!(!standby.has_observed("b") && !holder.has_observed("a"));
}
