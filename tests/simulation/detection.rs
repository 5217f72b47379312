//! Every rule that the promise rests on is broken once: the simulation has to notice, and to find
//! nothing wrong in the same schedule with the rule in place.

use crate::invariants::Broken;
use crate::mutation::Mutation;
use crate::plan::{Fault, Wishes};
use crate::runner::{play, play_all};

/// A rule, the circumstances in which it matters, and the promises that break without it.
struct BrokenRule {
    mutation: Mutation,
    wishes: Wishes,
    breaks: &'static [Broken],
}

/// Schedules in which a broken rule has to show.
const SEEDS: u64 = 10_000;

/// Nothing but what leaderrun does: no third party, the grace and the kill to the last.
const PLAIN: Wishes = Wishes {
    hosts: Some(3),
    faults: None,
    timing: None,
    clock_rates: None,
    calm_network: false,
    one_identity: false,
    no_client_go: true,
    stubborn_commands: true,
    long_commands: true,
    min_hold: false,
    moving: false,
    second_unwritable: false,
};

const CUTS: &[Fault] = &[Fault::CutOff, Fault::CutOffOutward, Fault::CutOffInward];
const FREEZES: &[Fault] = &[Fault::FreezeSupervisor, Fault::FreezeElector, Fault::CutOff];
const STOPS: &[Fault] = &[Fault::FreezeSupervisor, Fault::FreezeNetworkThread];
const CRASHES: &[Fault] = &[Fault::CrashSupervisor];
const SHORTENING: &[Fault] = &[Fault::Shorten, Fault::CutOff];
const EMPTYING: &[Fault] = &[Fault::Empty, Fault::CutOff];

fn detects(rule: &BrokenRule) {
    let BrokenRule { mutation, wishes, breaks } = rule;
    let (found, _) = play_all(0..SEEDS, wishes, *mutation);
    let (seed, violation) = found.unwrap_or_else(|| panic!("nobody notices {mutation:?}"));
    println!("{mutation:?}: seed {seed}, {violation}");
    assert!(breaks.contains(&violation.broken), "{mutation:?}: {violation}");
    let (_, unmutated) = play(seed, wishes, Mutation::None);
    assert!(unmutated.is_none(), "seed {seed}: {}", unmutated.unwrap());
}

macro_rules! broken_rules {
    ($($name:ident: $mutation:ident, $wishes:expr, $($breaks:ident)|+;)*) => {
        $(
            #[test]
            fn $name() {
                detects(&BrokenRule { mutation: Mutation::$mutation, wishes: $wishes, breaks: &[$(Broken::$breaks),+] });
            }
        )*
    };
}

broken_rules! {
    t0_is_taken_before_sending:
        SentAfterReply, Wishes { faults: Some(CUTS), clock_rates: Some(1.0), timing: Some(5), hosts: Some(5), ..PLAIN }, Overlap;
    a_write_settled_by_reading_counts_from_its_own_t0:
        SettledByReadCountsFromRead,
        Wishes { faults: Some(CUTS), clock_rates: Some(1.0), timing: Some(5), ..PLAIN }, Overlap;
    writes_are_compare_and_swap:
        NoCompareAndSwap, Wishes { faults: Some(CUTS), hosts: Some(4), ..PLAIN }, Overlap;
    a_release_is_compare_and_swap:
        ReleaseWhoever, Wishes { faults: Some(CUTS), hosts: Some(4), long_commands: false, ..PLAIN }, Overlap;
    renewals_differ:
        EqualRenewals, Wishes { faults: Some(&[]), calm_network: true, ..PLAIN }, LostInHealth;
    a_write_that_changed_nothing_renews_nothing:
        RenewalsChangeNothing, Wishes { faults: Some(&[]), calm_network: true, ..PLAIN }, Overlap;
    released_when_nothing_is_left:
        ReleaseWhenMainEnded, Wishes { faults: Some(&[]), calm_network: true, long_commands: false, ..PLAIN },
        ReleasedAlive;
    a_dead_supervisor_does_not_mean_a_dead_command:
        ReleaseWhenSupervisorDied, Wishes { faults: Some(CRASHES), calm_network: true, ..PLAIN }, ReleasedAlive;
    the_records_own_duration_counts:
        OwnDuration, Wishes { faults: Some(CUTS), ..PLAIN }, Overlap;
    the_longest_duration_that_a_run_stated_counts:
        LastDuration, Wishes { faults: Some(SHORTENING), ..PLAIN }, Overlap;
    time_left_is_checked_before_the_spawn:
        NoCheckBeforeSpawn,
        Wishes { faults: Some(STOPS), timing: Some(6), long_commands: false, ..PLAIN },
        StartedLate | ReleasedAlive | Overlap;
    mine_is_what_bears_my_run_id:
        MineByName, Wishes { faults: Some(&[]), one_identity: true, ..PLAIN }, Overlap;
    renewals_come_before_an_overdue_stop:
        StopBeforeRenewals, Wishes { faults: Some(STOPS), ..PLAIN }, StoppedInTime;
    the_kill_instant_is_frozen:
        KillPutOff, Wishes { faults: Some(CUTS), ..PLAIN }, Outlived;
    what_a_third_party_empties_is_waited_for:
        NoWaitAfterEmptying, Wishes { faults: Some(EMPTYING), ..PLAIN }, Overlap;
    a_create_that_arrives_late_is_no_win:
        LateCreateWins, Wishes { faults: Some(&[Fault::Delete]), hosts: Some(5), ..PLAIN }, Overlap;
    the_grace_is_inside_the_lease:
        GraceBeyondLease, Wishes { faults: Some(CUTS), ..PLAIN }, Overlap;
    a_frozen_supervisor_is_killed_with_its_command:
        NoLastResort, Wishes { faults: Some(FREEZES), ..PLAIN }, Outlived | Overlap;
    the_kill_ends_with_the_last_process:
        KillMainOnly, Wishes { faults: Some(CUTS), ..PLAIN }, Outlived;
    what_ended_well_is_not_begun_again_before_it_is_due:
        NotBeforeIgnored, Wishes { faults: Some(CUTS), min_hold: true, long_commands: false, ..PLAIN }, NotDue;
    who_looks_at_two_objects_believes_both:
        FirstCounts, Wishes { faults: Some(CUTS), moving: true, ..PLAIN }, Overlap;
    who_has_two_objects_holds_both:
        HoldsFirst, Wishes { faults: Some(CUTS), moving: true, ..PLAIN }, Overlap;
    half_a_claim_keeps_nobody_out:
        HalfClaimsStay,
        Wishes { faults: Some(&[]), calm_network: true, moving: true, second_unwritable: true, ..PLAIN },
        NoLeader;
    a_lease_known_to_be_lost_leaves_no_grace:
        GraceWhenKnownLost, Wishes { faults: Some(&[Fault::EditHolder]), ..PLAIN }, Outlived;
}

/// Clocks that run as far apart as is tolerated are in every other schedule; a third more is too much.
#[test]
fn clocks_may_not_run_further_apart_than_tolerated() {
    let wishes = Wishes { faults: Some(CUTS), ..PLAIN };
    let apart = |share| Wishes { clock_rates: Some(share), ..wishes };
    let (found, _) = play_all(0..SEEDS, &apart(1.3), Mutation::None);
    let (seed, violation) = found.expect("clocks too far apart overlap");
    println!("clocks too far apart: seed {seed}, {violation}");
    assert_eq!(violation.broken, Broken::Overlap);
    assert!(play_all(0..500, &apart(1.0), Mutation::None).0.is_none());
}
