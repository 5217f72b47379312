//! The durations of an election, and the rules that make their combination safe.

use core::fmt;
use core::time::Duration;

/// The shortest time between the kill of a command and a takeover by another candidate. Killing a process tree takes
/// time.
pub const MIN_KILL_MARGIN: Duration = Duration::from_secs(1);

/// How many requests, including the first renewal that fails, must be able to time out before the renew deadline. A
/// dead connection then costs a request, but not the lock.
pub const ATTEMPTS: u32 = 3;

/// The shortest timeout of a request.
const MIN_REQUEST_TIMEOUT: Duration = Duration::from_millis(50);

/// The longest duration that a lease can have: `leaseDurationSeconds` is an `int32`.
pub const MAX_LEASE_DURATION: Duration = Duration::from_secs(i32::MAX as u64);

/// The lease duration that is suggested in place of one that is too short or too long. It is client-go's default.
const USUAL_LEASE_DURATION: Duration = Duration::from_secs(15);

/// A valid combination of durations; see [`Timing::new`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Timing {
    lease_duration: Duration,
    renew_deadline: Duration,
    retry_period: Duration,
    lost_grace: Duration,
}

impl Timing {
    /// Checks that the durations fit together. The default for `lost_grace` is half of the time between the renew
    /// deadline and the lease duration, or less if that is necessary to leave [`MIN_KILL_MARGIN`].
    ///
    /// # Errors
    /// Fails if a duration is zero (only `lost_grace` may be), if the lease duration is not a whole number of seconds
    /// or longer than [`MAX_LEASE_DURATION`], or if the kill margin or [`ATTEMPTS`] requests do not fit in. The error
    /// contains the duration to change, the reason, and a value to try.
    pub fn new(
        lease_duration: Duration,
        renew_deadline: Duration,
        retry_period: Duration,
        lost_grace: Option<Duration>,
    ) -> Result<Self, InvalidTiming> {
        use TimingField::{LeaseDuration, LostGrace, RenewDeadline, RetryPeriod};
        use TimingProblem::{
            AboveMaximum, BeyondKillMargin, NoRoomForAttempts, NoRoomForRenewDeadline, NotWholeSeconds, TooShort, Zero,
        };

        let invalid = |field, value, problem, suggestion| Err(InvalidTiming { field, value, problem, suggestion });
        if lease_duration.is_zero() || lease_duration.subsec_nanos() != 0 {
            let suggestion = Duration::from_secs(lease_duration.as_secs() + 1);
            return invalid(LeaseDuration, lease_duration, NotWholeSeconds, suggestion);
        }
        if lease_duration > MAX_LEASE_DURATION {
            return invalid(LeaseDuration, lease_duration, AboveMaximum, USUAL_LEASE_DURATION);
        }
        let latest_kill = lease_duration.saturating_sub(MIN_KILL_MARGIN);
        let usual_deadline = latest_kill.min(two_thirds(lease_duration));
        if renew_deadline.is_zero() || renew_deadline > latest_kill {
            if latest_kill < Duration::from_millis(500) {
                return invalid(LeaseDuration, lease_duration, NoRoomForRenewDeadline, USUAL_LEASE_DURATION);
            }
            let problem = if renew_deadline.is_zero() { Zero } else { BeyondKillMargin { lease_duration } };
            return invalid(RenewDeadline, renew_deadline, problem, usual_deadline);
        }
        let request_timeout = renew_deadline.saturating_sub(retry_period) / ATTEMPTS;
        if retry_period.is_zero() || request_timeout < MIN_REQUEST_TIMEOUT {
            if renew_deadline < Duration::from_millis(200) {
                return invalid(RenewDeadline, renew_deadline, TooShort, usual_deadline);
            }
            let problem = if retry_period.is_zero() { Zero } else { NoRoomForAttempts { renew_deadline } };
            return invalid(RetryPeriod, retry_period, problem, renew_deadline / 5);
        }
        let longest_grace = latest_kill - renew_deadline;
        let lost_grace = match lost_grace {
            None => longest_grace.min((lease_duration - renew_deadline) / 2),
            Some(grace) if grace > longest_grace => {
                return invalid(LostGrace, grace, BeyondKillMargin { lease_duration }, longest_grace);
            }
            Some(grace) => grace,
        };
        Ok(Self { lease_duration, renew_deadline, retry_period, lost_grace })
    }

    /// Returns how long a record is valid without a renewal. This is a whole number of seconds.
    pub fn lease_duration(&self) -> Duration {
        self.lease_duration
    }

