//! SwiGLU from burn's own operations.

use burn::backend::{Backend, TensorMetadata, tensor::FloatTensor};
use burn::tensor::FloatDType;

/// `silu(gate) * up`.
pub(super) fn swiglu<B: Backend>(gate: FloatTensor<B>, up: FloatTensor<B>) -> FloatTensor<B> {
    let dtype = up.dtype();
    let gate = B::float_cast(gate, FloatDType::F32);
    let up = B::float_cast(up, FloatDType::F32);
    let silu = B::float_mul(gate.clone(), B::sigmoid(gate));
    B::float_cast(B::float_mul(silu, up), dtype.into())
}

/// The gradients for `gate` and `up`: `dy up s (1 + gate (1 - s))` and `dy gate s`, `s` the sigmoid of `gate`.
pub(super) fn gradients<B: Backend>(
    gate: FloatTensor<B>,
    up: FloatTensor<B>,
    dy: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let (gate_dtype, up_dtype) = (gate.dtype(), up.dtype());
    let gate = B::float_cast(gate, FloatDType::F32);
    let up = B::float_cast(up, FloatDType::F32);
    let dy = B::float_cast(dy, FloatDType::F32);
    let s = B::sigmoid(gate.clone());
    let silu = B::float_mul(gate, s.clone());
    // s + silu (1 - s)
    let slope = B::float_sub(
        B::float_add(s.clone(), silu.clone()),
        B::float_mul(silu.clone(), s),
    );
    let dgate = B::float_mul(B::float_mul(dy.clone(), up), slope);
    let dup = B::float_mul(dy, silu);
    (
        B::float_cast(dgate, gate_dtype.into()),
        B::float_cast(dup, up_dtype.into()),
    )
}
