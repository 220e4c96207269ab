//! Shuffles that stay the same: across platforms, library versions and resumed runs.
//!
//! The shuffle is written out here because a library may change its own between releases; only ChaCha8's output
//! stream is taken from outside, which is fixed by its definition.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// What a stream of random numbers is for; different uses of one seed must not be correlated.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    Split,
    Epoch(u64),
}

/// `0..n` in random order.
pub(super) fn permutation(n: usize, seed: u64, purpose: Purpose) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    shuffle(&mut order, &mut generator(seed, purpose));
    order
}

pub(super) fn generator(seed: u64, purpose: Purpose) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(match purpose {
        Purpose::Split => 0,
        Purpose::Epoch(epoch) => epoch.wrapping_add(1),
    });
    rng
}

/// Fisher-Yates from the end.
pub(super) fn shuffle<T>(items: &mut [T], rng: &mut ChaCha8Rng) {
    for i in (1..items.len()).rev() {
        // The high half of a 64 x 64 bit product: bias below 2^-40 for any list that fits in memory.
        let j = (u128::from(rng.next_u64()) * (i as u128 + 1)) >> 64;
        items.swap(i, j as usize);
    }
}
