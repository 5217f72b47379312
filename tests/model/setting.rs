//! The setting of a search: the candidates, the possible disturbances, and the bounds.

use std::time::Duration;

use jiff::SignedDuration;
use leaderrun_core::timing::Timing;

use crate::disturbance::Disturbance;
use testkit::simulated_time::{Clock, SECOND, TRUE_RATE, Time};

/// The longest time from the kill instant to the death of the last process, if the elector kills in place of the
/// supervisor.
pub const KILL_TIME: Duration = Duration::from_millis(150);
/// The longest time from SIGKILL to the death of the last process. The elector sends SIGKILL 50 ms after the kill
/// instant, so the last process dies 1 ms before [`KILL_TIME`] is over and the next command can start.
pub const DEATH_TIME: Duration = Duration::from_millis(99);

/// A rule that a setting can disable. The model then changes the inputs and outputs of the state machines, or the
/// behavior of the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A tenure begins just before its request is sent.
    TenureFromSending,
    /// The tenure of a write whose reply is late begins just before that write is sent.
    LateTenureFromSending,
    /// Updates are checked against the object's uid.
    UidCheck,
    /// Updates only replace the version they name.
    CompareAndSwap,
    /// The lock is released when no process is left, not when the main process has ended.
    ReleaseAfterLastProcess,
    /// The lock is released when no process is left, not when the supervisor has died.
    ReleaseAfterKill,
    /// A run recognizes its own records by its run ID, not by its identity.
    RecognizeByRunId,
    /// Candidates wait for a holder whose record was emptied or deleted.
    WaitForDisplacedHolder,
    /// The grace period ends before the lease.
    GraceEndsBeforeLease,
    /// The elector kills the command if the supervisor does not.
    ElectorKill,
    /// The command gets no grace period when another candidate is known to hold the lock.
    NoGraceAfterTakeover,
}

pub struct Setting {
    pub timing: Timing,
    /// The clocks of the two machines.
    pub clocks: [Clock; 2],
    /// `true` if candidates may watch the object; otherwise they poll.
    pub may_watch: bool,
    /// `true` if both candidates have the same identity.
    pub same_identity: bool,
    /// `true` if traffic is routed to the commands.
    pub routes: bool,
    /// The maximum number of disturbances.
    pub max_disturbances: u8,
    /// The possible kinds of disturbance.
    pub disturbances: &'static [Disturbance],
    /// The maximum number of runs, including restarts.
    pub max_runs: usize,
    /// The time at which the exploration ends.
    pub end: Time,
    /// The rule that is disabled, if any.
    pub disabled_rule: Option<Rule>,
}

impl Setting {
    /// Returns a setting in which any one disturbance can happen, and the clock rates differ as much as is tolerated.
    pub fn with_all_disturbances() -> Self {
        let millis = Duration::from_millis;
        let timing = Timing::new(millis(4000), millis(2500), millis(1000), Some(millis(500)));
        let timing = timing.expect("the timing is valid");
        Self {
            clocks: [clock(1.0 / tolerated_rate_ratio(&timing)), clock(1.0)],
            timing,
            may_watch: true,
            same_identity: false,
            routes: true,
            max_disturbances: 1,
            disturbances: &Disturbance::ALL,
            max_runs: 3,
            end: 9 * SECOND,
            disabled_rule: None,
        }
    }
}

/// Returns the tolerated ratio of clock rates if a kill takes [`KILL_TIME`].
pub fn tolerated_rate_ratio(timing: &Timing) -> f64 {
    timing.lease_duration().as_secs_f64() / (timing.renew_deadline() + timing.lost_grace() + KILL_TIME).as_secs_f64()
}

/// Returns the clocks of a machine whose boot clock runs `rate` times as fast as true time. The wall clock is correct.
pub fn clock(rate: f64) -> Clock {
    Clock {
        rate: (TRUE_RATE as f64 * rate) as u64,
        initial_boot_time: 1000 * SECOND,
        wall_offset: SignedDuration::ZERO,
    }
}
