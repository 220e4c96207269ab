//! Random weights: where pretraining starts, and what benchmarks measure on.

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::{ConfigError, LlamaConfig};
use crate::weights::{Dtype, HostTensor, OwnedTensor, TensorSpec, WeightError, WeightSource};

/// The tensors of a new model: normal matrices with deviation `initializer_range`, norms of ones,
/// biases of zero. Projections back into the residual stream are scaled by `1/sqrt(2 * layers)`, as
/// GPT-2 does, so that depth does not inflate it.
pub fn random_weights(
    config: &LlamaConfig,
    initializer_range: f64,
    seed: u64,
) -> Result<RandomWeights, ConfigError> {
    let shapes = config.expected_tensors().into_iter().collect();
    let residual = (2.0 * config.num_hidden_layers as f64).sqrt().recip();
    Ok(RandomWeights {
        shapes,
        deviation: initializer_range,
        residual,
        seed,
    })
}

/// A source that draws each tensor when it is asked for; the same seed gives the same values in any
/// order of asking.
#[derive(Clone, Debug)]
pub struct RandomWeights {
    shapes: BTreeMap<String, Vec<usize>>,
    deviation: f64,
    residual: f64,
    seed: u64,
}

impl RandomWeights {
    fn values(&self, name: &str, shape: &[usize]) -> Vec<f32> {
        let count = shape.iter().product();
        if shape.len() == 1 {
            let fill = if name.ends_with("norm.weight") {
                1.0
            } else {
                0.0
            };
            return vec![fill; count];
        }
        let back = name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight");
        let deviation = self.deviation * if back { self.residual } else { 1.0 };
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed ^ name_hash(name));
        let mut values = Vec::with_capacity(count + 1);
        while values.len() < count {
            let [first, second] = normal_pair(&mut rng);
            values.push((first * deviation) as f32);
            values.push((second * deviation) as f32);
        }
        values.truncate(count);
        values
    }
}

impl WeightSource for RandomWeights {
    fn names(&self) -> Vec<String> {
        self.shapes.keys().cloned().collect()
    }

    fn spec(&self, name: &str) -> Option<TensorSpec> {
        let shape = self.shapes.get(name)?;
        Some(TensorSpec {
            name: name.to_owned(),
            dtype: Dtype::F32,
            shape: shape.clone(),
        })
    }

    fn file_of(&self, _: &str) -> String {
        "random weights".to_owned()
    }

    fn get(&self, name: &str) -> Result<HostTensor<'_>, WeightError> {
        let shape = self.shapes.get(name).ok_or_else(|| WeightError::Missing {
            name: name.to_owned(),
            files: "random weights".to_owned(),
        })?;
        OwnedTensor::from_f32(shape.clone(), &self.values(name, shape))
    }
}

/// Two independent standard normal values (Box and Muller).
fn normal_pair(rng: &mut ChaCha8Rng) -> [f64; 2] {
    let uniform = |bits: u64| ((bits >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    let radius = (-2.0 * uniform(rng.next_u64()).ln()).sqrt();
    let angle = std::f64::consts::TAU * uniform(rng.next_u64());
    [radius * angle.cos(), radius * angle.sin()]
}

/// FNV-1a: a stable seed for a name.
fn name_hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
