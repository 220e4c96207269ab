//! One adapted projection: `y += scaling · B(A(dropout(x)))`. Source: Hu et al., arXiv 2106.09685.

use burn::tensor::Tensor;

use crate::models::dropout::dropout;

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
        dropout(x, self.dropout)
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
