//! A projection whose weight is dense or NF4, with any number of adapters on it.

use std::sync::{Arc, OnceLock};

use burn::tensor::{DType, Tensor};

use crate::kernels::nf4_matmul::Nf4Weight;
use crate::lora::{AdapterLayer, AdapterMethod, Overlay};

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
    pub adapters: Vec<AdapterLayer>,
    /// See [`Linear::squared_norms`]; shared by every copy that has the same base weight.
    squared_norms: Arc<OnceLock<Tensor<1>>>,
}

impl Linear {
    /// A projection without adapters.
    pub fn new(weight: Weight, bias: Option<Tensor<1>>) -> Self {
        Self {
            weight,
            bias,
            adapters: Vec::new(),
            squared_norms: Arc::default(),
        }
    }

    /// `[rows, in_features]` to `[rows, out_features]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let mut y = self.product(x.clone());
        // Kept only for the methods that need it: a second handle would cost the sums below their in-place adds.
        let shared = self.adapters.iter().any(AdapterMethod::uses_product);
        let product = shared.then(|| y.clone());
        if let Some(bias) = &self.bias {
            // A trained bias is f32 whatever the model computes in; a cast to its own type is none.
            let bias = bias.clone().cast(y.dtype());
            y = y + bias.unsqueeze();
        }
        for adapter in &self.adapters {
            y = y + adapter.delta(x.clone(), product.as_ref(), self);
        }
        y
    }

    /// `x·Wᵀ`: the base alone, without its bias.
    pub fn product(&self, x: Tensor<2>) -> Tensor<2> {
        match &self.weight {
            Weight::Dense(w) => {
                let w = w.clone().cast(x.dtype());
                x.matmul(w.transpose())
            }
            Weight::Nf4(w) => w.linear(x),
        }
    }

    /// A dense copy of the base weight in `dtype`, `[out_features, in_features]`. For reports and tests: nothing in a
    /// forward pass keeps one.
    pub fn dense(&self, dtype: DType) -> Tensor<2> {
        match &self.weight {
            Weight::Dense(w) => w.clone().cast(dtype),
            Weight::Nf4(w) => w.dequantize(dtype.into()),
        }
    }

    /// The sum of squares of every row of the base weight, `[out_features]`, f32; computed when first asked for.
    pub fn squared_norms(&self) -> Tensor<1> {
        let compute = || {
            let squares: Tensor<2> = self.dense(DType::F32).square();
            squares.sum_dim(1).squeeze_dim(1)
        };
        self.squared_norms.get_or_init(compute).clone()
    }

    /// This projection with what `overlay` holds for the module at `path`.
    pub fn with(&self, overlay: &Overlay, path: &str) -> Self {
        let (weight, squared_norms) = match overlay.matrix(&format!("{path}.weight")) {
            Some(replacement) => (
                Weight::Dense(replacement.cast(self.dtype())),
                Arc::default(),
            ),
            None => (self.weight.clone(), self.squared_norms.clone()),
        };
        let bias = overlay
            .vector(&format!("{path}.bias"))
            .or_else(|| self.bias.clone());
        let adapters = [self.adapters.as_slice(), overlay.layers(path)].concat();
        Self {
            weight,
            bias,
            adapters,
            squared_norms,
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
    pub(crate) fn dtype(&self) -> DType {
        match &self.weight {
            Weight::Dense(w) => w.dtype(),
            Weight::Nf4(_) => DType::F32,
        }
    }
}
