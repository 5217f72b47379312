//! Third parties that do more to a lease than empty or delete it.

use crate::mutation::Mutation;
use crate::plan::{Fault, Wishes};
use crate::runner::{play_all, retell};

pub fn holds_through(wishes: &Wishes, seeds: u64) {
    if let (Some((seed, violation)), _) = play_all(0..seeds, wishes, Mutation::None) {
        retell(seed, wishes, Mutation::None);
        panic!("seed {seed}: {violation}");
    }
}

const BY: Wishes = Wishes {
    hosts: None,
    faults: None,
    timing: None,
    clock_rates: None,
    calm_network: true,
    one_identity: false,
    no_client_go: true,
    stubborn_commands: false,
    long_commands: true,
    min_hold: false,
    moving: false,
    second_unwritable: false,
};

/// Whoever knew the record before waits the longer time; who comes new is excused.
#[test]
fn a_shortened_record_does_not_shorten_what_its_run_was_promised() {
    holds_through(&Wishes { faults: Some(&[Fault::Shorten, Fault::CutOff]), ..BY }, 1_000);
}

/// A released state of an earlier run is no release of the present one.
#[test]
fn an_old_state_that_is_put_back_releases_nothing() {
    holds_through(&Wishes { faults: Some(&[Fault::PutBack]), ..BY }, 300);
}

/// A request to step down is heeded or not, and changes nothing else.
#[test]
fn a_request_to_step_down_takes_the_lease_from_nobody() {
    let faults =
        &[Fault::StepDown, Fault::StepDown, Fault::CutOff, Fault::Delete, Fault::Empty, Fault::FreezeSupervisor];
    holds_through(&Wishes { faults: Some(faults), stubborn_commands: true, calm_network: false, ..BY }, 1_000);
}

/// Who waits for a displaced holder forgets it when a second one is displaced and comes back.
#[test]
fn one_displaced_holder_does_not_make_others_forgotten() {
    let faults = &[Fault::Delete, Fault::Empty, Fault::CutOff];
    holds_through(&Wishes { faults: Some(faults), hosts: Some(5), long_commands: false, ..BY }, 1_000);
}

/// A create that arrives late, when the lease that others have created meanwhile is deleted, is no victory.
#[test]
fn a_create_that_arrives_late_wins_nothing() {
    let faults = &[Fault::Delete];
    holds_through(&Wishes { faults: Some(faults), hosts: Some(5), calm_network: false, ..BY }, 1_000);
}
