//! What the normalizations over the last dimension share: rows in parallel, sums over rows in a fixed order.

use burn::backend::{Backend, TensorMetadata, tensor::FloatTensor};
use burn::tensor::{DType, FloatDType, Shape};
use burn_flex::FlexTensor;

use super::cpu::for_each_chunk;
use super::swiglu::flex::{self, contiguous};

/// The shape of `weight` for `x`, `[rows, hidden]`.
pub(super) fn weight_shape(x: &Shape) -> Shape {
    Shape::from([x[1]])
}

/// Type, and elements per row and per task, of `x`, `[rows, hidden]`.
fn layout(x: &FlexTensor) -> (DType, usize, usize) {
    let hidden = TensorMetadata::shape(x)[1].max(1);
    let size = flex::rows_per_task(hidden) * hidden;
    (TensorMetadata::dtype(x), hidden, size)
}

/// A result with a row for every row of `x`, which `run(x, y)` fills.
pub(super) fn map_rows(
    x: FlexTensor,
    run: impl Fn(&[f32], &mut [f32]) + Send + Sync,
) -> FlexTensor {
    let (dtype, hidden, size) = layout(&x);
    let shape = TensorMetadata::shape(&x);
    let x = contiguous(x);
    let x = x.storage::<f32>();
    let mut y = vec![0.0; x.len()];
    for_each_chunk(&mut y, size, |task, y| {
        let x = x[task * size..].chunks_exact(hidden);
        y.chunks_exact_mut(hidden)
            .zip(x)
            .for_each(|(y, x)| run(x, y));
    });
    flex::tensor(y, shape, dtype)
}

/// The gradient for `x` in the buffer of `dy`, which `run(x, dy)` overwrites row by row.
pub(super) fn overwrite_rows(
    x: FlexTensor,
    dy: FlexTensor,
    run: impl Fn(&[f32], &mut [f32]) + Send + Sync,
) -> FlexTensor {
    let (dtype, hidden, size) = layout(&x);
    let (x, mut dy) = (contiguous(x), contiguous(dy));
    let x = x.storage::<f32>();
    for_each_chunk(dy.storage_mut(), size, |task, dy| {
        let x = x[task * size..].chunks_exact(hidden);
        dy.chunks_exact_mut(hidden)
            .zip(x)
            .for_each(|(dy, x)| run(x, dy));
    });
    flex::to_dtype(dy, dtype)
}

/// A sum over rows, `[hidden]`, to which `run(x, dy, sum)` adds a row.
pub(super) fn sum_rows(
    x: FlexTensor,
    dy: FlexTensor,
    run: impl Fn(&[f32], &[f32], &mut [f32]) + Send + Sync,
) -> FlexTensor {
    let (dtype, hidden, size) = layout(&x);
    let shape = weight_shape(&TensorMetadata::shape(&x));
    let (x, dy) = (contiguous(x), contiguous(dy));
    let (x, dy) = (x.storage::<f32>(), dy.storage::<f32>());
    // One partial sum per task, added in order: the same bits whatever thread ran what.
    let mut partial = vec![0.0; x.len().div_ceil(size) * shape[0]];
    for_each_chunk(&mut partial, hidden, |task, sum| {
        let at = task * size..((task + 1) * size).min(x.len());
        let dy = dy[at.clone()].chunks_exact(hidden);
        x[at]
            .chunks_exact(hidden)
            .zip(dy)
            .for_each(|(x, dy)| run(x, dy, sum));
    });
    let mut sum = vec![0.0; shape[0]];
    for part in partial.chunks_exact(hidden) {
        sum.iter_mut().zip(part).for_each(|(s, p)| *s += p);
    }
    flex::tensor(sum, shape, dtype)
}

/// `[hidden]` to `[1, hidden]`, f32, of burn's own operations.
pub(super) fn row<B: Backend>(weight: FloatTensor<B>) -> FloatTensor<B> {
    let hidden = weight.shape()[0];
    B::float_reshape(
        B::float_cast(weight, FloatDType::F32),
        Shape::from([1, hidden]),
    )
}

/// The sum over the rows of `x`, `[hidden]` in `dtype`, of burn's own operations.
pub(super) fn total<B: Backend>(x: FloatTensor<B>, dtype: FloatDType) -> FloatTensor<B> {
    let shape = weight_shape(&x.shape());
    B::float_cast(B::float_reshape(B::float_sum_dim(x, 0), shape), dtype)
}
