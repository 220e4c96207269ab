//! The gated feed-forward layer. Source: Shazeer, "GLU Variants", arXiv 2002.05202.

use burn::tensor::Tensor;

use crate::kernels::swiglu::swiglu;
use crate::lora::Overlay;
use crate::models::linear::Linear;

/// `down(silu(gate(x)) * up(x))`.
#[derive(Clone, Debug)]
pub struct Mlp {
    /// `[intermediate, hidden]`.
    pub gate_proj: Linear,
    /// `[intermediate, hidden]`.
    pub up_proj: Linear,
    /// `[hidden, intermediate]`.
    pub down_proj: Linear,
}

impl Mlp {
    /// `[rows, hidden]` to the same shape.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let gate = self.gate_proj.forward(x.clone());
        self.down_proj
            .forward(swiglu(gate, self.up_proj.forward(x)))
    }

    /// This layer with what `overlay` holds under `prefix` (`model.layers.0.mlp`).
    pub fn with(&self, overlay: &Overlay, prefix: &str) -> Self {
        let put = |linear: &Linear, name: &str| linear.with(overlay, &format!("{prefix}.{name}"));
        Self {
            gate_proj: put(&self.gate_proj, "gate_proj"),
            up_proj: put(&self.up_proj, "up_proj"),
            down_proj: put(&self.down_proj, "down_proj"),
        }
    }
}
