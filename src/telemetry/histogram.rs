//! Histograms of durations.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A histogram of durations that can be saved and restored.
#[derive(Debug, Serialize, Deserialize)]
pub struct Histogram {
    buckets: Vec<Bucket>,
    count: u64,
    sum: Duration,
}

/// The durations above the previous bucket's bound, up to and including the bound of this bucket.
#[derive(Debug, Serialize, Deserialize)]
struct Bucket {
    /// The upper bound, in seconds.
    upper_bound: f64,
    count: u64,
}

impl Histogram {
    /// Creates an empty histogram. The bounds, in seconds, must be ascending.
    pub fn new(upper_bounds: impl IntoIterator<Item = f64>) -> Self {
        let buckets = upper_bounds.into_iter().map(|upper_bound| Bucket { upper_bound, count: 0 }).collect();
        Self { buckets, count: 0, sum: Duration::ZERO }
    }

    /// Counts a duration.
    pub fn observe(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        if let Some(bucket) = self.buckets.iter_mut().find(|bucket| seconds <= bucket.upper_bound) {
            bucket.count += 1;
        }
        self.count += 1;
        self.sum += duration;
    }

    /// Returns each upper bound, in seconds, with the number of durations up to it.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        self.buckets.iter().scan(0, |total, bucket| {
            *total += bucket.count;
            Some((bucket.upper_bound, *total))
        })
    }

    /// Returns the number of durations.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Returns the sum of the durations.
    pub fn sum(&self) -> Duration {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cumulative_counts_include_all_durations_up_to_each_bound() {
        let mut histogram = Histogram::new([0.5, 1.0]);
        for milliseconds in [250, 500, 750, 5000] {
            histogram.observe(Duration::from_millis(milliseconds));
        }
        assert_eq!(histogram.cumulative().collect::<Vec<_>>(), [(0.5, 2), (1.0, 3)]);
        assert_eq!((histogram.count(), histogram.sum()), (4, Duration::from_millis(6500)));
    }
}
