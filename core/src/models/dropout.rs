//! Dropout of activations while training.

use burn::tensor::{DType, Device, Distribution, Tensor, TensorData};

use crate::kernels::attention::Dropout;

/// Zeroes each feature with `probability` and scales the rest so that the mean stays. The mask follows from the device's
/// generator, so that re-seeding the device reproduces it where a block is computed again.
pub fn dropout(x: Tensor<2>, probability: f64) -> Tensor<2> {
    if probability <= 0.0 {
        return x;
    }
    let mask = mask(x.dims(), probability, x.dtype(), &x.device().inner());
    x * mask
}

/// What to multiply with: 0 with `probability`, else `1 / (1 - probability)`.
///
/// On the CPU the generator only seeds the mask, which is then made on all threads: burn draws number after number.
pub(crate) fn mask(
    shape: [usize; 2],
    probability: f64,
    dtype: DType,
    device: &Device,
) -> Tensor<2> {
    if *device != Device::flex() {
        let keep = 1.0 - probability;
        let kept = Tensor::<2>::random(shape, Distribution::Bernoulli(keep), (device, dtype));
        return kept.div_scalar(keep);
    }
    let drawn = Tensor::<1>::random([4], Distribution::Uniform(0.0, 1.0), (device, DType::F32));
    // A CPU tensor is host memory: this read never waits, so it may be made in a browser too, and never fails.
    let drawn = drawn
        .try_into_data()
        .map_or_else(|_| Vec::new(), |data| data.iter::<f32>().collect());
    let seed = drawn.into_iter().fold(0u64, |seed, x| {
        // Sixteen good bits of each.
        (seed << 16) | (f64::from(x) * 65_536.0) as u64 & 0xffff
    });
    let probability = probability as f32;
    let values = Dropout { probability, seed }.mask(1, 1, shape[0], shape[1]);
    Tensor::from_data(TensorData::new(values, shape), (device, dtype))
}
