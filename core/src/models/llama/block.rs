//! One pre-norm transformer block.

use burn::tensor::Tensor;

use super::{Attention, Context, LayerCache, Mlp};
use crate::kernels::rms_norm::rms_norm;
use crate::lora::Overlay;

/// `x += attention(norm(x)); x += mlp(norm(x))`.
#[derive(Clone, Debug)]
pub struct Block {
    /// Norm before attention, `[hidden]`.
    pub input_layernorm: Tensor<1>,
    /// Self-attention.
    pub self_attn: Attention,
    /// Norm before the feed-forward layer, `[hidden]`.
    pub post_attention_layernorm: Tensor<1>,
    /// Feed-forward layer.
    pub mlp: Mlp,
    /// Added to the variance in both norms.
    pub rms_norm_eps: f64,
}

impl Block {
    /// `[rows * width, hidden]` to the same shape.
    pub fn forward(
        &self,
        x: Tensor<2>,
        context: &Context,
        cache: Option<(&mut LayerCache, usize)>,
    ) -> Tensor<2> {
        let normed = rms_norm(x.clone(), self.input_layernorm.clone(), self.rms_norm_eps);
        let x = x + self.self_attn.forward(normed, context, cache);
        let normed = rms_norm(
            x.clone(),
            self.post_attention_layernorm.clone(),
            self.rms_norm_eps,
        );
        x + self.mlp.forward(normed)
    }

    /// This block with what `overlay` holds under `prefix` (`model.layers.0`).
    pub fn with(&self, overlay: &Overlay, prefix: &str) -> Self {
        let norm = |base: &Tensor<1>, name: &str| {
            overlay
                .vector(&format!("{prefix}.{name}.weight"))
                .unwrap_or_else(|| base.clone())
        };
        Self {
            input_layernorm: norm(&self.input_layernorm, "input_layernorm"),
            self_attn: self.self_attn.with(overlay, &format!("{prefix}.self_attn")),
            post_attention_layernorm: norm(
                &self.post_attention_layernorm,
                "post_attention_layernorm",
            ),
            mlp: self.mlp.with(overlay, &format!("{prefix}.mlp")),
            rms_norm_eps: self.rms_norm_eps,
        }
    }
}
