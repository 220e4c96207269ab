//! Rotary position embedding in Hugging Face's rotate-half layout: feature `i` pairs with `i + head_dim / 2`.
//!
//! | file | what |
//! |---|---|
//! | `reference.rs` | the formula in f64 |
//! | `generic.rs` | the same from burn's own operations, for GPUs |
//! | `cpu.rs` | one parallel SIMD pass, in place where nobody else holds the tensor |
//! | `backward.rs` | the gradient: the rotation by the opposite angle; nothing but the angles is kept |
//!
//! Source: Su et al., <https://arxiv.org/abs/2104.09864>.

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

/// The device side of [`rope`]. The default body is burn operations, which Fusion can fuse.
#[backend_extension(Cube, Flex, Autodiff, Fusion)]
pub trait RopeOps: Backend {
    /// Rotates `x`, `[rows, width, heads, head_dim]`, by the angles of `cos` and `sin`,
    /// `[rows * width, head_dim / 2]`, or by their opposites where `inverse`; in f32, returned in the type of `x`.
    #[fusion(default)]
    fn rope(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        inverse: bool,
    ) -> FloatTensor<Self> {
        generic::rope::<Self>(x, cos, sin, inverse)
    }
}

impl RopeOps for CubeBackend {}

impl RopeOps for Flex {
    fn rope(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        inverse: bool,
    ) -> FloatTensor<Self> {
        cpu::rope(x, cos, sin, inverse)
    }
}

/// Rotates every head of every token: `x` is `[rows, width, heads, head_dim]` (before any swap to heads-first),
/// `cos` and `sin` are `[rows * width, head_dim / 2]` and not differentiated.
///
/// # Panics
/// Where `cos` or `sin` has another shape, or `head_dim` is odd.
pub fn rope(x: Tensor<4>, cos: Tensor<2>, sin: Tensor<2>) -> Tensor<4> {
    let [rows, width, _, head_dim] = x.dims();
    assert!(
        head_dim.is_multiple_of(2),
        "rope: head_dim is {head_dim}, which must be even"
    );
    let angles = [rows * width, head_dim / 2];
    assert_eq!(cos.dims(), angles, "rope: shape of cos");
    assert_eq!(sin.dims(), angles, "rope: shape of sin");
    let (cos, sin) = (cos.into_dispatch(), sin.into_dispatch());
    Tensor::from_dispatch(<Dispatch as RopeOps>::rope(
        x.into_dispatch(),
        cos,
        sin,
        false,
    ))
}
