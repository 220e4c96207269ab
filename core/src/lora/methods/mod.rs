//! The ways to adapt a base, one file each, behind one interface: [`Method`] in a configuration,
//! [`AdapterMethod`] on a projection.
//!
//! | method | change of the weight | file |
//! |---|---|---|
//! | LoRA, rsLoRA | `ΔW = s·B·A` | `lora.rs`, `rslora.rs` |
//! | DoRA | `W' = m · (W + s·B·A) / ‖W + s·B·A‖` | `dora.rs` |
//! | sparse LoRA | `ΔW = s·B·diag(g)·A`, few `g` not zero | `sparse.rs` |
//! | HiRA | `ΔW = W ⊙ (B·A)` | `hira.rs` |
//! | full, head only | the weights themselves | `whole.rs` |

mod dora;
mod hira;
mod lora;
mod rslora;
pub mod sparse;
mod whole;

pub use dora::{DoraLayer, row_norms};
pub use hira::HiraLayer;
pub use lora::LoraLayer;
pub use rslora::scaling;
pub use sparse::SparseLayer;
pub use whole::head_modules;

use std::fmt;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::models::linear::Linear;

/// How a base is adapted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// A low-rank update beside every adapted projection. Hu et al., arXiv 2106.09685.
    #[default]
    Lora,
    /// LoRA scaled by `alpha / sqrt(rank)`. Kalajdzievski, arXiv 2312.03732.
    Rslora,
    /// LoRA on the direction of a weight, and a trained magnitude for each of its rows. Liu et al.,
    /// arXiv 2402.09353.
    Dora,
    /// LoRA with a gate on every rank-one component, of which only the share `density` stays open.
    /// After SoRA, Ding et al., arXiv 2311.11696.
    Sparse,
    /// The update is the weight itself times a low-rank matrix, element by element, and so of high
    /// rank. Huang et al., ICLR 2025.
    Hira,
    /// Every weight is trained, none adapted: the baseline. From an NF4 base it starts at the values
    /// the codes stand for, and what it trains and writes is dense.
    Full,
    /// Only the head and the norm before it are trained: the other baseline.
    Head,
}

/// What an adapter's layers are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// A plain pair, whatever its scaling.
    #[default]
    Lora,
    /// A pair and a magnitude vector.
    Dora,
    /// A pair and gates; saved as plain pairs of smaller ranks.
    Sparse,
    /// A pair whose product multiplies the weight.
    Hira,
}

impl Method {
    /// The layers this method trains; `None` for the baselines, which train weights of the base.
    pub fn kind(self) -> Option<Kind> {
        match self {
            Self::Lora | Self::Rslora => Some(Kind::Lora),
            Self::Dora => Some(Kind::Dora),
            Self::Sparse => Some(Kind::Sparse),
            Self::Hira => Some(Kind::Hira),
            Self::Full | Self::Head => None,
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lora => "lora",
            Self::Rslora => "rslora",
            Self::Dora => "dora",
            Self::Sparse => "sparse",
            Self::Hira => "hira",
            Self::Full => "full",
            Self::Head => "head",
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lora => "LoRA",
            Self::Dora => "DoRA",
            Self::Sparse => "sparse LoRA",
            Self::Hira => "HiRA",
        })
    }
}

/// What an adapter of `kind` adds to a dense `weight` (`[out, columns]`, row-major) on the host, given the product
/// `scaling · B·A` of its pair and DoRA's magnitudes.
pub fn change_of_weight(
    kind: Kind,
    weight: &[f32],
    product: Vec<f32>,
    columns: usize,
    magnitude: Option<&[f32]>,
) -> Vec<f32> {
    match (kind, magnitude) {
        (Kind::Hira, _) => weight.iter().zip(product).map(|(w, p)| w * p).collect(),
        (Kind::Dora, Some(magnitude)) => dora::change(weight, &product, columns, magnitude),
        _ => product,
    }
}

/// One adapter on one projection.
pub trait AdapterMethod {
    /// What is added to the projection of `x` (`[rows, in_features]`), `[rows, out_features]`.
    /// `product` is `x·Wᵀ` without the bias, where a method asked for it.
    fn delta(&self, x: Tensor<2>, product: Option<&Tensor<2>>, base: &Linear) -> Tensor<2>;

    /// The dense change of the weight, `[out_features, in_features]`, f32.
    fn delta_weight(&self, base: &Linear) -> Tensor<2>;

    /// Whether [`AdapterMethod::delta`] wants the base's product instead of computing it again.
    fn uses_product(&self) -> bool {
        false
    }
}

/// An adapter of any method.
#[derive(Clone, Debug)]
pub enum AdapterLayer {
    /// LoRA and rsLoRA.
    Lora(LoraLayer),
    /// DoRA.
    Dora(DoraLayer),
    /// Sparse LoRA, while it is trained.
    Sparse(SparseLayer),
    /// HiRA.
    Hira(HiraLayer),
}

impl AdapterLayer {
    /// A layer of `kind` from its pair and, for DoRA and sparse LoRA, its vector. Without the vector
    /// it is the plain pair.
    pub fn new(kind: Kind, pair: LoraLayer, vector: Option<Tensor<1>>) -> Self {
        match (kind, vector) {
            (Kind::Dora, Some(magnitude)) => Self::Dora(DoraLayer { pair, magnitude }),
            (Kind::Sparse, Some(gate)) => Self::Sparse(SparseLayer { pair, gate }),
            (Kind::Hira, _) => Self::Hira(HiraLayer { pair }),
            _ => Self::Lora(pair),
        }
    }

    fn method(&self) -> &dyn AdapterMethod {
        match self {
            Self::Lora(layer) => layer,
            Self::Dora(layer) => layer,
            Self::Sparse(layer) => layer,
            Self::Hira(layer) => layer,
        }
    }
}

impl AdapterMethod for AdapterLayer {
    fn delta(&self, x: Tensor<2>, product: Option<&Tensor<2>>, base: &Linear) -> Tensor<2> {
        self.method().delta(x, product, base)
    }

    fn delta_weight(&self, base: &Linear) -> Tensor<2> {
        self.method().delta_weight(base)
    }

    fn uses_product(&self) -> bool {
        self.method().uses_product()
    }
}

impl From<LoraLayer> for AdapterLayer {
    fn from(layer: LoraLayer) -> Self {
        Self::Lora(layer)
    }
}

#[cfg(test)]
mod tests;