    /// Returns the time from the last renewal to the stop signal.
    pub fn renew_deadline(&self) -> Duration {
        self.renew_deadline
    }

    /// Returns the usual time between two renewals, and the shortest time between two reads of a candidate that cannot
    /// watch.
    pub fn retry_period(&self) -> Duration {
        self.retry_period
    }

    /// Returns the time from the stop signal to the kill.
    pub fn lost_grace(&self) -> Duration {
        self.lost_grace
    }

    /// Returns the timeout of one request. Starting with the first renewal that fails, [`ATTEMPTS`] requests in a row
    /// can time out before the renew deadline.
    pub fn request_timeout(&self) -> Duration {
        (self.renew_deadline - self.retry_period) / ATTEMPTS
    }

    /// Returns the longest time by which the stop and the kill may be brought forward while a command runs. A renewal
    /// that is sent on time then still ends before the stop, even if it takes its whole timeout.
    pub fn max_advance(&self) -> Duration {
        self.renew_deadline - self.retry_period - self.request_timeout()
    }

    /// Returns the largest ratio of two candidates' clock rates at which their commands are never alive at the same
    /// time.
    pub fn tolerated_clock_rate(&self) -> f64 {
        self.lease_duration.as_secs_f64() / (self.renew_deadline + self.lost_grace).as_secs_f64()
    }
}

/// Returns two thirds of a duration, in whole milliseconds: the ratio of client-go's defaults, 15 s and 10 s.
fn two_thirds(duration: Duration) -> Duration {
    Duration::from_millis((duration * 2 / 3).as_millis() as u64)
}

/// One of the durations of a [`Timing`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimingField {
    LeaseDuration,
    RenewDeadline,
    RetryPeriod,
    LostGrace,
}

/// The reason why a duration does not fit the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimingProblem {
    /// The duration is not a whole number of seconds, or is zero.
    NotWholeSeconds,
    /// The duration is longer than [`MAX_LEASE_DURATION`].
    AboveMaximum,
    /// The duration is too short for a renew deadline and [`MIN_KILL_MARGIN`].
    NoRoomForRenewDeadline,
    /// The duration is zero, which is not allowed.
    Zero,
    /// The kill would be less than [`MIN_KILL_MARGIN`] before the end of the lease duration.
    BeyondKillMargin { lease_duration: Duration },
    /// The duration is too short for [`ATTEMPTS`] requests.
    TooShort,
    /// The duration leaves too little time for [`ATTEMPTS`] requests before the renew deadline.
    NoRoomForAttempts { renew_deadline: Duration },
}

/// The error for a duration that does not fit the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidTiming {
    pub field: TimingField,
    pub value: Duration,
    pub problem: TimingProblem,
    /// A value that fits the other durations, or is a step towards a valid combination.
    pub suggestion: Duration,
}

impl fmt::Display for InvalidTiming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, value, problem, suggestion } = self;
        let field = match field {
            TimingField::LeaseDuration => "lease duration",
            TimingField::RenewDeadline => "renew deadline",
            TimingField::RetryPeriod => "retry period",
            TimingField::LostGrace => "lost grace",
        };
        write!(f, "{field} {value:?}: {problem}; try {suggestion:?}")
    }
}

impl fmt::Display for TimingProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotWholeSeconds => f.write_str("it must be a whole number of seconds, and at least 1s"),
            Self::AboveMaximum => write!(f, "a lease cannot last longer than {MAX_LEASE_DURATION:?}"),
            Self::NoRoomForRenewDeadline => {
                write!(
                    f,
                    "{MIN_KILL_MARGIN:?} of it is reserved for killing the command, which leaves no time for a renew deadline"
                )
            }
            Self::Zero => f.write_str("it must be longer than zero"),
            Self::BeyondKillMargin { lease_duration } => write!(
                f,
                "the kill must come at least {MIN_KILL_MARGIN:?} before the lease duration of {lease_duration:?} ends"
            ),
            Self::TooShort => write!(f, "it leaves no time for {ATTEMPTS} requests"),
            Self::NoRoomForAttempts { renew_deadline } => {
                write!(f, "it must leave time for {ATTEMPTS} requests before the renew deadline of {renew_deadline:?}")
            }
        }
    }
}

