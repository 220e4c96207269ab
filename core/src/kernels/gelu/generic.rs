//! GELU from burn's own operations.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

use burn::backend::{Backend, TensorMetadata, tensor::FloatTensor};
use burn::tensor::FloatDType;

/// `x Φ(x)`.
pub(super) fn gelu<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let dtype = x.dtype();
    let x = B::float_cast(x, FloatDType::F32);
    let y = B::float_mul(x.clone(), distribution::<B>(x));
    B::float_cast(y, dtype.into())
}

/// `dy (Φ(x) + x φ(x))`.
pub(super) fn gradient<B: Backend>(x: FloatTensor<B>, dy: FloatTensor<B>) -> FloatTensor<B> {
    let dtype = dy.dtype();
    let x = B::float_cast(x, FloatDType::F32);
    let exponent = B::float_mul_scalar(B::float_mul(x.clone(), x.clone()), (-0.5).into());
    let density = B::float_mul_scalar(B::float_exp(exponent), (1.0 / (2.0 * PI).sqrt()).into());
    let slope = B::float_add(distribution::<B>(x.clone()), B::float_mul(x, density));
    let dx = B::float_mul(B::float_cast(dy, FloatDType::F32), slope);
    B::float_cast(dx, dtype.into())
}

/// `Φ(x) = (1 + erf(x / √2)) / 2`.
fn distribution<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let erf = B::float_erf(B::float_mul_scalar(x, FRAC_1_SQRT_2.into()));
    B::float_mul_scalar(B::float_add_scalar(erf, 1.0.into()), 0.5.into())
}
