//! A running system is moved from one object to another: some candidates have their record in both.

use crate::meddling::holds_through;
use crate::plan::{Fault, Wishes};

const MOVING: Wishes = Wishes {
    hosts: None,
    faults: None,
    timing: None,
    clock_rates: None,
    calm_network: false,
    one_identity: false,
    no_client_go: true,
    stubborn_commands: false,
    long_commands: false,
    moving: true,
    min_hold: false,
    second_unwritable: false,
};

#[test]
fn who_holds_one_object_and_who_holds_both_exclude_each_other() {
    holds_through(&MOVING, 2_000);
}

#[test]
fn cut_off_in_between_two_writes_nobody_is_taken_for_dead_too_early() {
    let faults = Some(&[Fault::CutOff, Fault::CutOffOutward, Fault::CutOffInward][..]);
    holds_through(&Wishes { faults, stubborn_commands: true, long_commands: true, ..MOVING }, 2_000);
}

#[test]
fn who_can_write_only_one_of_both_keeps_nobody_out() {
    holds_through(&Wishes { second_unwritable: true, ..MOVING }, 1_000);
}
