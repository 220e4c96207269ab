//! Dropout of activations while training.

use burn::tensor::{Distribution, Tensor};

/// Zeroes each feature with `probability` and scales the rest so that the mean stays. The mask comes from the device's
/// generator, so that re-seeding the device reproduces it where a block is computed again.
pub fn dropout(x: Tensor<2>, probability: f64) -> Tensor<2> {
    if probability <= 0.0 {
        return x;
    }
    let keep = 1.0 - probability;
    let device = x.device().inner();
    let mask = Tensor::<2>::random(
        x.dims(),
        Distribution::Bernoulli(keep),
        (&device, x.dtype()),
    );
    x * mask.div_scalar(keep)
}
