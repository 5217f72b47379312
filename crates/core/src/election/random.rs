//! A random number generator whose state can be hashed. A model checker can therefore recognize states it has visited.

use core::hash::{Hash, Hasher};

/// A random number generator.
#[derive(Clone, Debug)]
pub struct Random(fastrand::Rng);

impl Random {
    /// Creates a generator from a seed.
    pub fn with_seed(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// Returns a uniformly distributed fraction.
    pub fn fraction(&mut self) -> Fraction {
        Fraction(self.0.f64())
    }
}

impl Hash for Random {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.get_seed().hash(state);
    }
}

/// A number that is at least zero and less than one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fraction(pub f64);

impl Hash for Fraction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}
