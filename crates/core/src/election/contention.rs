//! Spreads the claims of many candidates over time.
//!
//! All standbys see a release at the same time. If a thousand standbys claimed the lock at once, all writes but one
//! would be refused. Therefore the claims are spread over a time that grows with the number of candidates: each
//! candidate draws a random fraction of that time as its delay. Most candidates see the first claim in their watch
//! before their own claim is due.
//!
//! A candidate does not know how many others there are. The record contains an estimate. Each candidate that acquires
//! the lock corrects the estimate with the fraction that it drew, because the smallest of n fractions is about 1/n.

use core::f64::consts::LN_2;
use core::time::Duration;

use super::random::{Fraction, Random};

/// Up to this many candidates claim without a delay.
pub const NO_SPREAD_MAX: u32 = 5;

/// If the estimate is so small that there is no spread, every eighth acquisition replaces it with the smallest estimate
/// that has a spread, because without a spread an acquisition shows nothing about the number of candidates.
const PROBE_INTERVAL: u32 = 8;

/// The first acquisition at which the estimate is replaced. It is not the acquisition that creates the lock (number 0),
/// because the candidate that creates the lock is usually alone.
const FIRST_PROBE: u32 = 1;

/// The longest average time between two claims. It is long enough for a claim to reach the watches of the others.
const MAX_CLAIM_DISTANCE: Duration = Duration::from_millis(20);

/// The average time between two claims grows by this for each contender, up to [`MAX_CLAIM_DISTANCE`].
const CLAIM_DISTANCE_PER_CONTENDER: Duration = Duration::from_micros(250);

/// The largest number of contenders that a single fraction may indicate, as a multiple of the previous estimate,
/// because one fraction is only a small sample. The new estimate is the geometric mean of both, so it grows at most by
/// the square root of this factor.
const MAX_GROWTH: f64 = 16.0;

/// Below this, an estimate grows by at most one, unless a refusal and missed acquisitions show that it is too low. In
/// one of twelve cases, a candidate that is alone draws a fraction that is as small as the typical smallest of eight. A
/// larger estimate would then delay the next hand-over although there are no contenders.
const SLOW_GROWTH_MAX: u32 = NO_SPREAD_MAX + 3;

/// The smallest number of contenders that a refused claim and [`MANY_MISSED`] acquisitions by others indicate, as a
/// multiple of the estimate.
const REFUSED_GROWTH: f64 = 4.0;

/// How many acquisitions by others show, together with a recent refusal, that the estimate is too low. The fractions do
/// not show it if the estimate is small, because its spread is then shorter than the latency of a message.
pub const MANY_MISSED: u32 = 8;

/// From this estimate on, the spread is so long that the fractions are good evidence, so only a refusal at the previous
/// acquisition counts.
const WIDE_SPREAD_MIN: u32 = 32;

/// The observations of one candidate that show how many candidates claim the same lock.
#[derive(Clone, Debug, Hash)]
pub(super) struct ClaimHistory {
    /// The estimated number of candidates that the next release wakes, from the last record that contains it.
    contenders: u32,
    /// The fraction of the spread that this candidate waits; `None` if the lock was free when it was first read, until
    /// the record changes.
    fraction: Option<Fraction>,
    /// The `leaseTransitions` of the last claim of this candidate that was refused.
    refused: Option<u32>,
    /// The number of acquisitions by others that this candidate has seen, up to [`MANY_MISSED`].
    missed: u32,
}

impl Default for ClaimHistory {
    fn default() -> Self {
        Self { contenders: 1, fraction: None, refused: None, missed: 0 }
    }
}

impl ClaimHistory {
    /// Records that a request was refused with a conflict. `transitions` is the number of the acquisition that the
    /// request claimed; `None` if it was not a claim.
    pub(super) fn note_refusal(&mut self, transitions: Option<u32>) {
        self.refused = transitions.or(self.refused);
    }

    /// Records a change of the record. `acquisitions` is the number of acquisitions by others since the previous
    /// version, and `free_at_first` states whether this is the first read and the lock is free.
    pub(super) fn note_change(
        &mut self,
        contenders: Option<u32>,
        acquisitions: u32,
        free_at_first: bool,
        random: &mut Random,
    ) {
        self.contenders = contenders.unwrap_or(self.contenders);
        self.missed = self.missed.saturating_add(acquisitions).min(MANY_MISSED);
        self.fraction = (!free_at_first).then(|| random.fraction());
    }

    /// Returns how long this candidate delays its claim, at most `longest`.
    pub(super) fn delay(&self, longest: Duration) -> Duration {
        spread(self.contenders, longest).mul_f64(self.fraction.unwrap_or_default().0)
    }

    /// Returns the estimate that this candidate writes with its claim for the acquisition with this number.
    /// `has_waited` states whether the claim was delayed by the candidate's fraction of the spread.
    pub(super) fn corrected_estimate(&self, transitions: u32, has_waited: bool) -> u32 {
        let evidence = Evidence {
            fraction: self.fraction.filter(|_| has_waited).map(|fraction| fraction.0),
            refused_ago: self.refused.map(|refused| transitions.saturating_sub(refused)),
            missed: self.missed,
        };
        corrected(self.contenders, evidence, transitions)
    }
}

