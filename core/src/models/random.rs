//! Random weights as a source to load a model from.

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::weights::{Dtype, HostTensor, OwnedTensor, TensorSpec, WeightError, WeightSource};

/// A source that draws each tensor when it is asked for: matrices normal, norm weights one, biases zero. The same
/// seed gives the same values in any order of asking.
#[derive(Clone, Debug)]
pub struct RandomWeights {
    shapes: BTreeMap<String, Vec<usize>>,
    deviation: f64,
    scaled: Vec<&'static str>,
    scale: f64,
    seed: u64,
}

impl RandomWeights {
    /// The tensors named, matrices with standard deviation `deviation`.
    pub fn new(
        shapes: impl IntoIterator<Item = (String, Vec<usize>)>,
        deviation: f64,
        seed: u64,
    ) -> Self {
        Self {
            shapes: shapes.into_iter().collect(),
            deviation,
            scaled: Vec::new(),
            scale: 1.0,
            seed,
        }
    }

    /// With the deviation of matrices whose name ends with one of `suffixes` multiplied by `scale`.
    #[must_use]
    pub fn scaled(mut self, suffixes: &[&'static str], scale: f64) -> Self {
        self.scaled = suffixes.to_vec();
        self.scale = scale;
        self
    }

    fn values(&self, name: &str, shape: &[usize]) -> Vec<f32> {
        let count = shape.iter().product();
        if shape.len() == 1 {
            return vec![f32::from(u8::from(is_norm_weight(name))); count];
        }
        let scaled = self.scaled.iter().any(|suffix| name.ends_with(suffix));
        let deviation = self.deviation * if scaled { self.scale } else { 1.0 };
        normal(self.seed, name, count, deviation)
    }
}

/// Whether `name` is the weight of a norm, which starts at one (`input_layernorm`, `LayerNorm`, `sa_layer_norm`).
fn is_norm_weight(name: &str) -> bool {
    name.to_lowercase().ends_with("norm.weight")
}

/// `count` normal values of deviation `deviation`, decided by `seed` and `name`.
pub fn normal(seed: u64, name: &str, count: usize, deviation: f64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ name_hash(name));
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        let [first, second] = normal_pair(&mut rng);
        values.push((first * deviation) as f32);
        values.push((second * deviation) as f32);
    }
    values.truncate(count);
    values
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

/// Two independent standard normal values.
fn normal_pair(rng: &mut ChaCha8Rng) -> [f64; 2] {
    let uniform = |bits: u64| ((bits >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    let first = uniform(rng.next_u64());
    box_muller([first, uniform(rng.next_u64())])
}

/// Two independent standard normal values from two uniform ones, the first in `(0, 1]` (Box and Muller, 1958).
pub(crate) fn box_muller([first, second]: [f64; 2]) -> [f64; 2] {
    let radius = (-2.0 * first.ln()).sqrt();
    let angle = std::f64::consts::TAU * second;
    [radius * angle.cos(), radius * angle.sin()]
}

/// FNV-1a: a stable seed for a name.
fn name_hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
