//! Who takes part in a search, and what is allowed to happen in it.

use std::time::Duration;

use jiff::SignedDuration;
use leaderrun_core::timing::Timing;

use crate::clock::{Clock, SECOND, TRUE_RATE, Time};
use crate::disturbance::Kind;

/// What killing takes at most: the last resort's patience, and then the tree's death.
pub const KILLING: Duration = Duration::from_millis(150);
/// From SIGKILL to the death of the last process, in the worst case. A little less than what is left of the above: where
/// nothing takes any time, the next command can start in the very instant in which that is over.
pub const DYING: Duration = Duration::from_millis(99);

/// A rule taken away where the machines meet the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// All rules hold.
    AllHold,
    /// T0 is taken before the request is sent.
    SentBefore,
    /// Objects are told apart by their uid.
    Uid,
    /// Updates replace only the version they name.
    CompareAndSwap,
    /// Released when nothing is left, and not when the main process has ended.
    ReleaseAtTheEnd,
    /// Released when nothing is left, and not when the supervisor has died.
    ReleaseAfterTheKill,
    /// "Mine" is what bears this run's mark, not this candidate's name.
    MineByRun,
    /// Known marks that vanished are waited for.
    WaitForDisplaced,
    /// The grace is inside the lease.
    GraceInsideLease,
    /// The elector kills in place of a supervisor that does not.
    LastResort,
    /// A lease known to be lost leaves no grace.
    NoGraceWhenLost,
}

pub struct Setting {
    pub timing: Timing,
    pub clocks: [Clock; 2],
    pub may_watch: bool,
    pub one_identity: bool,
    /// Traffic is routed to the commands.
    pub routes: bool,
    /// How many disturbances happen at most, and of which kinds.
    pub disturbances: u8,
    pub kinds: &'static [Kind],
    /// Runs of leaderrun, those that begin again included.
    pub runs: usize,
    /// Nothing is looked at later than this.
    pub ends: Time,
    /// The rule that does not hold.
    pub broken: Rule,
}

impl Setting {
    /// Everything may happen, and the first candidate's clock runs as much slower than the second one's as is tolerated.
    pub fn everything() -> Self {
        let millis = Duration::from_millis;
        let timing = Timing::new(millis(4000), millis(2500), millis(1000), Some(millis(500)));
        let timing = timing.expect("the timing fits");
        Self {
            clocks: [clock(1.0 / tolerated_rate(&timing)), clock(1.0)],
            timing,
            may_watch: true,
            one_identity: false,
            routes: true,
            disturbances: 1,
            kinds: &Kind::ALL,
            runs: 3,
            ends: 9 * SECOND,
            broken: Rule::AllHold,
        }
    }
}

/// The tolerated ratio of clock rates, less what killing takes.
pub fn tolerated_rate(timing: &Timing) -> f64 {
    timing.lease_duration().as_secs_f64() / (timing.renew_deadline() + timing.lost_grace() + KILLING).as_secs_f64()
}

/// A wall clock that stands still shows that nothing depends on it, and makes more states alike.
pub fn clock(rate: f64) -> Clock {
    Clock { rate: (TRUE_RATE as f64 * rate) as u64, booted: 1000 * SECOND, wall: SignedDuration::ZERO }
}
