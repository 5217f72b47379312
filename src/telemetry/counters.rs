//! The counters, which are saved and restored when `--on-lost rejoin` re-executes leaderrun.

use std::collections::BTreeMap;
use std::time::Duration;

use leaderrun_core::updates::{Loss, RenewalResult};
use serde::{Deserialize, Serialize};

use super::histogram::Histogram;

/// The upper bounds of the buckets for the durations of renewals, in seconds. They are the defaults of Prometheus's
/// client libraries.
const RENEWAL_DURATION_BOUNDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The histogram of renewal margins divides the renew deadline into this many buckets.
const MARGIN_BUCKETS: u32 = 10;

/// The values of the label `result`.
pub const RENEWAL_RESULTS: &[&str] = &["conflict", "error", "refused", "success", "timeout"];

/// The values of the label `reason`.
pub const LOSS_REASONS: &[&str] = &["not_renewed", "supervisor_died", "supervisor_late", "taken", "too_slow"];

/// All counters and histograms.
#[derive(Debug, Serialize, Deserialize)]
pub struct Counters {
    pub renewals: CounterByLabel,
    pub renewal_duration: Histogram,
    pub renewal_margin: Histogram,
    /// The smallest margin so far; `None` until a renewal has succeeded.
    pub minimum_renewal_margin: Option<Duration>,
    pub watch_restarts: u64,
    pub command_starts: u64,
    /// How many commands have ended, by exit status as a shell reports it; 124 if `--max-run` ended the command.
    pub command_ends: CounterByLabel,
    pub losses: CounterByLabel,
}

impl Counters {
    /// Creates counters at zero.
    pub fn new(renew_deadline: Duration) -> Self {
        let margins = (1..=MARGIN_BUCKETS).map(|tenths| renew_deadline * tenths / MARGIN_BUCKETS);
        Self {
            renewals: CounterByLabel::new(RENEWAL_RESULTS),
            renewal_duration: Histogram::new(RENEWAL_DURATION_BOUNDS),
            // Bounds are rounded to milliseconds, because they are printed as labels.
            renewal_margin: Histogram::new(margins.map(|margin| margin.as_millis() as f64 / 1000.0)),
            minimum_renewal_margin: None,
            watch_restarts: 0,
            command_starts: 0,
            command_ends: CounterByLabel::new(&["0"]),
            losses: CounterByLabel::new(LOSS_REASONS),
        }
    }

    /// Counts a finished renewal by its result, and records how long it took.
    pub fn count_renewal(&mut self, result: RenewalResult, took: Duration) {
        self.renewals.increment(renewal_result(result));
        self.renewal_duration.observe(took);
    }

    /// Records how much time was left before the renew deadline when a renewal succeeded.
    pub fn count_margin(&mut self, margin: Duration) {
        self.renewal_margin.observe(margin);
        self.minimum_renewal_margin = Some(self.minimum_renewal_margin.map_or(margin, |minimum| minimum.min(margin)));
    }

    /// Counts a loss of leadership.
    pub fn count_loss(&mut self, loss: Loss) {
        self.losses.increment(loss_reason(loss));
    }
}

fn renewal_result(result: RenewalResult) -> &'static str {
    match result {
        RenewalResult::Success => "success",
        RenewalResult::Conflict => "conflict",
        RenewalResult::Refused => "refused",
        RenewalResult::Error => "error",
        RenewalResult::Timeout => "timeout",
    }
}

fn loss_reason(loss: Loss) -> &'static str {
    match loss {
        Loss::NotRenewed => "not_renewed",
        Loss::Taken => "taken",
        Loss::TooSlow => "too_slow",
        Loss::SupervisorDied => "supervisor_died",
        Loss::SupervisorLate => "supervisor_late",
    }
}

/// One counter for each value of a label.
#[derive(Debug, Serialize, Deserialize)]
pub struct CounterByLabel(BTreeMap<String, u64>);

impl CounterByLabel {
    /// Creates a counter at zero for each value that is known in advance. Prometheus computes a rate only between two
    /// values of a counter, so without the zero it would miss the first increment.
    fn new(values: &[&str]) -> Self {
        Self(values.iter().map(|value| ((*value).to_owned(), 0)).collect())
    }

    /// Adds one to the counter of a value.
    pub fn increment(&mut self, value: &str) {
        *self.0.entry(value.to_owned()).or_default() += 1;
    }

    /// Returns the values of the label with their counts, in alphabetical order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(value, count)| (value.as_str(), *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_of_label_values_contain_every_result_and_reason() {
        use RenewalResult::{Conflict, Error, Refused, Success, Timeout};

        let mut counters = Counters::new(Duration::from_secs(10));
        for result in [Success, Conflict, Refused, Error, Timeout] {
            counters.count_renewal(result, Duration::ZERO);
        }
        use Loss::{NotRenewed, SupervisorDied, SupervisorLate, Taken, TooSlow};
        for loss in [NotRenewed, SupervisorDied, SupervisorLate, Taken, TooSlow] {
            counters.count_loss(loss);
        }
        let once = |values: &'static [&str]| values.iter().map(|value| (*value, 1)).collect::<Vec<_>>();
        assert_eq!(counters.renewals.iter().collect::<Vec<_>>(), once(RENEWAL_RESULTS));
        assert_eq!(counters.losses.iter().collect::<Vec<_>>(), once(LOSS_REASONS));
    }
}
