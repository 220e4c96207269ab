//! The modulated product and its gradients from burn's own operations.

use burn::backend::{Backend, tensor::FloatTensor};

/// `x (W ⊙ (B·A))ᵀ`.
pub(super) fn forward<B: Backend>(
    x: FloatTensor<B>,
    w: FloatTensor<B>,
    a: FloatTensor<B>,
    b: FloatTensor<B>,
) -> FloatTensor<B> {
    B::float_matmul(x, transposed::<B>(modulated::<B>(w, a, b)))
}

/// `dx = dy (W ⊙ (B·A))`.
pub(super) fn grad_x<B: Backend>(
    dy: FloatTensor<B>,
    w: FloatTensor<B>,
    a: FloatTensor<B>,
    b: FloatTensor<B>,
) -> FloatTensor<B> {
    B::float_matmul(dy, modulated::<B>(w, a, b))
}

/// The gradient of `B·A`: `(dyᵀ x) ⊙ W`, `[out, in]`.
pub(super) fn grad_product<B: Backend>(
    dy: FloatTensor<B>,
    x: FloatTensor<B>,
    w: FloatTensor<B>,
) -> FloatTensor<B> {
    B::float_mul(B::float_matmul(transposed::<B>(dy), x), w)
}

/// `dA = Bᵀ d(B·A)`.
pub(super) fn grad_a<B: Backend>(d: FloatTensor<B>, b: FloatTensor<B>) -> FloatTensor<B> {
    B::float_matmul(transposed::<B>(b), d)
}

/// `dB = d(B·A) Aᵀ`.
pub(super) fn grad_b<B: Backend>(d: FloatTensor<B>, a: FloatTensor<B>) -> FloatTensor<B> {
    B::float_matmul(d, transposed::<B>(a))
}

fn modulated<B: Backend>(
    w: FloatTensor<B>,
    a: FloatTensor<B>,
    b: FloatTensor<B>,
) -> FloatTensor<B> {
    B::float_mul(B::float_matmul(b, a), w)
}

fn transposed<B: Backend>(t: FloatTensor<B>) -> FloatTensor<B> {
    B::float_swap_dims(t, 0, 1)
}
