//! A projection whose weight is dense or NF4, with any number of adapters on it.

use burn::tensor::{DType, Tensor};

use crate::kernels::nf4_matmul::Nf4Weight;
use crate::lora::{LoraLayer, Overlay};

/// A weight in PyTorch's orientation, `[out_features, in_features]`.
// A model holds a few hundred of these; a box each would save nothing worth an indirection.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug)]
pub enum Weight {
    /// Plain floats in the compute type.
    Dense(Tensor<2>),
    /// Packed 4-bit codes; dequantized tile by tile inside the matmul.
    Nf4(Nf4Weight),
}

/// `y = x·Wᵀ + bias + Σ adapters`.
#[derive(Clone, Debug)]
pub struct Linear {
    /// The base weight; frozen unless an overlay replaced it.
    pub weight: Weight,
    /// Added to every row, `[out_features]`.
    pub bias: Option<Tensor<1>>,
    /// Active adapters; their contributions add up.
    pub adapters: Vec<LoraLayer>,
}

impl Linear {
    /// A projection without adapters.
    pub fn new(weight: Weight, bias: Option<Tensor<1>>) -> Self {
        Self {
            weight,
            bias,
            adapters: Vec::new(),
        }
    }

    /// `[rows, in_features]` to `[rows, out_features]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let mut y = match &self.weight {
            Weight::Dense(w) => x.clone().matmul(w.clone().transpose()),
            Weight::Nf4(w) => w.linear(x.clone()),
        };
        if let Some(bias) = &self.bias {
            y = y + bias.clone().unsqueeze();
        }
        for adapter in &self.adapters {
            y = y + adapter.delta(x.clone());
        }
        y
    }

    /// This projection with what `overlay` holds for the module at `path`.
    pub fn with(&self, overlay: &Overlay, path: &str) -> Self {
        let weight = match overlay.matrix(&format!("{path}.weight")) {
            Some(replacement) => Weight::Dense(replacement.cast(self.dtype())),
            None => self.weight.clone(),
        };
        let bias = overlay
            .vector(&format!("{path}.bias"))
            .or_else(|| self.bias.clone());
        let adapters = [self.adapters.as_slice(), overlay.lora(path)].concat();
        Self {
            weight,
            bias,
            adapters,
        }
    }

    /// `[out_features, in_features]`.
    pub fn shape(&self) -> [usize; 2] {
        match &self.weight {
            Weight::Dense(w) => w.dims(),
            Weight::Nf4(w) => [w.out_features(), w.in_features()],
        }
    }

    /// The type the dense weight is stored in; f32 for packed weights, which take any.
    fn dtype(&self) -> DType {
        match &self.weight {
            Weight::Dense(w) => w.dtype(),
            Weight::Nf4(_) => DType::F32,
        }
    }
}
