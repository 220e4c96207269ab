//! One post-norm transformer block.

use burn::tensor::Tensor;
use burn::tensor::activation::{gelu_approximate, relu};

use super::embeddings::Norm;
use super::names::BlockNames;
use super::{Activation, Attention, Layout};
use crate::kernels::gelu::gelu;
use crate::lora::Overlay;
use crate::models::dropout::dropout;
use crate::models::linear::Linear;

/// `x = norm(x + attention(x)); x = norm(x + feed_forward(x))`.
#[derive(Clone, Debug)]
pub struct Block {
    /// Self-attention.
    pub attention: Attention,
    /// Norm after attention.
    pub attention_norm: Norm,
    /// `[intermediate, hidden]`.
    pub up: Linear,
    /// Between the two linears of the feed-forward layer.
    pub activation: Activation,
    /// `[hidden, intermediate]`.
    pub down: Linear,
    /// Norm after the feed-forward layer.
    pub output_norm: Norm,
    /// Dropout on what attention adds, while training; DistilBERT has none.
    pub attention_output_dropout: f64,
    /// Dropout on what the feed-forward layer adds, while training.
    pub dropout: f64,
}

impl Block {
    /// `[rows * width, hidden]` to the same shape. While `training`, a seed for the masks of dropout.
    pub fn forward(&self, x: Tensor<2>, layout: &Layout, training: Option<u64>) -> Tensor<2> {
        self.mix(x.clone(), x, layout.bias.clone(), training)
    }

    /// The block's output at the documents' first tokens only, `[documents, hidden]`: a classifier reads nothing else
    /// of the last block.
    pub fn forward_first(&self, x: Tensor<2>, layout: &Layout, training: Option<u64>) -> Tensor<2> {
        let first = &layout.first;
        let queries = x.clone().select(0, first.places.clone());
        self.mix(queries, x, first.bias.clone(), training)
            .select(0, first.pick.clone())
    }

    fn mix(
        &self,
        queries: Tensor<2>,
        x: Tensor<2>,
        bias: Tensor<4>,
        training: Option<u64>,
    ) -> Tensor<2> {
        let rate = |rate: f64| training.map_or(0.0, |_| rate);
        let mixed = self.attention.forward(queries.clone(), x, bias, training);
        let x = self
            .attention_norm
            .forward(dropout(mixed, rate(self.attention_output_dropout)) + queries);
        let up = self.up.forward(x.clone());
        let active = match self.activation {
            Activation::Gelu => gelu(up),
            Activation::GeluTanh => gelu_approximate(up),
            Activation::Relu => relu(up),
        };
        let down = self.down.forward(active);
        self.output_norm
            .forward(dropout(down, rate(self.dropout)) + x)
    }

    pub(crate) fn with(&self, overlay: &Overlay, names: &BlockNames) -> Self {
        Self {
            attention: self.attention.with(overlay, names),
            attention_norm: self.attention_norm.with(overlay, &names.attention_norm),
            up: self.up.with(overlay, &names.up),
            activation: self.activation,
            down: self.down.with(overlay, &names.down),
            output_norm: self.output_norm.with(overlay, &names.output_norm),
            attention_output_dropout: self.attention_output_dropout,
            dropout: self.dropout,
        }
    }
}
