//! Mutation tests: for each rule that leaderrun's promise depends on, the simulation must find a schedule that violates
//! an invariant when the rule is disabled, and violates none when it is not.

use crate::faults::{Fault, OutsideEdit, ProcessFault};
use crate::invariants::ViolationKind;
use crate::mutation::Mutation;
use crate::plan::Constraints;
use crate::runner::{find_violation, run_schedule};

/// A mutation, the constraints of the schedules that must detect it, and the kinds of violation that count as its
/// detection.
struct MutationTest {
    mutation: Mutation,
    constraints: Constraints,
    violations: &'static [ViolationKind],
}

/// The number of schedules within which a mutation must be detected.
const SEEDS: u64 = 10_000;

/// Constraints for three machines without a client-go candidate. All processes of the commands ignore SIGTERM, and most
/// commands do not end by themselves.
const PLAIN: Constraints = Constraints {
    machines: Some(3),
    faults: None,
    timing: None,
    clock_rates: None,
    reliable_network: false,
    same_identity: false,
    no_client_go: true,
    ignore_sigterm: true,
    long_commands: true,
    all_have_min_hold: false,
    migrating: false,
    second_unwritable: false,
};

const PARTITIONS: &[Fault] = &[Fault::Partition, Fault::PartitionRequests, Fault::PartitionReplies];
const FREEZES_AND_PARTITIONS: &[Fault] =
    &[Fault::Process(ProcessFault::FreezeSupervisor), Fault::Process(ProcessFault::FreezeElector), Fault::Partition];
const PROCESS_FREEZES: &[Fault] =
    &[Fault::Process(ProcessFault::FreezeSupervisor), Fault::Process(ProcessFault::FreezeElectionThread)];
const CRASHES: &[Fault] = &[Fault::Process(ProcessFault::CrashSupervisor)];
const SHORTENING: &[Fault] = &[Fault::Edit(OutsideEdit::Shorten), Fault::Partition];
const ADMISSION: &[Fault] = &[Fault::AdmissionShortens, Fault::Partition];
const RESTORING: &[Fault] =
    &[Fault::Edit(OutsideEdit::RestoreOldRecord), Fault::Process(ProcessFault::CrashBoth), Fault::Partition];
const EMPTYING: &[Fault] = &[Fault::Edit(OutsideEdit::RemoveHolderAndMark), Fault::Partition];

fn assert_detects(test: &MutationTest) {
    let MutationTest { mutation, constraints, violations } = test;
    let mut first = 0;
    // A violation of another kind may have a different cause than the missing rule, so the search continues after it.
    let (seed, violation) = loop {
        let (found, _) = find_violation(first..SEEDS, constraints, *mutation);
        let (seed, violation) =
            found.unwrap_or_else(|| panic!("{mutation:?} caused none of {violations:?} in {SEEDS} schedules"));
        println!("{mutation:?}: seed {seed}, {violation}");
        if violations.contains(&violation.kind) {
            break (seed, violation);
        }
        first = seed + 1;
    };
    let (_, unmutated) = run_schedule(seed, constraints, Mutation::None);
    assert!(
        unmutated.is_none(),
        "seed {seed}: {mutation:?} caused {violation}, but without it the schedule violates an invariant too: {}",
        unmutated.unwrap()
    );
}

macro_rules! mutation_tests {
    ($($name:ident: $mutation:ident, $constraints:expr, $($violation:ident)|+;)*) => {
        $(
            #[test]
            fn $name() {
                assert_detects(&MutationTest { mutation: Mutation::$mutation, constraints: $constraints, violations: &[$(ViolationKind::$violation),+] });
            }
        )*
    };
}

