//! One adapted projection: `y += scaling · B(A(dropout(x)))`. Source: Hu et al., arXiv 2106.09685.

use burn::tensor::{Distribution, Tensor};

use super::AdapterMethod;
use crate::models::linear::Linear;

/// The low-rank pair of one linear module, in PyTorch's orientation.
#[derive(Clone, Debug)]
pub struct LoraLayer {
    /// Down projection, `[rank, in_features]`, f32.
    pub a: Tensor<2>,
    /// Up projection, `[out_features, rank]`, f32.
    pub b: Tensor<2>,
    /// `alpha / rank`, or `alpha / sqrt(rank)` with rsLoRA.
    pub scaling: f64,
    /// Probability of zeroing an input feature; 0 outside training.
    pub dropout: f64,
}

impl LoraLayer {
    /// `x` with this layer's dropout.
    pub(super) fn drop(&self, x: Tensor<2>) -> Tensor<2> {
        if self.dropout > 0.0 {
            drop_features(x, self.dropout)
        } else {
            x
        }
    }

    /// `scaling · x·Aᵀ`, `[rows, rank]`: the scaling multiplies the smallest tensor in the chain.
    pub(super) fn narrow(&self, x: Tensor<2>) -> Tensor<2> {
        let a = self.a.clone().cast(x.dtype());
        x.matmul(a.transpose()).mul_scalar(self.scaling)
    }

    /// `narrow·Bᵀ`, `[rows, out_features]`.
    pub(super) fn widen(&self, narrow: Tensor<2>) -> Tensor<2> {
        let b = self.b.clone().cast(narrow.dtype());
        narrow.matmul(b.transpose())
    }

    /// The dense update `scaling · B·A`, `[out_features, in_features]`, f32.
    pub fn delta_weight(&self) -> Tensor<2> {
        self.b
            .clone()
            .matmul(self.a.clone())
            .mul_scalar(self.scaling)
    }
}

impl AdapterMethod for LoraLayer {
    fn delta(&self, x: Tensor<2>, _: Option<&Tensor<2>>, _: &Linear) -> Tensor<2> {
        self.widen(self.narrow(self.drop(x)))
    }

    fn delta_weight(&self, _: &Linear) -> Tensor<2> {
        self.delta_weight()
    }
}

/// Inverted dropout with a mask drawn from the device's generator, so that re-seeding the device
/// reproduces it when a block is recomputed.
fn drop_features(x: Tensor<2>, probability: f64) -> Tensor<2> {
    let keep = 1.0 - probability;
    let device = x.device().inner();
    let mask = Tensor::<2>::random(
        x.dims(),
        Distribution::Bernoulli(keep),
        (&device, x.dtype()),
    );
    x * mask.div_scalar(keep)
}
