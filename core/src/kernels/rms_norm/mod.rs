//! Root-mean-square normalization, `x / sqrt(mean(x²) + eps) * weight` over the last dimension.
//!
//! | file | what |
//! |---|---|
//! | `reference.rs` | the formula in f64 |
//! | `generic.rs` | the same from burn's own operations, for GPUs |
//! | `cpu.rs` | one parallel SIMD pass; the backward pass overwrites the incoming gradient |
//! | `backward.rs` | the gradients; only `x` and `weight` are kept |
//!
//! Source: Zhang and Sennrich, <https://arxiv.org/abs/1910.07467>.

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

/// The device side of [`rms_norm`]. The default bodies are burn operations. Fusion is kept out of them: fusing
/// reductions with what broadcasts their result gave wrong gradients under it (burn 0.22.1, SwiftShader).
#[backend_extension(Cube, Flex, Autodiff, Fusion)]
pub trait RmsNormOps: Backend {
    /// `x / sqrt(mean(x²) + eps) * weight`: `[rows, hidden]` and `[hidden]` to `[rows, hidden]`, computed in f32
    /// and returned in the type of `x`.
    #[fusion(dtype = x, shape = x)]
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        generic::rms_norm::<Self>(x, weight, eps)
    }

    /// The gradient for `x`, given that of the result.
    #[fusion(dtype = x, shape = x)]
    fn rms_norm_grad_x(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        generic::grad_x::<Self>(x, weight, dy, eps)
    }

    /// The gradient for `weight`, `[hidden]`, in the type of `x`, given that of the result.
    #[fusion(dtype = x, shape = weight_shape(x))]
    fn rms_norm_grad_weight(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        generic::grad_weight::<Self>(x, dy, eps)
    }
}

impl RmsNormOps for CubeBackend {}

impl RmsNormOps for Flex {
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        cpu::rms_norm(x, weight, eps)
    }

    fn rms_norm_grad_x(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        cpu::grad_x(x, weight, dy, eps)
    }

    fn rms_norm_grad_weight(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        cpu::grad_weight(x, dy, eps)
    }
}

/// `x / sqrt(mean(x²) + eps) * weight` over the last dimension of `[rows, hidden]`, `weight` being `[hidden]`:
/// computed in f32 and returned in the type of `x`, as the reference implementation does.
///
/// # Panics
/// Where `weight` does not have `hidden` elements.
pub fn rms_norm(x: Tensor<2>, weight: Tensor<1>, eps: f64) -> Tensor<2> {
    assert_eq!(
        x.dims()[1],
        weight.dims()[0],
        "rms_norm: x and weight must agree in `hidden`"
    );
    Tensor::from_dispatch(<Dispatch as RmsNormOps>::rms_norm(
        x.into_dispatch(),
        weight.into_dispatch(),
        eps,
    ))
}
