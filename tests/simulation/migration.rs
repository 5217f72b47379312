//! The migration of a running system from one kind of lock to another, during which some candidates use a pair of
//! objects and others only one of them.

use crate::faults::Fault;
use crate::outside_edits::expect_no_violation;
use crate::plan::Constraints;

/// The constraints that the tests below extend.
const MIGRATING: Constraints = Constraints {
    machines: None,
    faults: None,
    timing: None,
    clock_rates: None,
    reliable_network: false,
    same_identity: false,
    no_client_go: true,
    ignore_sigterm: false,
    long_commands: false,
    migrating: true,
    all_have_min_hold: false,
    second_unwritable: false,
};

#[test]
fn holders_of_one_object_and_of_a_pair_exclude_each_other() {
    expect_no_violation(&MIGRATING, 2_000);
}

#[test]
fn a_partition_between_the_writes_to_a_pair_causes_no_overlap() {
    let faults = Some(&[Fault::Partition, Fault::PartitionRequests, Fault::PartitionReplies][..]);
    expect_no_violation(&Constraints { faults, ignore_sigterm: true, long_commands: true, ..MIGRATING }, 2_000);
}

#[test]
fn a_candidate_that_can_write_only_one_object_of_a_pair_does_not_block_others() {
    expect_no_violation(&Constraints { second_unwritable: true, ..MIGRATING }, 1_000);
}
