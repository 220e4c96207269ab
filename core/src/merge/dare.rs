//! DARE: drop entries at random and rescale the others. Source: Yu et al., "Language Models are Super Mario",
//! arXiv 2311.03099.
//!
//! Masks are a function of the seed and of what is masked, not of a generator's history: one ChaCha8 stream per tensor,
//! keyed by SHA-256 over seed, adapter, tensor and module. Any platform, thread count and order of modules gives the same.

use super::MergeError;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// The tensor a mask is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Masked {
    /// The down projection, `[rank, in]`.
    A,
    /// The up projection, `[out, rank]`.
    B,
    /// The update, `[out, in]`.
    Delta,
}

impl Masked {
    /// `A`, `B` or `delta`.
    pub fn name(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
            Self::Delta => "delta",
        }
    }
}

/// Where masks come from.
#[derive(Clone, Debug)]
pub enum Masks {
    /// Drawn from a seed.
    Seeded(u64),
    /// Given: by module, position of the adapter and tensor, true where an entry stays. For comparisons with other
    /// implementations.
    Given(BTreeMap<(String, usize, Masked), Vec<bool>>),
}

impl Masks {
    /// Zeroes the entries that go and divides the others by `density`.
    pub(super) fn drop_and_rescale(
        &self,
        values: &mut [f32],
        density: f64,
        module: &str,
        adapter: usize,
        tensor: Masked,
    ) -> Result<(), MergeError> {
        if density >= 1.0 {
            return Ok(());
        }
        match self {
            Self::Seeded(seed) => {
                let mut rng = stream(*seed, module, adapter, tensor);
                // 2^32 steps of probability; below 1 the product fits.
                let threshold = (density * 4_294_967_296.0) as u32;
                apply(values, density, |_| rng.next_u32() < threshold);
            }
            Self::Given(masks) => {
                let expected = values.len();
                let mask = masks
                    .get(&(module.to_owned(), adapter, tensor))
                    .filter(|m| m.len() == expected)
                    .ok_or_else(|| MergeError::Mask {
                        module: module.to_owned(),
                        adapter,
                        tensor: tensor.name(),
                        expected,
                    })?;
                apply(values, density, |at| mask[at]);
            }
        }
        Ok(())
    }
}

fn apply(values: &mut [f32], density: f64, mut keep: impl FnMut(usize) -> bool) {
    for (at, value) in values.iter_mut().enumerate() {
        *value = if keep(at) {
            *value / density as f32
        } else {
            0.0
        };
    }
}

fn stream(seed: u64, module: &str, adapter: usize, tensor: Masked) -> ChaCha8Rng {
    let mut hash = Sha256::new();
    hash.update(b"qloom dare 1\n");
    hash.update(seed.to_le_bytes());
    hash.update((adapter as u64).to_le_bytes());
    hash.update(tensor.name());
    hash.update([b'\n']);
    hash.update(module);
    ChaCha8Rng::from_seed(hash.finalize().into())
}
