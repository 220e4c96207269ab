//! RMS normalization from burn's own operations.

use burn::backend::{Backend, TensorMetadata, tensor::FloatTensor};
use burn::tensor::FloatDType;

use crate::kernels::norm::{row, total};

/// `x / sqrt(mean(x²) + eps) * weight`.
pub(super) fn rms_norm<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    eps: f64,
) -> FloatTensor<B> {
    let dtype = x.dtype();
    let x = B::float_cast(x, FloatDType::F32);
    let normal = B::float_mul(x.clone(), inverse_rms::<B>(x, eps));
    B::float_cast(B::float_mul(normal, row::<B>(weight)), dtype.into())
}

/// With `n = x r`, `r` the inverse root mean square: `r (dy w - n mean(dy w n))`.
pub(super) fn grad_x<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    dy: FloatTensor<B>,
    eps: f64,
) -> FloatTensor<B> {
    let dtype = x.dtype();
    let x = B::float_cast(x, FloatDType::F32);
    let r = inverse_rms::<B>(x.clone(), eps);
    let normal = B::float_mul(x, r.clone());
    let scaled = B::float_mul(B::float_cast(dy, FloatDType::F32), row::<B>(weight));
    let mean = B::float_mean_dim(B::float_mul(scaled.clone(), normal.clone()), 1);
    let dx = B::float_mul(B::float_sub(scaled, B::float_mul(normal, mean)), r);
    B::float_cast(dx, dtype.into())
}

/// The sum over rows of `dy n`.
pub(super) fn grad_weight<B: Backend>(
    x: FloatTensor<B>,
    dy: FloatTensor<B>,
    eps: f64,
) -> FloatTensor<B> {
    let dtype = x.dtype();
    let x = B::float_cast(x, FloatDType::F32);
    let normal = B::float_mul(x.clone(), inverse_rms::<B>(x, eps));
    let products = B::float_mul(B::float_cast(dy, FloatDType::F32), normal);
    total::<B>(products, dtype.into())
}

/// `[rows, 1]`.
fn inverse_rms<B: Backend>(x: FloatTensor<B>, eps: f64) -> FloatTensor<B> {
    let mean = B::float_mean_dim(B::float_mul(x.clone(), x), 1);
    B::float_recip(B::float_sqrt(B::float_add_scalar(mean, eps.into())))
}
