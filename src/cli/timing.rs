//! Checks the durations against each other. An error names the option that does not fit the others, and suggests values
//! that fit.

use std::time::Duration;

use humantime::format_duration;
use leaderrun_core::timing::{
    ATTEMPTS, InvalidTiming, MAX_LEASE_DURATION, MIN_KILL_MARGIN, Timing, TimingField, TimingProblem,
};

use super::arguments::TimeArguments;
use super::origin::{Origin, Origins};
use super::usage_error::UsageError;

/// The maximum number of changes to the durations that are tried in search of a suggestion.
const MAX_CHANGES: usize = 8;

/// The ratio of a suggested renew deadline to the retry period, as with the defaults (10s and 2s).
const RETRY_PERIODS_PER_DEADLINE: u32 = 5;

/// Checks the durations against each other.
///
/// # Errors
/// Fails if a duration does not fit the others. The error contains its option or variable, the reason, and values that
/// fit, if any are found. If an option that the user has set conflicts with a default, the error names the option.
pub fn timing(times: &TimeArguments, origins: Origins<'_>) -> Result<Timing, UsageError> {
    let durations = Durations {
        lease_duration: times.lease_duration,
        renew_deadline: times.renew_deadline,
        retry_period: times.retry_period,
        lost_grace: times.lost_grace,
    };
    durations.timing().map_err(|invalid| TimingExplanation { origins, durations }.explain(&invalid))
}

#[derive(Clone, Copy)]
struct Durations {
    lease_duration: Duration,
    renew_deadline: Duration,
    retry_period: Duration,
    lost_grace: Option<Duration>,
}

impl Durations {
    fn timing(self) -> Result<Timing, InvalidTiming> {
        Timing::new(self.lease_duration, self.renew_deadline, self.retry_period, self.lost_grace)
    }

    fn set(&mut self, field: TimingField, value: Duration) {
        match field {
            TimingField::LeaseDuration => self.lease_duration = value,
            TimingField::RenewDeadline => self.renew_deadline = value,
            TimingField::RetryPeriod => self.retry_period = value,
            TimingField::LostGrace => self.lost_grace = Some(value),
        }
    }
}

/// Returns the id of the option that sets a field.
fn option_id(field: TimingField) -> &'static str {
    match field {
        TimingField::LeaseDuration => "lease_duration",
        TimingField::RenewDeadline => "renew_deadline",
        TimingField::RetryPeriod => "retry_period",
        TimingField::LostGrace => "lost_grace",
    }
}

struct TimingExplanation<'a> {
    origins: Origins<'a>,
    durations: Durations,
}

