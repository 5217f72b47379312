//! Spreads the claims of many candidates over time.
//!
//! All standbys see a release at the same time. If a thousand standbys claimed the lock at once, all writes but one
//! would fail with a conflict. Therefore the claims are spread over a time that grows with the number of candidates:
//! each candidate draws a random fraction of that time as its delay. Most candidates see the first claim in their watch
//! before their own claim is due.
//!
//! A candidate does not know how many others there are. The record contains an estimate of the number of contenders,
//! which are the candidates that the next release wakes. The candidate that acquires the lock has usually drawn the
//! smallest fraction, and the smallest of n fractions is about 1/n. It corrects the estimate accordingly.

use core::f64::consts::LN_2;
use core::time::Duration;

use super::random::{Fraction, Random};

/// Up to this many candidates claim without a delay.
pub const NO_SPREAD_MAX: u32 = 5;

/// While the estimate is so small that claims are not spread, an acquisition shows nothing about the number of
/// candidates. Therefore every eighth acquisition replaces such an estimate with the smallest one that spreads claims.
const PROBE_INTERVAL: u32 = 8;

/// The number of the first acquisition that replaces the estimate. Acquisition 0 does not replace it, because it
/// creates the lock, and the candidate that creates the lock is usually alone.
const FIRST_PROBE: u32 = 1;

/// The longest average time between two claims. It is long enough for a claim to reach the watches of the others.
const MAX_CLAIM_INTERVAL: Duration = Duration::from_millis(20);

/// The average time between two claims grows by this for each contender, up to [`MAX_CLAIM_INTERVAL`].
const CLAIM_INTERVAL_PER_CONTENDER: Duration = Duration::from_micros(250);

/// The maximum number of contenders that a single fraction may indicate, as a multiple of the previous estimate. The
/// number is limited because one fraction is only a small sample. The new estimate is the geometric mean of this number
/// and the previous estimate, so it grows at most by the square root of this factor.
const MAX_INDICATED_FACTOR: f64 = 16.0;

/// Estimates below this, but above [`NO_SPREAD_MAX`], grow by at most one per acquisition, unless a conflict and
/// acquisitions by others show that they are too low. One time in twelve, a lone candidate draws a fraction as small as
/// the median minimum of eight draws. Faster growth would then delay the next hand-over although there are no other
/// candidates.
const SLOW_GROWTH_LIMIT: u32 = NO_SPREAD_MAX + 3;

/// The least number of contenders that a recent conflict and [`MANY_ACQUISITIONS`] acquisitions by others indicate, as
/// a multiple of the estimate.
const CONFLICT_FACTOR: f64 = 4.0;

/// The number of acquisitions by others that, together with a recent conflict, shows that the estimate is too low.
/// Fractions do not show it if the estimate is small, because the spread is then shorter than the latency of a message.
pub const MANY_ACQUISITIONS: u32 = 8;

/// At or above this estimate, the spread is long enough for fractions to be informative.
const WIDE_SPREAD_MIN: u32 = 32;

/// The largest age of a conflict that counts as recent if the estimate is at least [`WIDE_SPREAD_MIN`]. The age is
/// counted in acquisitions: the age of a conflict at the previous acquisition is 1.
const MAX_CONFLICT_AGE_WIDE: u32 = 1;

/// The largest age of a conflict that counts as recent if the estimate is less than [`WIDE_SPREAD_MIN`]. Fractions then
/// show little, so older conflicts also count.
const MAX_CONFLICT_AGE_NARROW: u32 = 8;

/// The observations of one candidate that show how many candidates claim the same lock.
#[derive(Clone, Debug, Hash)]
pub(super) struct ClaimHistory {
    /// The estimated number of candidates that the next release wakes, from the last record that contains it.
    contenders: u32,
    /// The fraction of the spread that this candidate waits; `None` if the lock was free when it was first read, until
    /// the record changes.
    fraction: Option<Fraction>,
    /// The number of the last acquisition for which this candidate's claim failed with a conflict.
    conflict_at: Option<u32>,
    /// The number of acquisitions by others that this candidate has seen, up to [`MANY_ACQUISITIONS`].
    acquisitions_by_others: u32,
}

impl Default for ClaimHistory {
    fn default() -> Self {
        Self { contenders: 1, fraction: None, conflict_at: None, acquisitions_by_others: 0 }
    }
}

impl ClaimHistory {
    /// Records that the claim for the acquisition with this number failed with a conflict.
    pub(super) fn note_conflict(&mut self, acquisition: u32) {
        self.conflict_at = Some(acquisition);
    }

    /// Records a change of the record. `acquisitions` is the number of acquisitions since the previous version, and
    /// `is_first_and_free` states whether this is the first version that is read and the lock is free.
    pub(super) fn note_change(
        &mut self,
        contenders: Option<u32>,
        acquisitions: u32,
        is_first_and_free: bool,
        random: &mut Random,
    ) {
        self.contenders = contenders.unwrap_or(self.contenders);
        self.acquisitions_by_others = self.acquisitions_by_others.saturating_add(acquisitions).min(MANY_ACQUISITIONS);
        self.fraction = (!is_first_and_free).then(|| random.fraction());
    }

