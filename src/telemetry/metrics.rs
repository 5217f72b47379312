//! The table of metrics, from which `/metrics` and `docs/reference.md` are generated.
//!
//! leaderrun implements metrics itself, because they must survive `--on-lost rejoin`, when leaderrun re-executes
//! itself. If the counters were reset then, Prometheus would never see the loss that has just been counted. Therefore
//! [`Counters`](super::counters::Counters) is plain data that serde saves and restores. The crates `prometheus-client`
//! and `prometheus` can set a new counter to a value, but cannot restore a histogram.

use std::borrow::Cow;
use std::fmt;

use leaderrun_core::instant::Instant;

use super::counters::{CounterByLabel, LOSS_REASONS, RENEWAL_RESULTS};
use super::exposition::Exposition;
use super::histogram::Histogram;
use super::state::{Activity, CandidateState};

/// The label that every sample has. Its value is the name of the lock.
pub const LOCK_LABEL: &str = "name";

/// One metric. Every sample has the label [`LOCK_LABEL`].
#[derive(Debug)]
pub struct MetricDescription {
    pub name: &'static str,
    pub help: &'static str,
    /// The label that distinguishes the samples, besides a histogram's `le`; `None` if there is no such label.
    pub label: Option<MetricLabel>,
    reading: Reading,
}

/// A label and its values.
#[derive(Clone, Copy, Debug)]
pub struct MetricLabel {
    pub name: &'static str,
    #[cfg_attr(not(test), expect(dead_code, reason = "only the test that generates docs/reference.md reads it"))]
    pub values: &'static [&'static str],
    /// Whether other values are also possible.
    #[cfg_attr(not(test), expect(dead_code, reason = "only the test that generates docs/reference.md reads it"))]
    pub is_open: bool,
}

/// The Prometheus type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

impl fmt::Display for MetricKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        })
    }
}

/// The value of the label that distinguishes the samples of a metric.
type LabelValue = Cow<'static, str>;

/// A sample: its own label (name and value), if it has one, and its value.
type Sample<'a> = (Option<(&'a str, Cow<'a, str>)>, f64);

/// A function that reads the samples of a metric. The variant determines the metric's type.
#[derive(Debug)]
enum Reading {
    /// A counter. An unknown value is not printed, because zero would look like a real count.
    Counter(fn(&CandidateState) -> Option<u64>),
    CounterByLabel(fn(&CandidateState) -> &CounterByLabel),
    Gauge(fn(&CandidateState, Instant) -> Option<f64>),
    GaugeByLabel(fn(&CandidateState, Instant) -> Vec<(LabelValue, f64)>),
    Histogram(fn(&CandidateState) -> &Histogram),
}

