//! The activation of BERT's feed-forward layer, `x Φ(x)` with the exact normal distribution function.
//!
//! | file | what |
//! |---|---|
//! | `reference.rs` | the formula in f64 |
//! | `generic.rs` | the same from burn's own operations, for GPUs |
//! | `cpu.rs` | one parallel SIMD pass; the backward pass overwrites the incoming gradient |
//! | `backward.rs` | the gradient; `x` is kept, `Φ` is computed again |
//!
//! Source: Hendrycks and Gimpel, <https://arxiv.org/abs/1606.08415>.

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

/// The device side of [`gelu`]. The default bodies are burn operations.
#[backend_extension(Cube, Flex, Autodiff, Fusion)]
pub trait GeluOps: Backend {
    /// `x Φ(x)`, computed in f32 and returned in the type of `x`.
    #[fusion(default)]
    fn exact_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        generic::gelu::<Self>(x)
    }

    /// The gradient for `x`, given that of the result.
    #[fusion(default)]
    fn exact_gelu_gradient(x: FloatTensor<Self>, dy: FloatTensor<Self>) -> FloatTensor<Self> {
        generic::gradient::<Self>(x, dy)
    }
}

impl GeluOps for CubeBackend {}

impl GeluOps for Flex {
    fn exact_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        cpu::gelu(x)
    }

    fn exact_gelu_gradient(x: FloatTensor<Self>, dy: FloatTensor<Self>) -> FloatTensor<Self> {
        cpu::gradient(x, dy)
    }
}

/// `x Φ(x)` of every element, `Φ` being the standard normal distribution function: computed in f32 and returned in
/// the type of `x`.
pub fn gelu(x: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as GeluOps>::exact_gelu(x.into_dispatch()))
}
