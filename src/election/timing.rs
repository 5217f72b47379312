//! The durations of an election, and what makes them safe together.

use std::fmt;
use std::time::Duration;

use humantime::format_duration;

/// What has to lie between the kill and the takeover by another candidate: the time to kill a tree.
pub const ROOM_FOR_THE_KILL: Duration = Duration::from_secs(1);

/// Requests that fit between one renewal's success and the renew deadline, so that a connection that
/// went silent costs a request and never the lease.
pub const ATTEMPTS: u32 = 3;

/// The least time a request is given to be answered.
const SHORTEST_ATTEMPT: Duration = Duration::from_millis(50);

/// The longest a lease can say it lasts: `leaseDurationSeconds` is an `int32`.
const LONGEST_LEASE: Duration = Duration::from_secs(i32::MAX as u64);

/// Durations that fit together; see [`Timing::new`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Timing {
    lease_duration: Duration,
    renew_deadline: Duration,
    retry_period: Duration,
    lost_grace: Duration,
}

impl Timing {
    /// Checks the durations against each other. Without `lost_grace` it is half of what lies between
    /// the renew deadline and the lease duration, as far as that leaves room for the kill.
    ///
    /// # Errors
    /// A sentence naming the option, its value, what is wrong with it, and a value that would do.
    pub fn new(
        lease_duration: Duration,
        renew_deadline: Duration,
        retry_period: Duration,
        lost_grace: Option<Duration>,
    ) -> Result<Self, InvalidTiming> {
        let unfit =
            |option, value, reason: String, suggestion| Err(InvalidTiming { option, value, reason, suggestion });
        if lease_duration.is_zero() || lease_duration.subsec_nanos() != 0 {
            let suggestion = Duration::from_secs(lease_duration.as_secs() + 1);
            let reason = "a lease stores whole seconds, at least one".into();
            return unfit("--lease-duration", lease_duration, reason, suggestion);
        }
        if lease_duration > LONGEST_LEASE {
            let reason = format!("a lease cannot last longer than {}", format_duration(LONGEST_LEASE));
            return unfit("--lease-duration", lease_duration, reason, Duration::from_secs(15));
        }
        let latest_kill = lease_duration.saturating_sub(ROOM_FOR_THE_KILL);
        if renew_deadline.is_zero() || renew_deadline > latest_kill {
            if latest_kill < Duration::from_millis(500) {
                let reason = "no renew deadline fits into it: 1s of it is kept for killing the command".into();
                return unfit("--lease-duration", lease_duration, reason, Duration::from_secs(15));
            }
            let reason = format!(
                "it must be above zero and at least 1s shorter than --lease-duration {}, for killing the command in between",
                format_duration(lease_duration)
            );
            return unfit("--renew-deadline", renew_deadline, reason, latest_kill.min(two_thirds(lease_duration)));
        }
        let attempts = renew_deadline.saturating_sub(retry_period) / ATTEMPTS;
        if retry_period.is_zero() || attempts < SHORTEST_ATTEMPT {
            if renew_deadline < Duration::from_millis(200) {
                let reason = format!("it leaves no room for {ATTEMPTS} requests");
                return unfit("--renew-deadline", renew_deadline, reason, latest_kill.min(two_thirds(lease_duration)));
            }
            let reason = format!(
                "it must be above zero and leave room for {ATTEMPTS} requests before --renew-deadline {}",
                format_duration(renew_deadline)
            );
            return unfit("--retry-period", retry_period, reason, renew_deadline / 5);
        }
        let longest_grace = latest_kill - renew_deadline;
        let lost_grace = match lost_grace {
            None => longest_grace.min((lease_duration - renew_deadline) / 2),
            Some(grace) if grace > longest_grace => {
                let reason = format!(
                    "with --renew-deadline {} it must end at least 1s before --lease-duration {}, for killing the command",
                    format_duration(renew_deadline),
                    format_duration(lease_duration)
                );
                return unfit("--lost-grace", grace, reason, longest_grace);
            }
            Some(grace) => grace,
        };
        Ok(Self { lease_duration, renew_deadline, retry_period, lost_grace })
    }

    /// How long a record holds without being renewed; whole seconds.
    pub fn lease_duration(&self) -> Duration {
        self.lease_duration
    }

    /// From the last renewal to the stop signal.
    pub fn renew_deadline(&self) -> Duration {
        self.renew_deadline
    }

    /// Between two renewals, and between two reads of a candidate that cannot watch.
    pub fn retry_period(&self) -> Duration {
        self.retry_period
    }

    /// From the stop signal to the kill.
    pub fn lost_grace(&self) -> Duration {
        self.lost_grace
    }

