//! Self-attention over whole documents.

use burn::tensor::Tensor;

use super::names::BlockNames;
use crate::kernels::attention::{Dropout, attention_with_dropout};
use crate::lora::Overlay;
use crate::models::linear::Linear;

/// The attention sub-layer of one block, without its norm.
#[derive(Clone, Debug)]
pub struct Attention {
    /// `[hidden, hidden]`.
    pub query: Linear,
    /// `[hidden, hidden]`.
    pub key: Linear,
    /// `[hidden, hidden]`.
    pub value: Linear,
    /// `[hidden, hidden]`.
    pub output: Linear,
    /// Heads.
    pub heads: usize,
    /// Dropout of attention probabilities while training.
    pub dropout: f64,
}

impl Attention {
    /// Mixes into `queries`, `[rows * asked, hidden]`, the tokens `x`, `[rows * width, hidden]`, that `bias`,
    /// `[rows, 1, asked, width]`, lets each see. `training` seeds the masks of dropout.
    pub fn forward(
        &self,
        queries: Tensor<2>,
        x: Tensor<2>,
        bias: Tensor<4>,
        training: Option<u64>,
    ) -> Tensor<2> {
        let [rows, _, asked, width] = bias.dims();
        let hidden = x.dims()[1];
        let dim = hidden / self.heads;
        let split = |x: Tensor<2>, tokens| x.reshape([rows, tokens, self.heads, dim]);
        let q = split(self.query.forward(queries), asked);
        let k = split(self.key.forward(x.clone()), width);
        let v = split(self.value.forward(x), width);
        let dropout = training.map_or(Dropout::NONE, |seed| Dropout {
            probability: self.dropout as f32,
            seed,
        });
        let scale = (dim as f64).powf(-0.5);
        let mixed = attention_with_dropout(q, k, v, bias, scale, dropout);
        self.output.forward(mixed.reshape([rows * asked, hidden]))
    }

    pub(crate) fn with(&self, overlay: &Overlay, names: &BlockNames) -> Self {
        Self {
            query: self.query.with(overlay, &names.query),
            key: self.key.with(overlay, &names.key),
            value: self.value.with(overlay, &names.value),
            output: self.output.with(overlay, &names.output),
            heads: self.heads,
            dropout: self.dropout,
        }
    }
}
