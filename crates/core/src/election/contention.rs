//! How the claims of many candidates are spread.
//!
//! All standbys see a release at the same instant. If all of a thousand claimed then, all but one of their writes would
//! be refused. So each draws a fraction of a spread that grows with their number, and waits for that share of it; the
//! first one's claim shows in the watches of the others before theirs is due.
//!
//! No candidate counts the others. The record carries an estimate, so that newcomers have it too, and each winner
//! corrects it: the least of n fractions is about 1/n.

use core::f64::consts::LN_2;
use core::time::Duration;

use super::random::{Fraction, Random};

/// Up to this many candidates claim at once.
pub const NO_SPREAD_MAX: u32 = 5;

/// Candidates that claim at once do not learn how many they are: at every eighth acquisition an estimate without a
/// spread is replaced by the least one that has a spread. Not at the first: the candidate that takes over a new lock
/// is alone as a rule.
const PROBE_INTERVAL: u32 = 8;
const FIRST_PROBE: u32 = 1;

/// The average distance between the claims of many: long enough for a claim to reach the watches of the others.
const MAX_CLAIM_DISTANCE: Duration = Duration::from_millis(20);

/// The claims of fewer are closer together: this far apart for each of them.
const CLAIM_DISTANCE_PER_CONTENDER: Duration = Duration::from_micros(250);

/// One fraction tells little: it multiplies an estimate by this at most.
const MAX_GROWTH: f64 = 16.0;

/// Below this an estimate grows by one at most: one of twelve that wait alone draws like the first of eight, and would
/// make the next hand-over wait for a crowd that is not there.
const SLOW_GROWTH_MAX: u32 = NO_SPREAD_MAX + 3;

/// What a refused claim says at least of the number, as a multiple of the estimate.
const REFUSED_GROWTH: f64 = 4.0;

/// Where the spread is shorter than messages are on their way, fractions say nothing: a small estimate is wrong when
/// its winner was refused lately and has missed this many acquisitions.
pub const MISSED_BY_MANY: u32 = 8;

/// Estimates from here on have a spread that is long enough for fractions.
const WIDELY_SPREAD: u32 = 32;

/// What a candidate has learnt about how many claim beside it.
#[derive(Clone, Debug, Hash)]
pub(super) struct ClaimHistory {
    /// How many candidates the next release wakes, by the last record that said so.
    contenders: u32,
    /// The share of the spread that this candidate waits; none for a lock that was free when the candidate came.
    fraction: Option<Fraction>,
    /// The number of the last acquisition that this candidate tried for in vain.
    refused: Option<u32>,
    /// How many acquisitions by others it has seen, up to [`MISSED_BY_MANY`].
    missed: u32,
}

impl Default for ClaimHistory {
    fn default() -> Self {
        Self { contenders: 1, fraction: None, refused: None, missed: 0 }
    }
}

impl ClaimHistory {
    /// Notes that a claim for this acquisition was refused.
    pub(super) fn note_refusal(&mut self, transitions: Option<u32>) {
        self.refused = transitions.or(self.refused);
    }

    /// Notes that the record has changed, since others acquired the lock `acquired` times.
    pub(super) fn note_change(
        &mut self,
        contenders: Option<u32>,
        acquired: u32,
        free_at_first: bool,
        random: &mut Random,
    ) {
        self.contenders = contenders.unwrap_or(self.contenders);
        self.missed = self.missed.saturating_add(acquired).min(MISSED_BY_MANY);
        self.fraction = (!free_at_first).then(|| random.share());
    }

    /// Returns how long this candidate leaves the lock to others that claim earlier, at most `longest`.
    pub(super) fn delay(&self, longest: Duration) -> Duration {
        spread(self.contenders, longest).mul_f64(self.fraction.unwrap_or_default().0)
    }

    /// Returns the estimate that this candidate leaves as the winner of an acquisition.
    pub(super) fn estimate_of_winner(&self, transitions: u32, has_waited: bool) -> u32 {
        let evidence = Evidence {
            fraction: self.fraction.filter(|_| has_waited).map(|share| share.0),
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

/// What a winner corrects the estimate by.
#[derive(Clone, Copy, Debug, Default)]
struct Evidence {
    /// The fraction of the spread that it drew, if it did.
    fraction: Option<f64>,
    /// How many acquisitions ago it was refused: 1 at the one before this.
    refused_ago: Option<u32>,
    /// How many acquisitions it has seen go to others.
    missed: u32,
}

/// Returns the estimate that a winner leaves, from the one it found and the acquisition's number.
fn corrected(contenders: u32, evidence: Evidence, transitions: u32) -> u32 {
    if contenders <= NO_SPREAD_MAX {
        return if transitions % PROBE_INTERVAL == FIRST_PROBE { NO_SPREAD_MAX + 1 } else { contenders };
    }
    let Evidence { fraction: Some(fraction), refused_ago, missed } = evidence else { return contenders };
    // Short spreads are uninformative for long, so that one refusal of several counts.
    let lately = if contenders < WIDELY_SPREAD { MISSED_BY_MANY } else { 1 };
    let is_one_of_many = missed >= MISSED_BY_MANY && refused_ago.is_some_and(|ago| ago <= lately);
    let found = f64::from(contenders);
    // Half of all winners among n draw less than this share of 1/n.
    let drawn = (LN_2 / fraction).clamp(1.0, found * MAX_GROWTH);
    let least = if is_one_of_many { found * REFUSED_GROWTH } else { 1.0 };
    let estimate = rounded_sqrt(found * drawn.max(least));
    if contenders < SLOW_GROWTH_MAX && !is_one_of_many { estimate.min(contenders + 1) } else { estimate }
}

/// Returns the square root, rounded: `f64::sqrt` needs the standard library.
fn rounded_sqrt(square: f64) -> u32 {
    let doubled = ((4.0 * square) as u64).isqrt();
    doubled.div_ceil(2) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(15);

    #[test]
    fn few_candidates_do_not_wait_for_each_other() {
        assert_eq!([0, 1, NO_SPREAD_MAX].map(|few| spread(few, LONG)), [Duration::ZERO; 3]);
    }

    #[test]
    fn many_candidates_spread_over_a_bounded_time() {
        assert_eq!(spread(100, LONG), Duration::from_secs(2));
        assert_eq!(spread(u32::MAX, LONG), LONG);
        assert!(spread(NO_SPREAD_MAX + 1, LONG) < Duration::from_millis(10));
    }

    #[test]
    fn two_candidates_hardly_ever_wait_for_a_crowd() {
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
    fn a_winner_that_was_refused_and_has_missed_many_is_one_of_many() {
        let learned = |missed, refused_ago, contenders| {
            corrected(contenders, Evidence { fraction: Some(0.9), refused_ago, missed }, 0)
        };
        assert_eq!(learned(MISSED_BY_MANY, Some(8), 6), 12);
        assert!(learned(MISSED_BY_MANY, None, 6) < 6, "nothing was in its way");
        assert!(learned(MISSED_BY_MANY - 1, Some(1), 6) < 6, "one of few");
        assert!(learned(MISSED_BY_MANY, Some(8), 100) < 100, "it is long ago");
        assert_eq!(learned(MISSED_BY_MANY, Some(1), 100), 200);
    }

    #[test]
    fn an_estimate_follows_the_number_up_and_down() {
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