    /// How long a request may stay unanswered: [`ATTEMPTS`] of them, one after the other, fit between
    /// the first renewal that fails and the renew deadline.
    pub fn attempt(&self) -> Duration {
        (self.renew_deadline - self.retry_period) / ATTEMPTS
    }

    /// How many times faster one candidate's clock may run than another's: a command is dead this much
    /// before anybody else may start it.
    pub fn tolerated_clock_rate(&self) -> f64 {
        self.lease_duration.as_secs_f64() / (self.renew_deadline + self.lost_grace).as_secs_f64()
    }
}

/// Two thirds, to the millisecond: the proportion of client-go's defaults, 15 s and 10 s.
fn two_thirds(duration: Duration) -> Duration {
    Duration::from_millis((duration * 2 / 3).as_millis() as u64)
}

/// A duration that does not fit the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidTiming {
    option: &'static str,
    value: Duration,
    reason: String,
    suggestion: Duration,
}

impl fmt::Display for InvalidTiming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { option, value, reason, suggestion } = self;
        write!(f, "{option} {}: {reason}; {} would do", format_duration(*value), format_duration(*suggestion))
    }
}

impl std::error::Error for InvalidTiming {}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(lease: u64, renew: u64, retry: u64, grace: Option<u64>) -> Result<Timing, InvalidTiming> {
        let millis = Duration::from_millis;
        Timing::new(millis(lease), millis(renew), millis(retry), grace.map(millis))
    }

    #[test]
    fn the_defaults_leave_half_of_the_margin_for_a_clean_stop() {
        let defaults = timing(15_000, 10_000, 2_000, None).unwrap();
        assert_eq!(defaults.lost_grace(), Duration::from_millis(2500));
        assert!(defaults.attempt() * ATTEMPTS + defaults.retry_period() <= defaults.renew_deadline());
        assert_eq!(defaults.tolerated_clock_rate(), 1.2);
    }

    #[test]
    fn without_grace_the_tolerated_rate_is_the_classic_one() {
        assert_eq!(timing(60_000, 30_000, 2_000, Some(0)).unwrap().tolerated_clock_rate(), 2.0);
    }

    #[test]
    fn the_default_grace_leaves_room_for_the_kill() {
        assert_eq!(timing(6_000, 4_500, 1_000, None).unwrap().lost_grace(), Duration::from_millis(500));
    }

    #[test]
    fn each_refusal_names_option_value_reason_and_a_value_that_would_do() {
        for (durations, says) in [
            (
                (1500, 1000, 100, None),
                "--lease-duration 1s 500ms: a lease stores whole seconds, at least one; 2s would do",
            ),
            ((0, 1000, 100, None), "--lease-duration 0s: "),
            ((3_000_000_000_000, 1000, 100, None), "--lease-duration "),
            ((1000, 500, 100, None), "--lease-duration 1s: no renew deadline fits"),
            (
                (15_000, 15_000, 2000, None),
                "--renew-deadline 15s: it must be above zero and at least 1s shorter than --lease-duration 15s",
            ),
            ((15_000, 14_500, 2000, None), "--renew-deadline 14s 500ms: "),
            ((15_000, 0, 2000, None), "--renew-deadline 0s: "),
            ((15_000, 10_000, 10_000, None), "--retry-period 10s: "),
            ((15_000, 10_000, 0, None), "--retry-period 0s: "),
            ((15_000, 10_000, 9_900, None), "--retry-period 9s 900ms: "),
            ((15_000, 10_000, 2000, Some(4500)), "--lost-grace 4s 500ms: "),
        ] {
            let (lease, renew, retry, grace) = durations;
            let refusal = timing(lease, renew, retry, grace).unwrap_err().to_string();
            assert!(refusal.starts_with(says), "{refusal}");
        }
    }

    /// Whoever follows the advice, one refusal after the other, arrives.
    #[test]
    fn what_would_do_does() {
        let values = [0, 1, 40, 100, 500, 999, 1000, 1001, 1500, 2000, 3000, 10_000, 15_000, 86_400_000];
        for lease in values {
            for renew in values {
                for retry in values {
                    for grace in [None, Some(0), Some(1500), Some(20_000)] {
                        let (mut l, mut n, mut t, mut g) = (lease, renew, retry, grace);
                        let mut advice = 0;
                        while let Err(unfit) = timing(l, n, t, g) {
                            let suggestion = unfit.suggestion.as_millis() as u64;
                            match unfit.option {
                                "--lease-duration" => l = suggestion,
                                "--renew-deadline" => n = suggestion,
                                "--retry-period" => t = suggestion,
                                _ => g = Some(suggestion),
                            }
                            advice += 1;
                            assert!(advice <= 5, "{lease} {renew} {retry} {grace:?}: {unfit}");
                        }
                    }
                }
            }
        }
    }
}