impl TimingExplanation<'_> {
    fn explain(&self, invalid: &InvalidTiming) -> UsageError {
        let field = invalid.field;
        let blamed = match self.conflicting_fields(invalid).iter().find(|other| self.is_chosen(**other)) {
            Some(other) if !self.is_chosen(field) => *other,
            _ => field,
        };
        let error = UsageError::new(self.origin(blamed).given(), self.reason(invalid, blamed));
        match self.changes_that_fit() {
            Some(changes) => error.try_instead(self.assignments(blamed, &changes)),
            None => error,
        }
    }

    fn origin(&self, field: TimingField) -> Origin<'_> {
        self.origins.of(option_id(field))
    }

    fn is_chosen(&self, field: TimingField) -> bool {
        self.origin(field).is_chosen()
    }

    /// Returns the other fields that are involved in the conflict.
    fn conflicting_fields(&self, invalid: &InvalidTiming) -> &'static [TimingField] {
        match (invalid.problem, invalid.field) {
            (TimingProblem::BeyondKillMargin { .. }, TimingField::LostGrace) => {
                &[TimingField::LeaseDuration, TimingField::RenewDeadline]
            }
            (TimingProblem::BeyondKillMargin { .. }, _) => &[TimingField::LeaseDuration],
            (TimingProblem::NoRoomForAttempts { .. }, _) => &[TimingField::RenewDeadline],
            _ => &[],
        }
    }

    fn reason(&self, invalid: &InvalidTiming, blamed: TimingField) -> String {
        let margin = format_duration(MIN_KILL_MARGIN);
        let given = |field| self.origin(field).given();
        let is_blamed = blamed == invalid.field;
        match invalid.problem {
            TimingProblem::NotWholeSeconds => "it must be a whole number of seconds, and at least 1s".to_owned(),
            TimingProblem::AboveMaximum => {
                format!("a lock cannot stay held for longer than {}s", MAX_LEASE_DURATION.as_secs())
            }
            TimingProblem::NoRoomForRenewDeadline => {
                format!("{margin} of it is reserved for killing the command, which leaves no time for a renew deadline")
            }
            TimingProblem::TooShort => format!("it leaves no time for {ATTEMPTS} requests"),
            TimingProblem::Zero => "it must be longer than zero".to_owned(),
            TimingProblem::BeyondKillMargin { .. } if invalid.field == TimingField::LostGrace => format!(
                "the command must be killed at least {margin} before the lock expires, but {} and {} leave less time within {}",
                given(TimingField::RenewDeadline),
                given(TimingField::LostGrace),
                given(TimingField::LeaseDuration),
            ),
            TimingProblem::BeyondKillMargin { .. } if is_blamed => {
                format!("it must be at least {margin} shorter than {}", given(TimingField::LeaseDuration))
            }
            TimingProblem::BeyondKillMargin { .. } => {
                format!("it must be at least {margin} longer than {}", given(invalid.field))
            }
            TimingProblem::NoRoomForAttempts { .. } if is_blamed => {
                format!("it must leave time for {ATTEMPTS} requests within {}", given(TimingField::RenewDeadline))
            }
            TimingProblem::NoRoomForAttempts { .. } => {
                format!("it must leave time for {ATTEMPTS} requests after {}", given(invalid.field))
            }
        }
    }

    /// Returns changes after which all durations are consistent. A duration that the user chose, or that was already
    /// changed, is changed only if no other change helps.
    fn changes_that_fit(&self) -> Option<Vec<(TimingField, Duration)>> {
        let mut durations = self.durations;
        let mut changes: Vec<(TimingField, Duration)> = Vec::new();
        for _ in 0..MAX_CHANGES {
            let Err(invalid) = durations.timing() else { return Some(changes) };
            let is_fixed = |field| self.is_chosen(field) || changes.iter().any(|(changed, _)| *changed == field);
            let (field, value) = self.change(&invalid, durations, is_fixed);
            durations.set(field, value);
            changes.retain(|(changed, _)| *changed != field);
            changes.push((field, value));
        }
        None
    }

    /// Chooses a duration to change, and returns it with a new value that resolves the conflict in `invalid`. Chooses
    /// the invalid duration, unless `is_fixed` is true for it and false for one of the conflicting durations.
    fn change(
        &self,
        invalid: &InvalidTiming,
        durations: Durations,
        is_fixed: impl Fn(TimingField) -> bool,
    ) -> (TimingField, Duration) {
        let can_change_instead = |other: &&TimingField| is_fixed(invalid.field) && !is_fixed(**other);
        let Durations { lease_duration, renew_deadline, retry_period, lost_grace } = durations;
        let grace = lost_grace.unwrap_or_default();
        let latest_renew_deadline = lease_duration.saturating_sub(MIN_KILL_MARGIN + grace);
        match (self.conflicting_fields(invalid).iter().find(can_change_instead), invalid.field) {
            (Some(TimingField::LeaseDuration), TimingField::LostGrace) => {
                (TimingField::LeaseDuration, whole_seconds(renew_deadline + grace + MIN_KILL_MARGIN))
            }
            (Some(TimingField::LeaseDuration), _) => {
                let proportional = renew_deadline.saturating_mul(3) / 2;
                let lease_duration = proportional.max(renew_deadline + MIN_KILL_MARGIN);
                (TimingField::LeaseDuration, whole_seconds(lease_duration).min(MAX_LEASE_DURATION))
            }
            (Some(TimingField::RenewDeadline), TimingField::LostGrace) if !latest_renew_deadline.is_zero() => {
                (TimingField::RenewDeadline, latest_renew_deadline)
            }
            (Some(TimingField::RenewDeadline), TimingField::RetryPeriod) => {
                (TimingField::RenewDeadline, retry_period.saturating_mul(RETRY_PERIODS_PER_DEADLINE))
            }
            _ => (invalid.field, Duration::from_millis(invalid.suggestion.as_millis() as u64)),
        }
    }

    /// Returns the changed options with their new values. The option that the error names is included even if it keeps
    /// its value.
    fn assignments(&self, blamed: TimingField, changes: &[(TimingField, Duration)]) -> String {
        let kept = changes.iter().all(|(field, _)| *field != blamed).then(|| self.origin(blamed).given());
        let changed = changes.iter().map(|(field, value)| self.origin(*field).with(&compact(*value)));
        kept.into_iter().chain(changed).collect::<Vec<_>>().join(" ")
    }
}

