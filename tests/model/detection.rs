//! Rules broken on purpose: the search has to find what each of them prevents.

use crate::clock::SECOND;
use crate::disturbance::Kind;
use crate::search::{Order, search};
use crate::setting::{Rule, Setting, clock, tolerated_rate};
use crate::world::Broken;

fn detects(setting: Setting, breaks: Broken) {
    let (found, explored) = search(&setting, Order::BreadthFirst);
    let found = found.unwrap_or_else(|| panic!("nobody notices {:?}: {explored}", setting.broken));
    println!("{:?}: {explored}\n{}", setting.broken, found.story(&setting));
    assert_eq!(found.broken, breaks);
}

macro_rules! broken_rules {
    ($($name:ident: $rule:ident, $disturbances:literal of $kinds:expr, within $seconds:literal s, $breaks:ident;)*) => {
        $(
            #[test]
            fn $name() {
                let setting = Setting {
                    disturbances: $disturbances,
                    kinds: $kinds,
                    ends: $seconds * SECOND,
                    broken: Rule::$rule,
                    ..Setting::everything()
                };
                detects(setting, Broken::$breaks);
            }
        )*
    };
}

broken_rules! {
    t0_is_taken_before_sending: SentBefore, 2 of &[Kind::Late, Kind::Cut], within 5 s, Overlap;
    writes_are_compare_and_swap: CompareAndSwap, 3 of &[Kind::CommandEnds, Kind::Late, Kind::Again], within 2 s, Overlap;
    // Two claims of what has run out, one of them by the holder of before; the one that came first is deleted.
    writes_name_the_uid: Uid, 2 of &[Kind::Freeze, Kind::Delete], within 5 s, Overlap;
    released_when_nothing_is_left: ReleaseAtTheEnd, 1 of &[Kind::CommandEnds], within 1 s, ReleasedAlive;
    a_dead_supervisor_does_not_mean_a_dead_command:
        ReleaseAfterTheKill, 1 of &[Kind::Crash], within 1 s, ReleasedAlive;
    what_a_third_party_empties_is_waited_for: WaitForDisplaced, 1 of &[Kind::Empty], within 1 s, Overlap;
    the_grace_is_inside_the_lease: GraceInsideLease, 1 of &[Kind::Cut], within 5 s, Overlap;
    a_frozen_supervisor_is_killed_with_its_command:
        LastResort, 2 of &[Kind::Freeze, Kind::Cut], within 5 s, Outlived;
    a_lease_known_to_be_lost_leaves_no_grace: NoGraceWhenLost, 1 of &[Kind::EditHolder], within 5 s, Outlived;
}

#[test]
fn mine_is_what_bears_my_run_id() {
    let setting = Setting { one_identity: true, disturbances: 0, broken: Rule::MineByRun, ..Setting::everything() };
    detects(setting, Broken::Overlap);
}

#[test]
fn clocks_may_not_run_further_apart_than_tolerated() {
    let setting = Setting { disturbances: 1, kinds: &[Kind::Cut], ..Setting::everything() };
    let too_slow = clock(1.0 / (tolerated_rate(&setting.timing) * 1.1));
    let [_, fast] = &setting.clocks;
    detects(Setting { clocks: [too_slow, fast.clone()], ..setting }, Broken::Overlap);
}
