//! HiRA: the update is the frozen weight times a low-rank matrix, element by element, so its rank is not
//! bound by the pair's: `y = x (W + W ⊙ (B·A))ᵀ`.
//!
//! There is no scaling and no alpha, as in PEFT's `HiraConfig`; the pair starts as LoRA's does, `B` at zero.
//!
//! Source: Huang et al., "HiRA: Parameter-Efficient Hadamard High-Rank Adaptation for Large Language Models",
//! ICLR 2025 (<https://openreview.net/forum?id=TwJrTz9cRS>).

use burn::tensor::{DType, Tensor};

use super::{AdapterMethod, LoraLayer};
use crate::kernels::hadamard::{hadamard_dense, hadamard_nf4};
use crate::models::linear::{Linear, Weight};

/// The pair whose product multiplies the weight. Its scaling is not used.
#[derive(Clone, Debug)]
pub struct HiraLayer {
    /// `A`, `B` and dropout.
    pub pair: LoraLayer,
}

impl AdapterMethod for HiraLayer {
    fn delta(&self, x: Tensor<2>, _: Option<&Tensor<2>>, base: &Linear) -> Tensor<2> {
        let x = self.pair.drop(x);
        let (a, b) = (self.pair.a.clone(), self.pair.b.clone());
        let (a, b) = (a.cast(x.dtype()), b.cast(x.dtype()));
        match &base.weight {
            Weight::Dense(w) => hadamard_dense(x, w.clone(), a, b),
            Weight::Nf4(w) => hadamard_nf4(x, w, a, b),
        }
    }

    fn delta_weight(&self, base: &Linear) -> Tensor<2> {
        let product = self.pair.b.clone().matmul(self.pair.a.clone());
        base.dense(DType::F32) * product
    }
}
