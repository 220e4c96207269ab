//! DoRA: a weight is its direction times a magnitude per row; LoRA turns the direction, the magnitudes
//! are trained themselves.
//!
//! ```text
//! W' = m ⊙ (W + s·B·A) / n        n = ‖W + s·B·A‖ per row, a constant to the gradient (paper, section 4.3)
//! y  = x Wᵀ + (m/n - 1) ⊙ x Wᵀ + (m/n) ⊙ s·B(A x)
//! ```
//!
//! With dropout the second term uses the dropped `x` too, as PEFT does. The norms need no dense weight:
//! `‖W + s·B·A‖² = ‖W‖² + 2s Σ (W Aᵀ) ⊙ B + s² Σ (B A Aᵀ) ⊙ B`, sums over the rank, where `W Aᵀ` is a product
//! with `rank` rows and `‖W‖²` is computed once for a base.
//!
//! Source: Liu et al., arXiv 2402.09353; checked against PEFT's `DoraLinearLayer`.

use burn::tensor::{DType, Tensor};

use super::{AdapterMethod, LoraLayer};
use crate::models::linear::Linear;

/// Norms are at least this, so that a row of zeros divides by something.
const TINY: f64 = 1e-30;

/// A low-rank pair and the magnitudes of the rows.
#[derive(Clone, Debug)]
pub struct DoraLayer {
    /// The change of direction.
    pub pair: LoraLayer,
    /// `m`, `[out_features]`, f32.
    pub magnitude: Tensor<1>,
}

impl DoraLayer {
    /// `m / n`, `[out_features]`, f32; only `m` is differentiated.
    fn scale(&self, base: &Linear) -> Tensor<1> {
        self.magnitude.clone() / self.norms(base)
    }

    /// `n`, `[out_features]`, f32, outside any tape.
    fn norms(&self, base: &Linear) -> Tensor<1> {
        let s = self.pair.scaling;
        let a = self.pair.a.clone().detach();
        let b = self.pair.b.clone().detach();
        let crossed = base.product(a.clone().cast(base.dtype()));
        let crossed = crossed.cast(DType::F32).transpose();
        let gram = a.clone().matmul(a.transpose());
        let change = crossed.mul_scalar(2.0 * s) + b.clone().matmul(gram).mul_scalar(s * s);
        let change: Tensor<1> = (change * b).sum_dim(1).squeeze_dim(1);
        (base.squared_norms() + change).clamp_min(TINY).sqrt()
    }
}

impl AdapterMethod for DoraLayer {
    fn delta(&self, x: Tensor<2>, product: Option<&Tensor<2>>, base: &Linear) -> Tensor<2> {
        let dtype = x.dtype();
        let x = self.pair.drop(x);
        let product = match product {
            Some(shared) if self.uses_product() => shared.clone(),
            _ => base.product(x.clone()),
        };
        let scale = self.scale(base);
        let beyond: Tensor<2> = scale.clone().sub_scalar(1.0).cast(dtype).unsqueeze();
        let scale: Tensor<2> = scale.cast(dtype).unsqueeze();
        product * beyond + self.pair.widen(self.pair.narrow(x)) * scale
    }

    fn delta_weight(&self, base: &Linear) -> Tensor<2> {
        let weight = base.dense(DType::F32);
        let scale: Tensor<2> = self.scale(base).unsqueeze_dim(1);
        (weight.clone() + self.pair.delta_weight()) * scale - weight
    }

    /// Not under dropout, where the product of the dropped input is another one.
    fn uses_product(&self) -> bool {
        self.pair.dropout == 0.0
    }
}

/// The norm of every row of `weight`, `[rows, columns]` row-major: where the magnitudes start while `B` is zero.
pub fn row_norms(weight: &[f32], columns: usize) -> Vec<f32> {
    let norm = |row: &[f32]| {
        let squares: f64 = row.iter().map(|v| f64::from(*v).powi(2)).sum();
        squares.sqrt() as f32
    };
    weight.chunks(columns.max(1)).map(norm).collect()
}

/// What a DoRA adapter adds to `weight` (`[rows, columns]`), given `product = s·B·A`.
pub(super) fn change(
    weight: &[f32],
    product: &[f32],
    columns: usize,
    magnitude: &[f32],
) -> Vec<f32> {
    let turned: Vec<f32> = weight.iter().zip(product).map(|(w, p)| w + p).collect();
    let norms = row_norms(&turned, columns);
    let scales: Vec<f64> = magnitude
        .iter()
        .zip(&norms)
        .map(|(m, n)| f64::from(*m) / f64::from(*n).max(TINY.sqrt()))
        .collect();
    let cells = turned.iter().zip(weight).enumerate();
    cells
        .map(|(at, (turned, w))| (f64::from(*turned) * scales[at / columns] - f64::from(*w)) as f32)
        .collect()
}
