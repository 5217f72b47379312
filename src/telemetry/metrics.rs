//! What is counted and measured.

use std::collections::BTreeMap;
use std::time::Duration;

use leaderrun_core::updates::{Loss, RenewalResult};
use serde::{Deserialize, Serialize};

use super::exposition::{Exposition, Histogram};

/// Upper bounds for the durations of requests, in seconds: those of Prometheus's own libraries.
const REQUEST_BOUNDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Into how many buckets a renew deadline is divided, for the time left of it.
const MARGIN_BUCKETS: u32 = 10;

const RESULTS: [&str; 5] = ["success", "conflict", "refused", "error", "timeout"];

const LOSSES: [&str; 4] = ["not_renewed", "taken", "supervisor_died", "supervisor_late"];

/// Everything that is counted and measured.
#[derive(Debug, Serialize, Deserialize)]
pub struct Metrics {
    renew_deadline: Duration,
    retry_period: Duration,
    renewals: [u64; RESULTS.len()],
    renewal_duration: Histogram,
    renewal_margin: Histogram,
    least_margin: Option<Duration>,
    watch_restarts: u64,
    command_starts: u64,
    command_ends: BTreeMap<String, u64>,
    losses: [u64; LOSSES.len()],
}

impl Metrics {
    /// Nothing counted yet.
    pub fn new(renew_deadline: Duration, retry_period: Duration) -> Self {
        let margins = (1..=MARGIN_BUCKETS).map(|part| renew_deadline * part / MARGIN_BUCKETS);
        Self {
            renew_deadline,
            retry_period,
            renewals: [0; RESULTS.len()],
            renewal_duration: Histogram::new(REQUEST_BOUNDS),
            // Whole milliseconds: a bound is a label, to be written in few digits.
            renewal_margin: Histogram::new(margins.map(|margin| margin.as_millis() as f64 / 1000.0)),
            least_margin: None,
            watch_restarts: 0,
            command_starts: 0,
            command_ends: BTreeMap::from([("0".to_owned(), 0)]),
            losses: [0; LOSSES.len()],
        }
    }

    /// A renewal was answered, or given up, after this long.
    pub fn renewal(&mut self, result: RenewalResult, took: Duration) {
        self.renewals[result as usize] += 1;
        self.renewal_duration.observe(took);
    }

    /// A renewal was known to have succeeded when this much time was left.
    pub fn renewed(&mut self, margin: Duration) {
        self.renewal_margin.observe(margin);
        self.least_margin = Some(self.least_margin.map_or(margin, |least| least.min(margin)));
    }

    /// The watch was opened again.
    pub fn watch_restarted(&mut self) {
        self.watch_restarts += 1;
    }

    /// The command was started.
    pub fn command_started(&mut self) {
        self.command_starts += 1;
    }

    /// The command has ended, with a status as a shell shows it.
    pub fn command_ended(&mut self, status: String) {
        *self.command_ends.entry(status).or_default() += 1;
    }

    /// The leadership was lost.
    pub fn lost(&mut self, loss: Loss) {
        self.losses[loss as usize] += 1;
    }

    /// Everything as Prometheus reads it. `name` is the lock's; nothing is said of transitions that are
    /// not known: zero would look like a lock that was made anew.
    pub fn text(&self, name: &str, leading: bool, transitions: Option<u32>) -> String {
        let mut text = Exposition::new(name);
        text.gauge(
            "leader_election_master_status",
            "Whether this candidate leads: 1 while its command may be alive, 0 while it waits.",
            f64::from(u8::from(leading)),
        );
        if let Some(transitions) = transitions {
            text.counter(
                "leaderrun_transitions_total",
                "How often the lock was acquired after somebody else had held it, by its record as last seen.",
                transitions.into(),
            );
        }
        text.counters(
            "leaderrun_renewals_total",
            "Renewals that were sent, by how they were answered.",
            "result",
            RESULTS.into_iter().zip(self.renewals),
        );
        text.histogram(
            "leaderrun_renewal_duration_seconds",
            "Time from the sending of a renewal to its answer, or until it was given up.",
            &self.renewal_duration,
        );
        text.histogram(
            "leaderrun_renewal_margin_seconds",
            "Time that was left before the stop of the command when a renewal had succeeded.",
            &self.renewal_margin,
        );
        text.gauge(
            "leaderrun_renewal_margin_minimum_seconds",
            "The least time that was ever left when a renewal had succeeded; NaN before the first.",
            self.least_margin.map_or(f64::NAN, |least| least.as_secs_f64()),
        );
        text.gauge(
            "leaderrun_renew_deadline_seconds",
            "Time from the last renewal to the stop of the command, as configured.",
            self.renew_deadline.as_secs_f64(),
        );
        text.gauge(
            "leaderrun_retry_period_seconds",
            "Time from one renewal to the next, as configured.",
            self.retry_period.as_secs_f64(),
        );
        text.counter(
            "leaderrun_watch_restarts_total",
            "How often the watch of the lock was opened again.",
            self.watch_restarts,
        );
        text.counter("leaderrun_command_starts_total", "How often the command was started.", self.command_starts);
        text.counters(
            "leaderrun_command_ends_total",
            "How often the command ended, by its exit status as a shell shows it.",
            "status",
            self.command_ends.iter().map(|(status, count)| (status.as_str(), *count)),
        );
        text.counters(
            "leaderrun_losses_total",
            "How often the leadership was lost, by the reason.",
            "reason",
            LOSSES.into_iter().zip(self.losses),
        );
        text.finish()
    }
}
