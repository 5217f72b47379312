//! Tests of the model itself: for each disabled rule, the search must find the violation that the rule prevents. It
//! must also find the violation that clock rates beyond the tolerated ratio cause.

use crate::disturbance::Disturbance;
use crate::search::{SearchOrder, search};
use crate::setting::{Rule, Setting, clock, tolerated_rate_ratio};
use crate::world::ViolationKind;
use testkit::simulated_time::SECOND;

fn assert_detects(setting: Setting, violation: ViolationKind) {
    let (found, statistics) = search(&setting, SearchOrder::BreadthFirst);
    let found =
        found.unwrap_or_else(|| panic!("no violation found; disabled rule: {:?}; {statistics}", setting.disabled_rule));
    println!("{:?}: {statistics}\n{}", setting.disabled_rule, found.trace(&setting));
    assert_eq!(found.violation, violation);
}

macro_rules! rule_tests {
    ($($name:ident: $rule:ident, $count:literal of $kinds:expr, within $seconds:literal s, $violation:ident;)*) => {
        $(
            #[test]
            fn $name() {
                let setting = Setting {
                    max_disturbances: $count,
                    disturbances: $kinds,
                    end: $seconds * SECOND,
                    disabled_rule: Some(Rule::$rule),
                    ..Setting::with_all_disturbances()
                };
                assert_detects(setting, ViolationKind::$violation);
            }
        )*
    };
}

rule_tests! {
    a_tenure_begins_before_its_request_is_sent: TenureFromSending, 2 of &[Disturbance::Delay, Disturbance::Partition], within 5 s, Overlap;
    the_tenure_of_a_late_reply_begins_before_its_request_is_sent:
        LateTenureFromSending, 2 of &[Disturbance::Delay, Disturbance::Partition], within 6 s, Overlap;
    writes_are_compare_and_swap: CompareAndSwap, 3 of &[Disturbance::MainProcessEnds, Disturbance::Delay, Disturbance::Restart], within 2 s, Overlap;
    // Two candidates, one of them the former holder, claim an expired lock. The Lease is deleted after the first claim.
    writes_name_the_uid: UidCheck, 2 of &[Disturbance::Freeze, Disturbance::Delete], within 5 s, Overlap;
    the_lock_is_released_only_when_no_process_is_left: ReleaseAfterLastProcess, 1 of &[Disturbance::MainProcessEnds], within 1 s, ReleasedWhileAlive;
    the_lock_is_not_released_while_the_command_of_a_dead_supervisor_is_alive:
        ReleaseAfterKill, 1 of &[Disturbance::Crash], within 1 s, ReleasedWhileAlive;
    candidates_wait_for_the_holder_of_an_emptied_record: WaitForDisplacedHolder, 1 of &[Disturbance::RemoveHolderAndMark], within 1 s, Overlap;
    the_grace_period_ends_before_the_lease: GraceEndsBeforeLease, 1 of &[Disturbance::Partition], within 5 s, Overlap;
    the_elector_kills_the_command_of_a_frozen_supervisor:
        ElectorKill, 2 of &[Disturbance::Freeze, Disturbance::Partition], within 5 s, Outlived;
    the_command_gets_no_grace_period_after_a_takeover: NoGraceAfterTakeover, 1 of &[Disturbance::EditHolder], within 5 s, Outlived;
}

#[test]
fn own_records_are_recognized_by_run_id() {
    let setting = Setting {
        same_identity: true,
        max_disturbances: 0,
        disabled_rule: Some(Rule::RecognizeByRunId),
        ..Setting::with_all_disturbances()
    };
    assert_detects(setting, ViolationKind::Overlap);
}

#[test]
fn clock_rates_beyond_the_tolerated_ratio_cause_overlaps() {
    let setting =
        Setting { max_disturbances: 1, disturbances: &[Disturbance::Partition], ..Setting::with_all_disturbances() };
    let too_slow = clock(1.0 / (tolerated_rate_ratio(&setting.timing) * 1.1));
    let [_, fast] = &setting.clocks;
    assert_detects(Setting { clocks: [too_slow, fast.clone()], ..setting }, ViolationKind::Overlap);
}
