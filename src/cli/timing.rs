//! The durations of the election, in the words of the command line.

use humantime::format_duration;
use leaderrun_core::timing::{
    ATTEMPTS, InvalidTiming, MAX_LEASE_DURATION, MIN_KILL_MARGIN, TimingField, TimingProblem,
};

/// Says which option does not fit, why, and what to try.
pub fn explain(invalid: &InvalidTiming) -> String {
    let InvalidTiming { field, value, problem, suggestion } = invalid;
    let option = match field {
        TimingField::LeaseDuration => "--lease-duration",
        TimingField::RenewDeadline => "--renew-deadline",
        TimingField::RetryPeriod => "--retry-period",
        TimingField::LostGrace => "--lost-grace",
    };
    let margin = format_duration(MIN_KILL_MARGIN);
    let reason = match problem {
        TimingProblem::NotWholeSeconds => "a lease stores whole seconds, at least one".to_owned(),
        TimingProblem::AboveMaximum => {
            format!("a lease cannot last longer than {}", format_duration(MAX_LEASE_DURATION))
        }
        TimingProblem::NoRoomForRenewDeadline => {
            format!("no renew deadline fits into it: {margin} of it is kept for killing the command")
        }
        TimingProblem::BeyondKillMargin { lease_duration } => {
            let end = match field {
                TimingField::LostGrace => "it must end",
                _ => "it must be above zero and",
            };
            let lease_duration = format_duration(*lease_duration);
            let before = if *field == TimingField::LostGrace { "before" } else { "shorter than" };
            format!(
                "{end} at least {margin} {before} --lease-duration {lease_duration}, for killing the command in between"
            )
        }
        TimingProblem::TooShort => format!("it leaves no time for {ATTEMPTS} requests"),
        TimingProblem::NoRoomForAttempts { renew_deadline } => format!(
            "it must be above zero and leave time for {ATTEMPTS} requests before --renew-deadline {}",
            format_duration(*renew_deadline)
        ),
    };
    format!("{option} {}: {reason}; try {}", format_duration(*value), format_duration(*suggestion))
}
