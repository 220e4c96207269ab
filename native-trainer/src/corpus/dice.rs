//! The generator's randomness: ChaCha8, one stream per kind of text, drawn in a way that no library release changes.
//!
//! Integers come from the high bits of a 64-bit word times the bound (Lemire, "Fast random integer generation in an
//! interval", 2019, without the rejection step: the bias is below 2^-50 for the small bounds used here).

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A seeded source of choices.
#[derive(Debug, Clone)]
pub(crate) struct Dice(ChaCha8Rng);

impl Dice {
    /// The `stream`-th independent sequence of `seed`.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Self(rng)
    }

    /// A number in `0..bound`; 0 when `bound` is 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let wide = u128::from(self.0.next_u64()) * bound as u128;
        (wide >> 64) as usize
    }

    /// True in `percent` of 100 draws.
    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of `items`, or an empty text when there are none.
    pub(crate) fn pick<'a>(&mut self, items: &'a [String]) -> &'a str {
        let index = self.below(items.len());
        items.get(index).map_or("", String::as_str)
    }

    /// Shuffles in place (Fisher and Yates).
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}
