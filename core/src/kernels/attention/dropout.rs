//! Dropout of attention probabilities: a mask that is a function of place and seed, so that nothing of size
//! `width * keys` is kept between forward and backward, and every device draws the same one.

use crate::kernels::cpu::for_each_chunk;
use crate::kernels::swiglu::flex::rows_per_task;
use crate::kernels::swiglu::vector::{Isa, multiversion};

/// Which probabilities are dropped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// Share dropped, at least 0 and below 1; the rest is scaled so that the mean stays.
    pub probability: f32,
    /// Decides which.
    pub seed: u64,
}

/// A bijection of 32 bits that leaves no pattern (the constants are C. Wellons' `lowbias32`, public domain).
#[inline(always)]
fn scramble(mut x: u32) -> u32 {
    x = (x ^ (x >> 16)).wrapping_mul(0x7FEB_352D);
    x = (x ^ (x >> 15)).wrapping_mul(0x846C_A68B);
    x ^ (x >> 16)
}

multiversion! {
    /// Multiplies `p` by 0 where the scrambled key number is below `threshold`, and by `scale` elsewhere.
    fn drop_run<const FMA: bool>(p: &mut [f32], seed: u32, from: u32, threshold: u32, scale: f32) {
        for (i, p) in p.iter_mut().enumerate() {
            let key = from.wrapping_add(i as u32).wrapping_mul(0x9E37_79B9);
            *p *= if scramble(seed ^ key) < threshold { 0.0 } else { scale };
        }
    }
}

impl Dropout {
    /// Nothing is dropped.
    pub const NONE: Self = Self {
        probability: 0.0,
        seed: 0,
    };

    /// Whether nothing is dropped.
    pub(super) fn is_none(self) -> bool {
        self.probability <= 0.0
    }

    /// Drops among the probabilities `p` of one query, over keys from `from` on.
    pub(super) fn apply(
        self,
        isa: Isa,
        row: usize,
        head: usize,
        query: usize,
        from: usize,
        p: &mut [f32],
    ) {
        if self.is_none() {
            return;
        }
        let mut seed = scramble(self.seed as u32 ^ 0x5851_F42D);
        for part in [
            (self.seed >> 32) as u32,
            row as u32,
            head as u32,
            query as u32,
        ] {
            seed = scramble(seed.wrapping_mul(0x9E37_79B9) ^ part);
        }
        let threshold = (f64::from(self.probability) * 4_294_967_296.0) as u32;
        let scale = 1.0 / (1.0 - self.probability);
        drop_run(isa, p, seed, from as u32, threshold, scale);
    }

    /// The mask as numbers, `[rows, heads, width, keys]`: 0, or what the kept ones are multiplied with.
    pub(crate) fn mask(self, rows: usize, heads: usize, width: usize, keys: usize) -> Vec<f32> {
        let mut mask = vec![1.0; rows * heads * width * keys];
        let (isa, keys) = (Isa::detect(), keys.max(1));
        let lines = rows_per_task(keys);
        for_each_chunk(&mut mask, lines * keys, |task, mask| {
            for (i, p) in mask.chunks_mut(keys).enumerate() {
                let at = task * lines + i;
                let (query, head, row) = (at % width, at / width % heads, at / width / heads);
                self.apply(isa, row, head, query, 0, p);
            }
        });
        mask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_dropped_is_the_probability_and_places_differ() {
        let dropout = Dropout {
            probability: 0.1,
            seed: 7,
        };
        let mask = dropout.mask(4, 6, 50, 60);
        let dropped = mask.iter().filter(|m| **m == 0.0).count() as f64 / mask.len() as f64;
        assert!((dropped - 0.1).abs() < 0.005, "{dropped}");
        assert!(
            mask.iter()
                .all(|m| *m == 0.0 || (*m - 1.0 / 0.9).abs() < 1e-6)
        );
        let rows: std::collections::HashSet<Vec<bool>> = mask
            .chunks(60)
            .map(|row| row.iter().map(|m| *m == 0.0).collect())
            .collect();
        assert!(
            rows.len() > 1_150,
            "rows repeat: {} of 1200 differ",
            rows.len()
        );
        let other = Dropout { seed: 8, ..dropout };
        assert_ne!(other.mask(1, 1, 5, 60), dropout.mask(1, 1, 5, 60));
        let high = Dropout {
            seed: 7 | 1 << 40,
            ..dropout
        };
        assert_ne!(high.mask(1, 1, 5, 60), dropout.mask(1, 1, 5, 60));
    }

    #[test]
    fn parts_of_a_row_and_instruction_sets_agree() {
        let dropout = Dropout {
            probability: 0.3,
            seed: 3,
        };
        let whole = dropout.mask(1, 1, 1, 100);
        for isa in Isa::all() {
            let mut part = vec![1.0; 63];
            dropout.apply(isa, 0, 0, 0, 37, &mut part);
            assert_eq!(part, whole[37..], "{isa:?}");
        }
    }
}
