//! Layer normalization, `(x - mean) / sqrt(variance + eps) * weight + bias` over the last dimension.
//!
//! | file | what |
//! |---|---|
//! | `reference.rs` | the formula in f64 |
//! | `generic.rs` | the same from burn's own operations, for GPUs |
//! | `cpu.rs` | one parallel SIMD pass; the backward pass overwrites the incoming gradient |
//! | `backward.rs` | the gradients; only `x` and `weight` are kept |
//!
//! Source: Ba et al., <https://arxiv.org/abs/1607.06450>.

mod backward;
mod cpu;
mod generic;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use burn::backend::{Backend, Dispatch, Flex, backend_extension, tensor::FloatTensor};
use burn::tensor::Tensor;
use burn_cubecl::CubeBackend;

use super::norm::weight_shape;

/// The device side of [`layer_norm`]. The default bodies are burn operations; Fusion is kept out of them, as for
/// [`super::rms_norm`].
#[backend_extension(Cube, Flex, Autodiff, Fusion)]
pub trait LayerNormOps: Backend {
    /// `[rows, hidden]`, `[hidden]` and `[hidden]` to `[rows, hidden]`, computed in f32 and returned in the type of `x`.
    #[fusion(dtype = x, shape = x)]
    fn affine_layer_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        generic::layer_norm::<Self>(x, weight, bias, eps)
    }

    /// The gradient for `x`, given that of the result.
    #[fusion(dtype = x, shape = x)]
    fn layer_norm_grad_x(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        generic::grad_x::<Self>(x, weight, dy, eps)
    }

    /// The gradient for `weight`, `[hidden]`, in the type of `x`, given that of the result.
    #[fusion(dtype = x, shape = weight_shape(x))]
    fn layer_norm_grad_weight(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        generic::grad_weight::<Self>(x, dy, eps)
    }

    /// The gradient for `bias`, `[hidden]`, in the type of `dy`, the gradient of the result.
    #[fusion(dtype = dy, shape = weight_shape(dy))]
    fn layer_norm_grad_bias(dy: FloatTensor<Self>) -> FloatTensor<Self> {
        generic::grad_bias::<Self>(dy)
    }
}

impl LayerNormOps for CubeBackend {}

impl LayerNormOps for Flex {
    fn affine_layer_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        cpu::layer_norm(x, weight, bias, eps)
    }

    fn layer_norm_grad_x(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        cpu::grad_x(x, weight, dy, eps)
    }

    fn layer_norm_grad_weight(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        cpu::grad_weight(x, dy, eps)
    }
}

/// `(x - mean) / sqrt(variance + eps) * weight + bias` over the last dimension of `[rows, hidden]`, `weight` and `bias`
/// being `[hidden]`: computed in f32 and returned in the type of `x`.
///
/// # Panics
/// Where `weight` or `bias` does not have `hidden` elements.
pub fn layer_norm(x: Tensor<2>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<2> {
    let hidden = [x.dims()[1]];
    assert_eq!(
        weight.dims(),
        hidden,
        "layer_norm: x and weight must agree in `hidden`"
    );
    assert_eq!(
        bias.dims(),
        hidden,
        "layer_norm: x and bias must agree in `hidden`"
    );
    Tensor::from_dispatch(<Dispatch as LayerNormOps>::affine_layer_norm(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        eps,
    ))
}
