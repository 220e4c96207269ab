//! The gate of the feed-forward layer, `silu(gate) * up`, in one pass.
//!
//! | file | what |
//! |---|---|
//! | `reference.rs` | the formula in f64 |
//! | `generic.rs` | the same from burn's own operations, for GPUs (where Fusion makes one kernel of it) |
//! | `cpu.rs` | one parallel SIMD pass; the backward pass overwrites `gate` and the incoming gradient |
//! | `backward.rs` | the gradients; `gate` and `up` are kept, `silu` is computed again |
//! | `vector.rs`, `flex.rs`, `testing.rs` | shared with the other elementwise kernels |
//!
//! Source: Shazeer, "GLU Variants Improve Transformer", <https://arxiv.org/abs/2002.05202>.

mod backward;
mod cpu;
pub(crate) mod flex;
mod generic;
#[cfg(test)]
mod reference;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub(crate) mod vector;

use burn::backend::{Backend, Dispatch, Flex, backend_extension, tensor::FloatTensor};
use burn::tensor::Tensor;
use burn_cubecl::CubeBackend;

/// The device side of [`swiglu`]. The default bodies are burn operations, which Fusion can fuse.
#[backend_extension(Cube, Flex, Autodiff, Fusion)]
pub trait SwigluOps: Backend {
    /// `silu(gate) * up`, both `[rows, n]`, computed in f32 and returned in the type of `up`.
    #[fusion(default)]
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        generic::swiglu::<Self>(gate, up)
    }

    /// The gradients of [`Self::swiglu`] for `gate` and `up`, given that of its result.
    #[fusion(default)]
    fn swiglu_gradients(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        dy: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        generic::gradients::<Self>(gate, up, dy)
    }
}

impl SwigluOps for CubeBackend {}

impl SwigluOps for Flex {
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        cpu::swiglu(gate, up)
    }

    fn swiglu_gradients(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        dy: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        cpu::gradients(gate, up, dy)
    }
}

/// `silu(gate) * up`, both `[rows, n]`: computed in f32, returned in the type of `up`.
///
/// # Panics
/// Where the shapes differ.
pub fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    assert_eq!(
        gate.dims(),
        up.dims(),
        "swiglu: gate and up must have one shape"
    );
    Tensor::from_dispatch(<Dispatch as SwigluOps>::swiglu(
        gate.into_dispatch(),
        up.into_dispatch(),
    ))
}