fn whole_seconds(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs() + u64::from(duration.subsec_nanos() > 0))
}

/// Formats a duration without spaces, so that it can be pasted as the value of an option.
fn compact(duration: Duration) -> String {
    let only_milliseconds = duration.subsec_nanos() > 0 && duration.subsec_nanos().is_multiple_of(1_000_000);
    if only_milliseconds && duration < Duration::from_secs(60) {
        format!("{}ms", duration.as_millis())
    } else {
        format_duration(duration).to_string().replace(' ', "")
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args, FromArgMatches};

    use super::*;

    fn parse(options: &str) -> Result<Timing, String> {
        let definition = TimeArguments::augment_args(clap::Command::new("leaderrun").no_binary_name(true));
        let matches = definition.clone().try_get_matches_from(options.split(' ')).unwrap();
        let times = TimeArguments::from_arg_matches(&matches).unwrap();
        let origins = Origins { definition: &definition, matches: &matches, arguments: &[] };
        timing(&times, origins).map_err(|error| error.to_string())
    }

    #[test]
    fn an_option_that_the_user_set_is_named_as_the_cause_rather_than_a_default() {
        for (options, expected) in [
            (
                "--lease-duration 5s",
                "--lease-duration 5s: it must be at least 1s longer than the default --renew-deadline 10s; try --lease-duration 5s --renew-deadline 3333ms",
            ),
            (
                "--renew-deadline 20s",
                "--renew-deadline 20s: it must be at least 1s shorter than the default --lease-duration 15s; try --renew-deadline 20s --lease-duration 30s",
            ),
            (
                "--retry-period 10s",
                "--retry-period 10s: it must leave time for 3 requests within the default --renew-deadline 10s; try --retry-period 10s --renew-deadline 50s --lease-duration 1m15s",
            ),
            (
                "--renew-deadline 2s",
                "--renew-deadline 2s: it must leave time for 3 requests after the default --retry-period 2s; try --renew-deadline 2s --retry-period 400ms",
            ),
            (
                "--lost-grace 5s",
                "--lost-grace 5s: the command must be killed at least 1s before the lock expires, but the default --renew-deadline 10s and --lost-grace 5s leave less time within the default --lease-duration 15s; try --lost-grace 5s --lease-duration 16s",
            ),
        ] {
            assert_eq!(parse(options), Err(expected.to_owned()));
        }
    }

    #[test]
    fn suggestions_work_when_they_are_pasted() {
        let values = ["0s", "1ms", "40ms", "150ms", "1s", "1500ms", "2s", "4s", "10s", "15s", "1d", "100y"];
        let options = ["--lease-duration", "--renew-deadline", "--retry-period", "--lost-grace"];
        let mut refused = 0;
        for (index, option) in options.iter().enumerate() {
            for other in &options[index..] {
                for value in values {
                    for other_value in values {
                        let mut given = vec![(*option, value)];
                        if option != other {
                            given.push((*other, other_value));
                        }
                        let line = |given: &[(&str, &str)]| {
                            given
                                .iter()
                                .map(|(option, value)| format!("{option} {value}"))
                                .collect::<Vec<_>>()
                                .join(" ")
                        };
                        let Err(message) = parse(&line(&given)) else { continue };
                        refused += 1;
                        let (_, words) = message.split_once("; try ").unwrap_or_else(|| panic!("{given:?}: {message}"));
                        let words: Vec<&str> = words.split(' ').collect();
                        let suggested: Vec<(&str, &str)> = words.chunks(2).map(|pair| (pair[0], pair[1])).collect();
                        given.retain(|(option, _)| suggested.iter().all(|(other, _)| option != other));
                        given.extend(&suggested);
                        parse(&line(&given))
                            .unwrap_or_else(|error| panic!("the suggestion in {message:?} is refused: {error}"));
                    }
                }
            }
        }
        assert!(refused > 100, "only {refused} combinations were refused");
    }

    #[test]
    fn suggested_durations_contain_no_spaces() {
        let words = [3333, 90_000, 15_000, 90_500, 500].map(|millis| compact(Duration::from_millis(millis)));
        assert_eq!(words, ["3333ms", "1m30s", "15s", "1m30s500ms", "500ms"]);
    }
}
