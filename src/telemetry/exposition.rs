//! The Prometheus text format, version 0.0.4.

use std::fmt::Write;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The content type of the format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Durations, counted by upper bounds.
#[derive(Debug, Serialize, Deserialize)]
pub struct Histogram {
    /// Each bound, in seconds, and what is within it but not within the one before.
    buckets: Vec<(f64, u64)>,
    count: u64,
    sum: Duration,
}

impl Histogram {
    /// Nothing counted yet; the bounds ascend.
    pub fn new(bounds: impl IntoIterator<Item = f64>) -> Self {
        let buckets = bounds.into_iter().map(|bound| (bound, 0)).collect();
        Self { buckets, count: 0, sum: Duration::ZERO }
    }

    pub fn observe(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        if let Some((_, count)) = self.buckets.iter_mut().find(|(bound, _)| seconds <= *bound) {
            *count += 1;
        }
        self.count += 1;
        self.sum += duration;
    }
}

/// A text that is being written. Every sample bears the label `name`.
#[derive(Debug)]
pub struct Exposition {
    text: String,
    name: String,
}

impl Exposition {
    pub fn new(name: &str) -> Self {
        Self { text: String::new(), name: escaped(name) }
    }

    pub fn finish(self) -> String {
        self.text
    }

    pub fn gauge(&mut self, metric: &str, help: &str, value: f64) {
        self.head(metric, "gauge", help);
        self.sample(metric, None, value);
    }

    pub fn counter(&mut self, metric: &str, help: &str, value: u64) {
        self.head(metric, "counter", help);
        self.sample(metric, None, value as f64);
    }

    /// One counter for each value of a label.
    pub fn counters<'a>(
        &mut self,
        metric: &str,
        help: &str,
        label: &str,
        counts: impl IntoIterator<Item = (&'a str, u64)>,
    ) {
        self.head(metric, "counter", help);
        for (value, count) in counts {
            self.sample(metric, Some((label, value)), count as f64);
        }
    }

    pub fn histogram(&mut self, metric: &str, help: &str, histogram: &Histogram) {
        self.head(metric, "histogram", help);
        let bucket = format!("{metric}_bucket");
        let mut within = 0;
        for (bound, count) in &histogram.buckets {
            within += count;
            self.sample(&bucket, Some(("le", &bound.to_string())), within as f64);
        }
        self.sample(&bucket, Some(("le", "+Inf")), histogram.count as f64);
        self.sample(&format!("{metric}_sum"), None, histogram.sum.as_secs_f64());
        self.sample(&format!("{metric}_count"), None, histogram.count as f64);
    }

    fn head(&mut self, metric: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP {metric} {help}\n# TYPE {metric} {kind}");
    }

    fn sample(&mut self, metric: &str, label: Option<(&str, &str)>, value: f64) {
        let _ = write!(self.text, "{metric}{{name=\"{}\"", self.name);
        if let Some((label, of)) = label {
            let _ = write!(self.text, ",{label}=\"{}\"", escaped(of));
        }
        let _ = writeln!(self.text, "}} {value}");
    }
}

/// A label's value as it stands between quotes.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_what_is_within_each_bound() {
        let mut histogram = Histogram::new([0.5, 1.0]);
        for milliseconds in [250, 500, 750, 5000] {
            histogram.observe(Duration::from_millis(milliseconds));
        }
        let mut text = Exposition::new("default/job");
        text.histogram("wait_seconds", "Waits.", &histogram);
        let expected = "\
# HELP wait_seconds Waits.
# TYPE wait_seconds histogram
wait_seconds_bucket{name=\"default/job\",le=\"0.5\"} 2
wait_seconds_bucket{name=\"default/job\",le=\"1\"} 3
wait_seconds_bucket{name=\"default/job\",le=\"+Inf\"} 4
wait_seconds_sum{name=\"default/job\"} 6.5
wait_seconds_count{name=\"default/job\"} 4
";
        assert_eq!(text.finish(), expected);
    }

    #[test]
    fn a_name_cannot_leave_its_quotes() {
        let mut text = Exposition::new("file:/tmp/a\"b\\c\nd");
        text.gauge("up", "Up.", 1.0);
        assert_eq!(text.finish().lines().last(), Some("up{name=\"file:/tmp/a\\\"b\\\\c\\nd\"} 1"));
    }
}