/// Returns the time over which this many contenders spread their claims, at most `longest`.
fn spread(contenders: u32, longest: Duration) -> Duration {
    if contenders <= NO_SPREAD_MAX {
        return Duration::ZERO;
    }
    let distance = MAX_CLAIM_DISTANCE.min(CLAIM_DISTANCE_PER_CONTENDER * contenders);
    distance.saturating_mul(contenders).min(longest)
}

/// The observations with which a candidate that acquires the lock corrects the estimate.
#[derive(Clone, Copy, Debug, Default)]
struct Evidence {
    /// The fraction of the spread that the candidate waited; `None` if it did not wait.
    fraction: Option<f64>,
    /// How many acquisitions ago a claim of the candidate was refused; 1 for the previous acquisition.
    refused_ago: Option<u32>,
    /// The number of acquisitions by others that the candidate has seen, up to [`MANY_MISSED`].
    missed: u32,
}

/// Returns the corrected estimate, given the estimate in the record, the evidence, and the number of the acquisition.
fn corrected(contenders: u32, evidence: Evidence, transitions: u32) -> u32 {
    if contenders <= NO_SPREAD_MAX {
        return if transitions % PROBE_INTERVAL == FIRST_PROBE { NO_SPREAD_MAX + 1 } else { contenders };
    }
    let Evidence { fraction: Some(fraction), refused_ago, missed } = evidence else { return contenders };
    // With a short spread there is little evidence, so an older refusal counts as well.
    let max_refused_ago = if contenders < WIDE_SPREAD_MIN { MANY_MISSED } else { 1 };
    let is_one_of_many = missed >= MANY_MISSED && refused_ago.is_some_and(|ago| ago <= max_refused_ago);
    let previous = f64::from(contenders);
    // The median of the smallest of n fractions is about LN_2/n.
    let indicated_by_fraction = (LN_2 / fraction).clamp(1.0, previous * MAX_GROWTH);
    let indicated_by_refusal = if is_one_of_many { previous * REFUSED_GROWTH } else { 1.0 };
    // The geometric mean of the previous estimate and of what the evidence indicates.
    let estimate = rounded_sqrt(previous * indicated_by_fraction.max(indicated_by_refusal));
    if contenders < SLOW_GROWTH_MAX && !is_one_of_many { estimate.min(contenders + 1) } else { estimate }
}

/// Returns the rounded square root. `f64::sqrt` is not used, because it needs the standard library.
fn rounded_sqrt(square: f64) -> u32 {
    let doubled = ((4.0 * square) as u64).isqrt();
    doubled.div_ceil(2) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(15);

    #[test]
    fn few_candidates_claim_without_a_delay() {
        assert_eq!([0, 1, NO_SPREAD_MAX].map(|few| spread(few, LONG)), [Duration::ZERO; 3]);
    }

    #[test]
    fn the_claims_of_many_candidates_are_spread_over_a_limited_time() {
        assert_eq!(spread(100, LONG), Duration::from_secs(2));
        assert_eq!(spread(u32::MAX, LONG), LONG);
        assert!(spread(NO_SPREAD_MAX + 1, LONG) < Duration::from_millis(10));
    }

    #[test]
    fn two_candidates_are_rarely_delayed() {
        let mut random = fastrand::Rng::with_seed(1);
        let (mut estimate, mut waits) = (1, Vec::new());
        for transitions in 0..100_000 {
            let fraction = random.f64();
            waits.push(spread(estimate, LONG).mul_f64(fraction));
            let evidence = Evidence { fraction: Some(fraction), ..Evidence::default() };
            estimate = corrected(estimate, evidence, transitions);
        }
        waits.sort();
        assert_eq!(waits[80_000], Duration::ZERO);
        assert!(waits[99_000] < Duration::from_millis(9), "{:?}", waits[99_000]);
        assert!(waits[99_900] < Duration::from_millis(16), "{:?}", waits[99_900]);
    }

    #[test]
    fn a_recent_refusal_and_many_missed_acquisitions_raise_a_small_estimate() {
        let estimate_after = |missed, refused_ago, contenders| {
            corrected(contenders, Evidence { fraction: Some(0.9), refused_ago, missed }, 0)
        };
        assert_eq!(estimate_after(MANY_MISSED, Some(8), 6), 12);
        assert!(estimate_after(MANY_MISSED, None, 6) < 6, "without a refusal");
        assert!(estimate_after(MANY_MISSED - 1, Some(1), 6) < 6, "after few missed acquisitions");
        assert!(estimate_after(MANY_MISSED, Some(8), 100) < 100, "the refusal is too old for a long spread");
        assert_eq!(estimate_after(MANY_MISSED, Some(1), 100), 200);
    }

    #[test]
    fn the_estimate_follows_the_number_of_candidates_up_and_down() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut estimate = 1;
        for contenders in [1000, 2, 10_000, 1] {
            let mut estimates = Vec::new();
            for transitions in 0..200 {
                let least = (0..contenders).map(|_| random.f64()).fold(1.0, f64::min);
                let evidence = Evidence { fraction: Some(least), ..Evidence::default() };
                estimate = corrected(estimate, evidence, transitions);
                estimates.push(estimate);
            }
            estimates.drain(..30);
            estimates.sort();
            let median = f64::from(estimates[estimates.len() / 2]);
            let truth = f64::from(contenders);
            assert!(
                median > truth / 3.0 && median < (truth * 3.0).max(f64::from(NO_SPREAD_MAX)),
                "{median} for {contenders}"
            );
        }
    }
}