/// All metrics, in the order in which they are printed.
pub const METRICS: &[MetricDescription] = &[
    MetricDescription {
        name: "leader_election_master_status",
        help: "Whether this candidate leads: 1 while its command may be alive, 0 otherwise. The metric has the same name in client-go.",
        label: None,
        reading: Reading::Gauge(|state, _| Some(f64::from(u8::from(state.is_leading())))),
    },
    MetricDescription {
        name: "leaderrun_slot_leading",
        help: "With --slots: 1 for the slot in which the command of this candidate may be alive, 0 for the others.",
        label: Some(MetricLabel { name: "slot", values: &["0", "1"], is_open: true }),
        reading: Reading::GaugeByLabel(|state, _| {
            let slots = 0..state.config().slots.unwrap_or(0);
            let leads = |slot| state.leading_slot() == Some(slot);
            slots.map(|slot| (slot.to_string().into(), f64::from(u8::from(leads(slot))))).collect()
        }),
    },
    MetricDescription {
        name: "leaderrun_state",
        help: "What this candidate is doing: 1 for the current state, 0 for the others.",
        label: Some(MetricLabel { name: "state", values: Activity::LABELS, is_open: false }),
        reading: Reading::GaugeByLabel(|state, now| {
            let current = state.activity(now).label();
            Activity::LABELS.iter().map(|label| ((*label).into(), f64::from(u8::from(*label == current)))).collect()
        }),
    },
    MetricDescription {
        name: "leaderrun_last_success_age_seconds",
        help: "Time since the lock was last read, written or watched successfully, or since the start if it never was.",
        label: None,
        reading: Reading::Gauge(|state, now| Some(state.last_success_age(now).as_secs_f64())),
    },
    MetricDescription {
        name: "leaderrun_transitions_total",
        help: "Number of times the lock was acquired after the first acquisition, according to its record; absent until the record has been read. With --slots, the count of the slot in which this candidate leads.",
        label: None,
        reading: Reading::Counter(|state| state.transitions().map(u64::from)),
    },
    MetricDescription {
        name: "leaderrun_renewals_total",
        help: "Renewals sent, by result.",
        label: Some(MetricLabel { name: "result", values: RENEWAL_RESULTS, is_open: false }),
        reading: Reading::CounterByLabel(|state| &state.counters().renewals),
    },
    MetricDescription {
        name: "leaderrun_renewal_duration_seconds",
        help: "Time from sending a renewal until it got a response, failed or timed out.",
        label: None,
        reading: Reading::Histogram(|state| &state.counters().renewal_duration),
    },
    MetricDescription {
        name: "leaderrun_renewal_margin_seconds",
        help: "Time left, when a renewal succeeded, before the command would have been stopped. The buckets are tenths of the renew deadline.",
        label: None,
        reading: Reading::Histogram(|state| &state.counters().renewal_margin),
    },
    MetricDescription {
        name: "leaderrun_renewal_margin_minimum_seconds",
        help: "The shortest renewal margin so far; NaN before the first.",
        label: None,
        reading: Reading::Gauge(|state, _| {
            let minimum = state.counters().minimum_renewal_margin;
            Some(minimum.map_or(f64::NAN, |margin| margin.as_secs_f64()))
        }),
    },
    MetricDescription {
        name: "leaderrun_lease_duration_seconds",
        help: "Configured time for which a record is valid without a renewal.",
        label: None,
        reading: Reading::Gauge(|state, _| Some(state.config().lease_duration.as_secs_f64())),
    },
    MetricDescription {
        name: "leaderrun_renew_deadline_seconds",
        help: "Configured time after the last renewal at which the command is stopped.",
        label: None,
        reading: Reading::Gauge(|state, _| Some(state.config().renew_deadline.as_secs_f64())),
    },
    MetricDescription {
        name: "leaderrun_retry_period_seconds",
        help: "Configured time from one renewal to the next.",
        label: None,
        reading: Reading::Gauge(|state, _| Some(state.config().retry_period.as_secs_f64())),
    },
    MetricDescription {
        name: "leaderrun_watch_restarts_total",
        help: "Number of times the watch on the lock was restarted.",
        label: None,
        reading: Reading::Counter(|state| Some(state.counters().watch_restarts)),
    },
    MetricDescription {
        name: "leaderrun_command_starts_total",
        help: "Number of times the command was started.",
        label: None,
        reading: Reading::Counter(|state| Some(state.counters().command_starts)),
    },
    MetricDescription {
        name: "leaderrun_command_ends_total",
        help: "Number of times the command ended, by exit status as a shell reports it.",
        label: Some(MetricLabel { name: "status", values: &["0"], is_open: true }),
        reading: Reading::CounterByLabel(|state| &state.counters().command_ends),
    },
    MetricDescription {
        name: "leaderrun_losses_total",
        help: "Number of times leadership was lost, by reason.",
        label: Some(MetricLabel { name: "reason", values: LOSS_REASONS, is_open: false }),
        reading: Reading::CounterByLabel(|state| &state.counters().losses),
    },
    MetricDescription {
        name: "leaderrun_scheduling_delay_seconds",
        help: "How late the scheduler wakes a thread. Threads: \"elector\", the main thread of the elector process; \"election\", its thread that runs the election; \"supervisor\", the supervisor process. Deadlines are brought forward by this delay. Absent until measured.",
        label: Some(MetricLabel { name: "thread", values: &["elector", "election", "supervisor"], is_open: false }),
        reading: Reading::GaugeByLabel(|state, _| {
            state.scheduling_delays().map(|(thread, delay)| (thread.into(), delay.as_secs_f64())).collect()
        }),
    },
    MetricDescription {
        name: "leaderrun_kill_seconds",
        help: "Estimated time to kill the command, based on how many processes and threads it has and on the CPU limit; absent while below 75 ms.",
        label: None,
        reading: Reading::Gauge(|state, _| state.kill_time().map(|time| time.as_secs_f64())),
    },
];

impl MetricDescription {
    /// Returns the type of the metric.
    pub fn kind(&self) -> MetricKind {
        match self.reading {
            Reading::Counter(_) | Reading::CounterByLabel(_) => MetricKind::Counter,
            Reading::Gauge(_) | Reading::GaugeByLabel(_) => MetricKind::Gauge,
            Reading::Histogram(_) => MetricKind::Histogram,
        }
    }

    /// Writes the metric, unless it has no samples.
    fn write(&self, state: &CandidateState, now: Instant, text: &mut Exposition) {
        let Self { name, help, label, reading } = self;
        let kind = self.kind().to_string();
        let single = |value: Option<f64>| value.map(|value| (None, value)).into_iter().collect();
        let labeled = |value, sample: f64| (label.as_ref().map(|label| (label.name, value)), sample);
        let samples: Vec<Sample<'_>> = match reading {
            Reading::Histogram(read) => {
                text.begin(name, &kind, help);
                return text.histogram(name, read(state));
            }
            Reading::Counter(read) => single(read(state).map(|count| count as f64)),
            Reading::Gauge(read) => single(read(state, now)),
            Reading::CounterByLabel(read) => {
                read(state).iter().map(|(value, count)| labeled(value.into(), count as f64)).collect()
            }
            Reading::GaugeByLabel(read) => {
                read(state, now).into_iter().map(|(value, gauge)| labeled(value, gauge)).collect()
            }
        };
        if !samples.is_empty() {
            text.begin(name, &kind, help);
        }
        for (own_label, value) in samples {
            text.sample(name, own_label.as_ref().map(|(name, value)| (*name, &**value)), value);
        }
    }
}

/// Returns all metrics in the Prometheus text format.
pub fn exposition(state: &CandidateState, now: Instant) -> String {
    let mut text = Exposition::new(&[(LOCK_LABEL, &state.config().lock)]);
    METRICS.iter().for_each(|metric| metric.write(state, now, &mut text));
    text.finish()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_names_of_metrics_are_unique() {
        let names: BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), METRICS.len());
    }

    #[test]
    fn a_metric_has_a_label_if_and_only_if_it_is_read_by_label() {
        for metric in METRICS {
            let is_read_by_label = matches!(metric.reading, Reading::CounterByLabel(_) | Reading::GaugeByLabel(_));
            assert_eq!(is_read_by_label, metric.label.is_some(), "{}", metric.name);
        }
    }
}
