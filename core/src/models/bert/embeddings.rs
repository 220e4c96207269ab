//! Words, positions and segments, added and normalized.

use burn::tensor::{DType, Tensor};

use super::Layout;
use super::names::Names;
use crate::kernels::layer_norm::layer_norm;
use crate::lora::Overlay;
use crate::models::dropout::dropout;
use crate::models::embedding::EmbeddingTable;
use crate::models::llama::index_tensor;

/// A layer norm's weight, bias and eps.
#[derive(Clone, Debug)]
pub struct Norm {
    /// `[hidden]`.
    pub weight: Tensor<1>,
    /// `[hidden]`.
    pub bias: Tensor<1>,
    /// Added to the variance.
    pub eps: f64,
}

impl Norm {
    /// `[rows, hidden]` to the same shape.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        layer_norm(x, self.weight.clone(), self.bias.clone(), self.eps)
    }

    /// This norm in `dtype`.
    fn cast(self, dtype: DType) -> Self {
        Self {
            weight: self.weight.cast(dtype),
            bias: self.bias.cast(dtype),
            ..self
        }
    }

    /// This norm with what `overlay` holds for the module at `path`.
    pub fn with(&self, overlay: &Overlay, path: &str) -> Self {
        let put = |name: &str, base: &Tensor<1>| {
            overlay
                .vector(&format!("{path}.{name}"))
                .unwrap_or_else(|| base.clone())
        };
        Self {
            weight: put("weight", &self.weight),
            bias: put("bias", &self.bias),
            eps: self.eps,
        }
    }
}

/// What stands before the first block.
#[derive(Clone, Debug)]
pub struct Embeddings {
    /// `[vocab, hidden]`.
    pub words: EmbeddingTable,
    /// `[positions, hidden]`.
    pub positions: Tensor<2>,
    /// `[types, hidden]`; none in DistilBERT.
    pub types: Option<Tensor<2>>,
    /// Norm of the sum.
    pub norm: Norm,
    /// Dropout while training.
    pub dropout: f64,
}

impl Embeddings {
    /// The first block's input, `[rows * width, hidden]`.
    pub fn forward(&self, layout: &Layout, training: bool) -> Tensor<2> {
        let device = self.norm.weight.device().inner();
        let dtype = self.norm.weight.dtype();
        let rows = |table: &Tensor<2>, ids: &[u32]| {
            let looked_up = table.clone().select(0, index_tensor(ids, &device));
            looked_up.cast(dtype)
        };
        let mut sum =
            self.words.rows(&layout.ids).cast(dtype) + rows(&self.positions, &layout.positions);
        if let Some(types) = &self.types {
            sum = sum + rows(types, &layout.types);
        }
        let normed = self.norm.forward(sum);
        dropout(normed, if training { self.dropout } else { 0.0 })
    }

    /// These embeddings with what `overlay` holds for them.
    pub(crate) fn with(&self, overlay: &Overlay, names: Names) -> Self {
        let put = |name: String, base: &Tensor<2>| match overlay.matrix(&name) {
            // A trained table stays f32: only the rows looked up are cast.
            Some(table) => table.cast(DType::F32),
            None => base.clone(),
        };
        Self {
            words: match overlay.matrix(&names.word_embeddings()) {
                Some(table) => EmbeddingTable::Device(table.cast(DType::F32)),
                None => self.words.clone(),
            },
            positions: put(names.position_embeddings(), &self.positions),
            types: self
                .types
                .as_ref()
                .map(|types| put(names.type_embeddings(), types)),
            // Its type is the one that the model computes in.
            norm: self
                .norm
                .with(overlay, &names.embedding_norm())
                .cast(self.norm.weight.dtype()),
            dropout: self.dropout,
        }
    }
}
