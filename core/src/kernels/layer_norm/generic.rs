//! Layer normalization from burn's own operations.

use burn::backend::{Backend, TensorMetadata, tensor::FloatTensor};
use burn::tensor::FloatDType;

use crate::kernels::norm::{row, total};

/// `(x - mean) / sqrt(variance + eps) * weight + bias`.
pub(super) fn layer_norm<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
    eps: f64,
) -> FloatTensor<B> {
    let dtype = x.dtype();
    let (normal, _) = normalize::<B>(x, eps);
    let y = B::float_add(B::float_mul(normal, row::<B>(weight)), row::<B>(bias));
    B::float_cast(y, dtype.into())
}

/// With `n` the normalized row, `r` the inverse deviation and `g = dy w`: `r (g - mean(g) - n mean(g n))`.
pub(super) fn grad_x<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    dy: FloatTensor<B>,
    eps: f64,
) -> FloatTensor<B> {
    let dtype = x.dtype();
    let (normal, r) = normalize::<B>(x, eps);
    let g = B::float_mul(B::float_cast(dy, FloatDType::F32), row::<B>(weight));
    let along = B::float_mean_dim(B::float_mul(g.clone(), normal.clone()), 1);
    let level = B::float_mean_dim(g.clone(), 1);
    let rest = B::float_sub(B::float_sub(g, level), B::float_mul(normal, along));
    B::float_cast(B::float_mul(rest, r), dtype.into())
}

/// The sum over rows of `dy n`.
pub(super) fn grad_weight<B: Backend>(
    x: FloatTensor<B>,
    dy: FloatTensor<B>,
    eps: f64,
) -> FloatTensor<B> {
    let dtype = x.dtype();
    let (normal, _) = normalize::<B>(x, eps);
    total::<B>(
        B::float_mul(B::float_cast(dy, FloatDType::F32), normal),
        dtype.into(),
    )
}

/// The sum over rows of `dy`.
pub(super) fn grad_bias<B: Backend>(dy: FloatTensor<B>) -> FloatTensor<B> {
    let dtype = dy.dtype();
    total::<B>(B::float_cast(dy, FloatDType::F32), dtype.into())
}

/// The normalized rows, f32, and the inverse deviations, `[rows, 1]`.
fn normalize<B: Backend>(x: FloatTensor<B>, eps: f64) -> (FloatTensor<B>, FloatTensor<B>) {
    let x = B::float_cast(x, FloatDType::F32);
    let centred = B::float_sub(x.clone(), B::float_mean_dim(x, 1));
    let variance = B::float_mean_dim(B::float_mul(centred.clone(), centred.clone()), 1);
    let r = B::float_recip(B::float_sqrt(B::float_add_scalar(variance, eps.into())));
    (B::float_mul(centred, r.clone()), r)
}
