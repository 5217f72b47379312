//! How many candidates a release wakes, and how they spread their claims.
//!
//! All that wait see a release at the same instant. If all of a thousand claimed then, all but one of
//! their writes would be refused. So each draws a fraction of a spread that grows with their number, and
//! waits for that share of it; the first one's claim shows in the watches of the others before theirs is due.
//!
//! Nobody counts them. The record carries an estimate, so that newcomers have it too, and each winner
//! corrects it: the least of n fractions is about 1/n.

use core::f64::consts::LN_2;
use core::time::Duration;

/// Up to this many claim at once.
pub const FEW: u32 = 5;

/// Those that claim at once do not learn how many they are: at every eighth acquisition an estimate of
/// few is replaced by the least one that makes them spread. Not at the first: one that takes over a new
/// lease is alone as a rule.
const PROBED_EVERY: u32 = 8;
const FIRST_PROBE: u32 = 1;

/// How far apart the claims of many are on average: long enough for a claim to reach the watches of
/// the others.
const APART: Duration = Duration::from_millis(20);

/// The claims of fewer are closer together: this far apart for each of them.
const APART_PER_CONTENDER: Duration = Duration::from_micros(250);

/// One fraction tells little: it makes an estimate grow at most this many times.
const LARGEST_STEP: f64 = 16.0;

/// And below this at most by one: one of twelve that wait alone draws like the first of eight, and would make
/// the next hand-over wait for a crowd that is not there.
const CROWD: u32 = FEW + 3;

/// What a refused claim says at least of the number, as a multiple of the estimate.
const CROWDED_STEP: f64 = 4.0;

/// Where the spread is shorter than messages are on their way, fractions say nothing: an estimate of few is
/// wrong when its winner was refused lately and has missed this many acquisitions.
pub const MISSED_BY_MANY: u32 = 8;

/// Estimates from here on have a spread that is long enough for fractions.
const WIDELY_SPREAD: u32 = 32;

/// Over how long this many contenders spread their claims, at most `longest`.
pub fn spread(contenders: u32, longest: Duration) -> Duration {
    if contenders <= FEW {
        return Duration::ZERO;
    }
    let apart = APART.min(APART_PER_CONTENDER * contenders);
    apart.saturating_mul(contenders).min(longest)
}

/// What a winner has to go by.
#[derive(Clone, Copy, Debug, Default)]
pub struct Experience {
    /// The fraction of the spread that it drew, if it did.
    pub fraction: Option<f64>,
    /// How many acquisitions ago it was refused: 1 at the one before this.
    pub refused_ago: Option<u32>,
    /// How many it has seen go to others.
    pub missed: u32,
}

/// The estimate that a winner leaves, from the one it found and the acquisition's number.
pub fn corrected(contenders: u32, experience: Experience, transitions: u32) -> u32 {
    if contenders <= FEW {
        return if transitions % PROBED_EVERY == FIRST_PROBE { FEW + 1 } else { contenders };
    }
    let Experience { fraction: Some(fraction), refused_ago, missed } = experience else { return contenders };
    // Short spreads are uninformative for long, so that one refusal of several counts.
    let lately = if contenders < WIDELY_SPREAD { MISSED_BY_MANY } else { 1 };
    let is_one_of_many = missed >= MISSED_BY_MANY && refused_ago.is_some_and(|ago| ago <= lately);
    let found = f64::from(contenders);
    // Half of all winners among n draw less than this share of 1/n.
    let drawn = (LN_2 / fraction).clamp(1.0, found * LARGEST_STEP);
    let least = if is_one_of_many { found * CROWDED_STEP } else { 1.0 };
    let estimate = rounded_sqrt(found * drawn.max(least));
    if contenders < CROWD && !is_one_of_many { estimate.min(contenders + 1) } else { estimate }
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
    fn few_do_not_wait_for_each_other() {
        assert_eq!([0, 1, FEW].map(|few| spread(few, LONG)), [Duration::ZERO; 3]);
    }

    #[test]
    fn many_spread_over_a_bounded_time() {
        assert_eq!(spread(100, LONG), Duration::from_secs(2));
        assert_eq!(spread(u32::MAX, LONG), LONG);
        assert!(spread(FEW + 1, LONG) < Duration::from_millis(10));
    }

    #[test]
    fn two_candidates_hardly_ever_wait_for_a_crowd() {
        let mut random = fastrand::Rng::with_seed(1);
        let (mut estimate, mut waits) = (1, Vec::new());
        for transitions in 0..100_000 {
            let fraction = random.f64();
            waits.push(spread(estimate, LONG).mul_f64(fraction));
            let experience = Experience { fraction: Some(fraction), ..Experience::default() };
            estimate = corrected(estimate, experience, transitions);
        }
        waits.sort();
        assert_eq!(waits[80_000], Duration::ZERO);
        assert!(waits[99_000] < Duration::from_millis(9), "{:?}", waits[99_000]);
        assert!(waits[99_900] < Duration::from_millis(16), "{:?}", waits[99_900]);
    }

    #[test]
    fn who_was_refused_and_has_missed_many_is_one_of_many() {
        let learned = |missed, refused_ago, contenders| {
            corrected(contenders, Experience { fraction: Some(0.9), refused_ago, missed }, 0)
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
                let experience = Experience { fraction: Some(least), ..Experience::default() };
                estimate = corrected(estimate, experience, transitions);
                estimates.push(estimate);
            }
            estimates.drain(..30);
            estimates.sort();
            let median = f64::from(estimates[estimates.len() / 2]);
            let truth = f64::from(contenders);
            assert!(median > truth / 3.0 && median < (truth * 3.0).max(f64::from(FEW)), "{median} for {contenders}");
        }
    }
}
