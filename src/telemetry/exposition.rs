//! The Prometheus text format, version 0.0.4.

use std::fmt::Write;

use super::histogram::Histogram;

/// The content type of the format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Metrics in the Prometheus text format.
#[derive(Debug)]
pub struct Exposition {
    text: String,
    /// The labels that all samples have.
    common_labels: String,
}

impl Exposition {
    /// Creates an exposition without metrics. All samples get `common_labels`, of which there must be at least one.
    pub fn new(common_labels: &[(&str, &str)]) -> Self {
        let labels: Vec<String> = common_labels.iter().map(|(name, value)| label(name, value)).collect();
        Self { text: String::new(), common_labels: labels.join(",") }
    }

    /// Returns the finished text.
    pub fn finish(self) -> String {
        self.text
    }

    /// Begins a metric of this type (`kind`). Its samples must be added next.
    pub fn begin(&mut self, metric: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP {metric} {help}\n# TYPE {metric} {kind}");
    }

    /// Adds a sample with this name, and with `own_label` in addition to the common labels.
    pub fn sample(&mut self, name: &str, own_label: Option<(&str, &str)>, value: f64) {
        let _ = write!(self.text, "{name}{{{}", self.common_labels);
        if let Some((label_name, label_value)) = own_label {
            let _ = write!(self.text, ",{}", label(label_name, label_value));
        }
        let _ = writeln!(self.text, "}} {value}");
    }

    /// Adds the samples of a histogram.
    pub fn histogram(&mut self, metric: &str, histogram: &Histogram) {
        let bucket = format!("{metric}_bucket");
        for (upper_bound, count) in histogram.cumulative() {
            self.sample(&bucket, Some(("le", &upper_bound.to_string())), count as f64);
        }
        self.sample(&bucket, Some(("le", "+Inf")), histogram.count() as f64);
        self.sample(&format!("{metric}_sum"), None, histogram.sum().as_secs_f64());
        self.sample(&format!("{metric}_count"), None, histogram.count() as f64);
    }
}

fn label(name: &str, value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("{name}=\"{value}\"")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_histogram_is_written_with_cumulative_counts() {
        let mut histogram = Histogram::new([0.5, 1.0]);
        for milliseconds in [250, 500, 750, 5000] {
            histogram.observe(Duration::from_millis(milliseconds));
        }
        let mut exposition = Exposition::new(&[("name", "default/job")]);
        exposition.begin("wait_seconds", "histogram", "Waits.");
        exposition.histogram("wait_seconds", &histogram);
        let expected = "\
# HELP wait_seconds Waits.
# TYPE wait_seconds histogram
wait_seconds_bucket{name=\"default/job\",le=\"0.5\"} 2
wait_seconds_bucket{name=\"default/job\",le=\"1\"} 3
wait_seconds_bucket{name=\"default/job\",le=\"+Inf\"} 4
wait_seconds_sum{name=\"default/job\"} 6.5
wait_seconds_count{name=\"default/job\"} 4
";
        assert_eq!(exposition.finish(), expected);
    }

    #[test]
    fn the_values_of_labels_are_escaped() {
        let mut exposition = Exposition::new(&[("name", "file:/tmp/a\"b\\c\nd")]);
        exposition.sample("up", None, 1.0);
        assert_eq!(exposition.finish(), "up{name=\"file:/tmp/a\\\"b\\\\c\\nd\"} 1\n");
    }
}