impl core::error::Error for InvalidTiming {}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(lease: u64, renew: u64, retry: u64, grace: Option<u64>) -> Result<Timing, InvalidTiming> {
        let millis = Duration::from_millis;
        Timing::new(millis(lease), millis(renew), millis(retry), grace.map(millis))
    }

    #[test]
    fn the_default_grace_is_half_of_the_time_after_the_renew_deadline() {
        assert_eq!(timing(15_000, 10_000, 2_000, None).unwrap().lost_grace(), Duration::from_millis(2500));
    }

    #[test]
    fn client_gos_defaults_leave_time_for_requests_and_tolerate_different_clock_rates() {
        let defaults = timing(15_000, 10_000, 2_000, None).unwrap();
        assert!(defaults.request_timeout() * ATTEMPTS + defaults.retry_period() <= defaults.renew_deadline());
        assert_eq!(defaults.tolerated_clock_rate(), 1.2);
        assert_eq!(defaults.max_advance().as_millis(), 5333);
    }

    #[test]
    fn without_grace_the_tolerated_clock_rate_is_the_lease_duration_divided_by_the_renew_deadline() {
        assert_eq!(timing(60_000, 30_000, 2_000, Some(0)).unwrap().tolerated_clock_rate(), 2.0);
    }

    #[test]
    fn the_default_grace_leaves_the_kill_margin() {
        assert_eq!(timing(6_000, 4_500, 1_000, None).unwrap().lost_grace(), Duration::from_millis(500));
    }

    #[test]
    fn each_error_names_the_field_and_its_problem() {
        use TimingField::{LeaseDuration, LostGrace, RenewDeadline, RetryPeriod};
        use TimingProblem::*;
        let millis = Duration::from_millis;
        let (lease_duration, renew_deadline) = (millis(15_000), millis(10_000));
        for (durations, field, problem) in [
            ((1500, 1000, 100, None), LeaseDuration, NotWholeSeconds),
            ((0, 1000, 100, None), LeaseDuration, NotWholeSeconds),
            ((3_000_000_000_000, 1000, 100, None), LeaseDuration, AboveMaximum),
            ((1000, 500, 100, None), LeaseDuration, NoRoomForRenewDeadline),
            ((15_000, 15_000, 2000, None), RenewDeadline, BeyondKillMargin { lease_duration }),
            ((15_000, 14_500, 2000, None), RenewDeadline, BeyondKillMargin { lease_duration }),
            ((15_000, 0, 2000, None), RenewDeadline, Zero),
            ((15_000, 150, 149, None), RenewDeadline, TooShort),
            ((15_000, 10_000, 10_000, None), RetryPeriod, NoRoomForAttempts { renew_deadline }),
            ((15_000, 10_000, 0, None), RetryPeriod, Zero),
            ((15_000, 10_000, 9_900, None), RetryPeriod, NoRoomForAttempts { renew_deadline }),
            ((15_000, 10_000, 2000, Some(4500)), LostGrace, BeyondKillMargin { lease_duration }),
        ] {
            let (lease, renew, retry, grace) = durations;
            let error = timing(lease, renew, retry, grace).unwrap_err();
            assert_eq!((error.field, error.problem), (field, problem), "{durations:?}");
        }
    }

    #[test]
    fn the_message_of_an_error_states_only_the_rule_that_is_violated() {
        let message = |lease, renew, grace| timing(lease, renew, 2000, grace).unwrap_err().to_string();
        let margin = "the kill must come at least 1s before the lease duration of 15s ends";
        assert_eq!(message(15_000, 14_000, Some(1)), format!("lost grace 1ms: {margin}; try 0ns"));
        assert_eq!(message(15_000, 15_000, None), format!("renew deadline 15s: {margin}; try 10s"));
        assert_eq!(message(15_000, 0, None), "renew deadline 0ns: it must be longer than zero; try 10s");
    }

    #[test]
    fn applying_the_suggestions_leads_to_valid_durations() {
        let values = [0, 1, 40, 100, 500, 999, 1000, 1001, 1500, 2000, 3000, 10_000, 15_000, 86_400_000];
        for lease in values {
            for renew in values {
                for retry in values {
                    for grace in [None, Some(0), Some(1500), Some(20_000)] {
                        let durations = (lease, renew, retry, grace);
                        let (mut lease, mut renew, mut retry, mut grace) = durations;
                        let mut errors = 0;
                        while let Err(error) = timing(lease, renew, retry, grace) {
                            let suggestion = error.suggestion.as_millis() as u64;
                            match error.field {
                                TimingField::LeaseDuration => lease = suggestion,
                                TimingField::RenewDeadline => renew = suggestion,
                                TimingField::RetryPeriod => retry = suggestion,
                                TimingField::LostGrace => grace = Some(suggestion),
                            }
                            errors += 1;
                            assert!(errors <= 5, "{durations:?}: {error}");
                        }
                    }
                }
            }
        }
    }
}