    /// Returns how long this candidate delays its claim, at most `longest`.
    pub(super) fn delay(&self, longest: Duration) -> Duration {
        spread(self.contenders, longest).mul_f64(self.fraction.unwrap_or_default().0)
    }

    /// Returns the estimate that this candidate writes with its claim for the acquisition with this number.
    /// `has_waited` states whether the claim was delayed by the candidate's fraction of the spread.
    pub(super) fn corrected_estimate(&self, acquisition: u32, has_waited: bool) -> u32 {
        let evidence = Evidence {
            fraction: self.fraction.filter(|_| has_waited).map(|fraction| fraction.0),
            conflict_age: self.conflict_at.map(|conflict_at| acquisition.saturating_sub(conflict_at)),
            acquisitions_by_others: self.acquisitions_by_others,
        };
        corrected(self.contenders, evidence, acquisition)
    }
}

/// Returns the time over which this many contenders spread their claims, at most `longest`.
fn spread(contenders: u32, longest: Duration) -> Duration {
    if contenders <= NO_SPREAD_MAX {
        return Duration::ZERO;
    }
    let interval = MAX_CLAIM_INTERVAL.min(CLAIM_INTERVAL_PER_CONTENDER * contenders);
    interval.saturating_mul(contenders).min(longest)
}

/// The observations with which a candidate that acquires the lock corrects the estimate.
#[derive(Clone, Copy, Debug, Default)]
struct Evidence {
    /// The fraction of the spread that the candidate waited; `None` if it did not wait.
    fraction: Option<f64>,
    /// The age of the candidate's last conflict, in acquisitions; 1 for a conflict at the previous acquisition.
    conflict_age: Option<u32>,
    /// The number of acquisitions by others that the candidate has seen, up to [`MANY_ACQUISITIONS`].
    acquisitions_by_others: u32,
}

/// Returns the corrected estimate, given the estimate in the record, the evidence, and the number of the acquisition.
fn corrected(contenders: u32, evidence: Evidence, acquisition: u32) -> u32 {
    if contenders <= NO_SPREAD_MAX {
        return if acquisition % PROBE_INTERVAL == FIRST_PROBE { NO_SPREAD_MAX + 1 } else { contenders };
    }
    let Evidence { fraction: Some(fraction), conflict_age, acquisitions_by_others } = evidence else {
        return contenders;
    };
    let max_age = if contenders < WIDE_SPREAD_MIN { MAX_CONFLICT_AGE_NARROW } else { MAX_CONFLICT_AGE_WIDE };
    let is_one_of_many = acquisitions_by_others >= MANY_ACQUISITIONS && conflict_age.is_some_and(|age| age <= max_age);
    let previous = f64::from(contenders);
    // The median of the smallest of n fractions is about LN_2/n.
    let indicated_by_fraction = (LN_2 / fraction).clamp(1.0, previous * MAX_INDICATED_FACTOR);
    let indicated_by_conflict = if is_one_of_many { previous * CONFLICT_FACTOR } else { 1.0 };
    // The geometric mean of the previous estimate and the number that the evidence indicates.
    let estimate = rounded_sqrt(previous * indicated_by_fraction.max(indicated_by_conflict));
    if contenders < SLOW_GROWTH_LIMIT && !is_one_of_many { estimate.min(contenders + 1) } else { estimate }
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
    fn up_to_five_candidates_claim_without_a_delay() {
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
        // One of the two leads, so a release wakes only the other one.
        for acquisition in 0..100_000 {
            let fraction = random.f64();
            waits.push(spread(estimate, LONG).mul_f64(fraction));
            let evidence = Evidence { fraction: Some(fraction), ..Evidence::default() };
            estimate = corrected(estimate, evidence, acquisition);
        }
        waits.sort();
        assert_eq!(waits[80_000], Duration::ZERO);
        assert!(waits[99_000] < Duration::from_millis(9), "{:?}", waits[99_000]);
        assert!(waits[99_900] < Duration::from_millis(16), "{:?}", waits[99_900]);
    }

    #[test]
    fn a_recent_conflict_and_many_acquisitions_by_others_raise_the_estimate() {
        let estimate_after = |acquisitions_by_others, conflict_age, contenders| {
            corrected(contenders, Evidence { fraction: Some(0.9), conflict_age, acquisitions_by_others }, 0)
        };
        assert_eq!(estimate_after(MANY_ACQUISITIONS, Some(8), 6), 12);
        assert!(estimate_after(MANY_ACQUISITIONS, None, 6) < 6, "without a conflict");
        assert!(estimate_after(MANY_ACQUISITIONS - 1, Some(1), 6) < 6, "after too few acquisitions by others");
        assert!(estimate_after(MANY_ACQUISITIONS, Some(8), 100) < 100, "the conflict is too old for a long spread");
        assert_eq!(estimate_after(MANY_ACQUISITIONS, Some(1), 100), 200);
    }

    #[test]
    fn the_estimate_follows_the_number_of_candidates_up_and_down() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut estimate = 1;
        for contenders in [1000, 2, 10_000, 1] {
            let mut estimates = Vec::new();
            for acquisition in 0..200 {
                let least = (0..contenders).map(|_| random.f64()).fold(1.0, f64::min);
                let evidence = Evidence { fraction: Some(least), ..Evidence::default() };
                estimate = corrected(estimate, evidence, acquisition);
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