mutation_tests! {
    a_tenure_begins_before_its_request_is_sent:
        TenureFromReply, Constraints { faults: Some(PARTITIONS), clock_rates: Some(1.0), timing: Some(5), machines: Some(5), ..PLAIN }, Overlap;
    the_tenure_of_a_write_that_a_read_confirms_begins_with_the_write:
        TenureFromRead,
        Constraints { faults: Some(PARTITIONS), clock_rates: Some(1.0), timing: Some(5), ..PLAIN }, Overlap;
    writes_are_compare_and_swap:
        NoCompareAndSwap, Constraints { faults: Some(PARTITIONS), machines: Some(4), ..PLAIN }, Overlap;
    a_release_is_compare_and_swap:
        UncheckedRelease, Constraints { faults: Some(PARTITIONS), machines: Some(4), long_commands: false, ..PLAIN }, Overlap;
    each_renewal_differs_from_the_previous_one:
        EqualRenewals, Constraints { faults: Some(&[]), reliable_network: true, ..PLAIN }, LostWithoutFaults;
    a_write_that_changed_nothing_is_not_a_renewal:
        AcceptUnchangedRenewals, Constraints { faults: Some(&[]), reliable_network: true, ..PLAIN }, Overlap;
    the_lock_is_released_only_when_no_process_is_left:
        ReleaseAfterMainProcess, Constraints { faults: Some(&[]), reliable_network: true, long_commands: false, ..PLAIN },
        ReleasedWhileAlive;
    the_lock_is_not_released_while_the_command_of_a_dead_supervisor_is_alive:
        ReleaseAfterSupervisorDeath, Constraints { faults: Some(CRASHES), reliable_network: true, ..PLAIN }, ReleasedWhileAlive;
    candidates_wait_for_the_duration_in_the_record:
        OwnLeaseDuration, Constraints { faults: Some(PARTITIONS), ..PLAIN }, Overlap;
    a_write_whose_duration_the_server_shortened_begins_no_tenure:
        TenureOfShortenedWrite, Constraints { faults: Some(ADMISSION), ..PLAIN }, Overlap;
    candidates_wait_for_the_longest_duration_that_a_run_has_written:
        LatestWrittenDuration, Constraints { faults: Some(SHORTENING), ..PLAIN }, Overlap;
    the_remaining_time_is_checked_before_the_command_starts:
        NoCheckBeforeSpawn,
        Constraints { faults: Some(PROCESS_FREEZES), timing: Some(6), long_commands: false, ..PLAIN },
        StartedLate | ReleasedWhileAlive | Overlap;
    own_records_are_recognized_by_run_id:
        OwnByIdentity, Constraints { faults: Some(&[]), same_identity: true, ..PLAIN }, Overlap;
    renewals_are_applied_before_an_overdue_stop:
        StopBeforeRenewals, Constraints { faults: Some(PROCESS_FREEZES), ..PLAIN }, StoppedEarly;
    a_renewal_during_a_stop_does_not_delay_the_kill:
        DelayedKill, Constraints { faults: Some(PARTITIONS), ..PLAIN }, Outlived;
    candidates_wait_for_the_holder_of_an_emptied_record:
        IgnoreMarks, Constraints { faults: Some(EMPTYING), ..PLAIN }, Overlap;
    a_create_that_arrives_late_does_not_acquire_the_lock:
        LateCreateAcquires, Constraints { faults: Some(&[Fault::Edit(OutsideEdit::Delete)]), machines: Some(5), ..PLAIN }, Overlap;
    the_grace_period_ends_before_the_lease:
        GraceBeyondLease, Constraints { faults: Some(PARTITIONS), ..PLAIN }, Overlap;
    the_elector_kills_the_command_of_a_frozen_supervisor:
        NoElectorKill, Constraints { faults: Some(FREEZES_AND_PARTITIONS), ..PLAIN }, Outlived | Overlap;
    the_kill_includes_all_descendants:
        KillMainOnly, Constraints { faults: Some(PARTITIONS), ..PLAIN }, Outlived;
    a_command_that_succeeded_is_not_started_before_it_is_due:
        IgnoreNotBefore, Constraints { faults: Some(PARTITIONS), all_have_min_hold: true, long_commands: false, ..PLAIN }, NotDue;
    // During a migration, some candidates use a pair of objects. A half claim is one that was written to only one of
    // the two objects.
    during_a_migration_a_holder_in_either_object_holds_the_lock:
        ReadFirstObjectOnly, Constraints { faults: Some(PARTITIONS), migrating: true, ..PLAIN }, Overlap;
    a_pair_is_held_in_both_objects:
        WriteFirstObjectOnly, Constraints { faults: Some(PARTITIONS), migrating: true, ..PLAIN }, Overlap;
    a_half_claim_is_rolled_back:
        KeepHalfClaims,
        Constraints { faults: Some(&[]), reliable_network: true, migrating: true, second_unwritable: true, ..PLAIN },
        NoLeader;
    the_command_gets_no_grace_period_after_a_takeover:
        GraceAfterTakeover, Constraints { faults: Some(&[Fault::Edit(OutsideEdit::EditHolder)]), ..PLAIN }, Outlived;
    a_restored_earlier_record_does_not_count_as_a_takeover:
        IgnoreReplacedVersions, Constraints { faults: Some(RESTORING), machines: Some(5), ..PLAIN }, Overlap;
    deadlines_are_brought_forward_by_the_delay_of_a_kill:
        IgnoreDelays, Constraints { faults: Some(PARTITIONS), ..PLAIN }, Outlived | Overlap;
}

/// If clock rates may differ by 1.3 times the tolerated difference, a schedule with an overlap is found. If they differ
/// by no more than the tolerated difference, none is found.
#[test]
fn clock_rates_beyond_the_tolerated_ratio_cause_overlaps() {
    let constraints = Constraints { faults: Some(PARTITIONS), ..PLAIN };
    let with_clock_rates = |multiple| Constraints { clock_rates: Some(multiple), ..constraints };
    let (found, _) = find_violation(0..SEEDS, &with_clock_rates(1.3), Mutation::None);
    let (seed, violation) = found.expect("a schedule violates an invariant");
    println!("clock rates beyond the tolerated ratio: seed {seed}, {violation}");
    assert_eq!(violation.kind, ViolationKind::Overlap);
    assert!(find_violation(0..500, &with_clock_rates(1.0), Mutation::None).0.is_none());
}
