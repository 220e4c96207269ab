//! Rotary embedding from burn's own operations.

use burn::backend::{Backend, TensorMetadata, tensor::FloatTensor};
use burn::tensor::{FloatDType, Shape, Slice};

/// `(first cos - second sin, second cos + first sin)`, with `sin` negated where `inverse`.
pub(super) fn rope<B: Backend>(
    x: FloatTensor<B>,
    cos: FloatTensor<B>,
    sin: FloatTensor<B>,
    inverse: bool,
) -> FloatTensor<B> {
    let (dtype, shape) = (x.dtype(), x.shape());
    let [rows, width, half] = [shape[0], shape[1], shape[3] / 2];
    let angles = |t| {
        let t = B::float_cast(t, FloatDType::F32);
        B::float_reshape(t, Shape::from([rows, width, 1, half]))
    };
    let (cos, sin) = (angles(cos), angles(sin));
    let sin = if inverse { B::float_neg(sin) } else { sin };
    let part = |x: FloatTensor<B>, start: usize| {
        let range = Slice::new(start as isize, Some((start + half) as isize), 1);
        let x = B::float_slice(x, &[Slice::full(), Slice::full(), Slice::full(), range]);
        B::float_cast(x, FloatDType::F32)
    };
    let (first, second) = (part(x.clone(), 0), part(x, half));
    let rotated_first = B::float_sub(
        B::float_mul(first.clone(), cos.clone()),
        B::float_mul(second.clone(), sin.clone()),
    );
    let rotated_second = B::float_add(B::float_mul(second, cos), B::float_mul(first, sin));
    B::float_cast(
        B::float_cat(vec![rotated_first, rotated_second], 3),
        dtype.into(),
    )
}
