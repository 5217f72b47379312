//! Tests with edits of the lease by other clients.

use crate::faults::{Fault, OutsideEdit, ProcessFault};
use crate::mutation::Mutation;
use crate::plan::Constraints;
use crate::runner::{find_violation, replay};

/// Checks that no schedule of the first `seeds` seeds violates an invariant.
pub fn expect_no_violation(constraints: &Constraints, seeds: u64) {
    if let (Some((seed, violation)), _) = find_violation(0..seeds, constraints, Mutation::None) {
        replay(seed, constraints, Mutation::None);
        panic!("seed {seed}: {violation}");
    }
}

/// The constraints that the tests below extend.
const OUTSIDE_EDITS: Constraints = Constraints {
    machines: None,
    faults: None,
    timing: None,
    clock_rates: None,
    reliable_network: true,
    same_identity: false,
    no_client_go: true,
    ignore_sigterm: false,
    long_commands: true,
    all_have_min_hold: false,
    migrating: false,
    second_unwritable: false,
};

/// Candidates that observed the record before the edit wait for the longer duration. Later candidates cannot know it.
#[test]
fn candidates_that_saw_the_longer_duration_wait_for_it_after_the_record_is_shortened() {
    expect_no_violation(
        &Constraints { faults: Some(&[Fault::Edit(OutsideEdit::Shorten), Fault::Partition]), ..OUTSIDE_EDITS },
        1_000,
    );
}

/// The released record of an earlier run does not release the lock of the current run.
#[test]
fn a_restored_old_record_does_not_release_the_lock() {
    expect_no_violation(
        &Constraints { faults: Some(&[Fault::Edit(OutsideEdit::RestoreOldRecord)]), ..OUTSIDE_EDITS },
        300,
    );
}

#[test]
fn a_request_to_step_down_causes_no_overlap() {
    // `StepDown` is listed twice so that it is injected more often than each of the others.
    let faults = &[
        Fault::Edit(OutsideEdit::StepDown),
        Fault::Edit(OutsideEdit::StepDown),
        Fault::Partition,
        Fault::Edit(OutsideEdit::Delete),
        Fault::Edit(OutsideEdit::RemoveHolderAndMark),
        Fault::Process(ProcessFault::FreezeSupervisor),
    ];
    expect_no_violation(
        &Constraints { faults: Some(faults), ignore_sigterm: true, reliable_network: false, ..OUTSIDE_EDITS },
        1_000,
    );
}

/// A candidate must remember a displaced holder while another holder is displaced and writes its record again.
#[test]
fn candidates_wait_for_several_displaced_holders() {
    let faults = &[Fault::Edit(OutsideEdit::Delete), Fault::Edit(OutsideEdit::RemoveHolderAndMark), Fault::Partition];
    expect_no_violation(
        &Constraints { faults: Some(faults), machines: Some(5), long_commands: false, ..OUTSIDE_EDITS },
        1_000,
    );
}

/// A create may be carried out late, after another candidate's lease was created and deleted.
#[test]
fn a_create_that_arrives_late_causes_no_overlap() {
    let faults = &[Fault::Edit(OutsideEdit::Delete)];
    expect_no_violation(
        &Constraints { faults: Some(faults), machines: Some(5), reliable_network: false, ..OUTSIDE_EDITS },
        1_000,
    );
}
