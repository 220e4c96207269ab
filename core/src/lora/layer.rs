//! One adapted projection: `y += scaling · B(A(dropout(x)))`.

use burn::tensor::Tensor;

use crate::models::dropout::dropout;

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
    /// The adapter's addition to the projection of `x` (`[rows, in_features]`), `[rows, out_features]`.
    ///
    /// The scaling multiplies the narrow `[rows, rank]` product, the smallest tensor in the chain.
    pub fn delta(&self, x: Tensor<2>) -> Tensor<2> {
        let dtype = x.dtype();
        let x = dropout(x, self.dropout);
        let a = self.a.clone().cast(dtype);
        let b = self.b.clone().cast(dtype);
        let narrow = x.matmul(a.transpose()).mul_scalar(self.scaling);
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
