//! The projection by a weight that a low-rank matrix modulates element by element: `y = x (W ⊙ (B·A))ᵀ`.
//!
//! | file | what |
//! |---|---|
//! | `reference.rs` | plain loops in f64 |
//! | `generic.rs` | the product and its gradients from burn's own operations, on every device |
//! | `backward.rs` | the gradients for `x`, `A` and `B`; the modulated weight is made again |
//!
//! `W` is dense or packed NF4. Either way the modulated weight, which is as large as `W`, lives only inside the
//! operation: between forward and backward `x`, `A`, `B` and the handle of `W` as it is stored are kept.

mod backward;
mod generic;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use burn::backend::{
    Dispatch, Flex, TensorMetadata, backend_extension,
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::{Shape, Tensor};
use burn_cubecl::CubeBackend;

use crate::kernels::nf4_matmul::{Nf4Layout, Nf4Ops, Nf4Weight};

/// The device side; burn's operations everywhere.
#[backend_extension(Cube, Flex, Autodiff, Fusion)]
pub trait HadamardOps: Nf4Ops {
    /// `x (W ⊙ (B·A))ᵀ` for a dense `W`, in the type of `x`.
    #[fusion(dtype = x, shape = product_shape(x, b))]
    fn hadamard_dense(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        generic::forward::<Self>(x, w, a, b)
    }

    /// The same for a packed `W`.
    #[fusion(dtype = x, shape = product_shape(x, b))]
    fn hadamard_nf4(
        x: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        codes: IntTensor<Self>,
        scale_codes: IntTensor<Self>,
        scales: FloatTensor<Self>,
        layout: Nf4Layout,
    ) -> FloatTensor<Self> {
        let dtype = x.dtype().into();
        let w = Self::nf4_dequantize(codes, scale_codes, scales, layout, dtype);
        generic::forward::<Self>(x, w, a, b)
    }
}

fn product_shape(x: &Shape, b: &Shape) -> Shape {
    Shape::from([x[0], b[0]])
}

impl HadamardOps for CubeBackend {}
impl HadamardOps for Flex {}

/// `x (W ⊙ (B·A))ᵀ`: `x` `[rows, in]`, `w` `[out, in]`, `a` `[rank, in]`, `b` `[out, rank]`, to `[rows, out]`, all in
/// the type of `x`. Differentiable in `x`, `a` and `b`; `w` is frozen.
///
/// # Panics
/// As burn's own matmul does, where the shapes do not fit together.
pub fn hadamard_dense(x: Tensor<2>, w: Tensor<2>, a: Tensor<2>, b: Tensor<2>) -> Tensor<2> {
    let w = w.cast(x.dtype());
    Tensor::from_dispatch(<Dispatch as HadamardOps>::hadamard_dense(
        x.into_dispatch(),
        w.into_dispatch(),
        a.into_dispatch(),
        b.into_dispatch(),
    ))
}

/// [`hadamard_dense`] for a packed weight.
pub fn hadamard_nf4(x: Tensor<2>, w: &Nf4Weight, a: Tensor<2>, b: Tensor<2>) -> Tensor<2> {
    let ([codes, scale_codes, scales], layout) = w.parts();
    Tensor::from_dispatch(<Dispatch as HadamardOps>::hadamard_nf4(
        x.into_dispatch(),
        a.into_dispatch(),
        b.into_dispatch(),
        codes,
        scale_codes,
        scales,
        layout,
    ))
}
