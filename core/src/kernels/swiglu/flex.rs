//! CPU tensors in and out of the kernels: contiguous f32, whatever they came as.

use burn::backend::{Flex, TensorMetadata, ops::FloatTensorOps};
use burn::tensor::{DType, FloatDType, Shape, TensorData};
use burn_flex::FlexTensor;

/// Elements per task: enough to outweigh the hand-over, few enough to share a small batch. The split must not
/// depend on the number of threads, which would make sums depend on it.
const TASK: usize = 1 << 14;

/// Rows of `width` elements for one task.
pub(crate) fn rows_per_task(width: usize) -> usize {
    (TASK / width.max(1)).max(1)
}

/// The tensor in f32; a tensor that already is stays as it is.
pub(crate) fn to_f32(x: FlexTensor) -> FlexTensor {
    match TensorMetadata::dtype(&x) {
        DType::F32 => x,
        _ => Flex::float_cast(x, FloatDType::F32),
    }
}

/// The tensor in contiguous f32. Where nothing had to change, the buffer is still the caller's, so that
/// `storage_mut` works in place if nobody else holds it.
pub(crate) fn contiguous(x: FlexTensor) -> FlexTensor {
    let x = to_f32(x);
    let copy = x.to_contiguous();
    drop(x);
    copy
}

/// A result that was computed in f32, in the type it was asked for.
pub(crate) fn to_dtype(x: FlexTensor, dtype: DType) -> FlexTensor {
    match dtype {
        DType::F32 => x,
        _ => Flex::float_cast(x, dtype.into()),
    }
}

/// A buffer as a tensor of `shape` in `dtype`.
pub(crate) fn tensor(data: Vec<f32>, shape: Shape, dtype: DType) -> FlexTensor {
    to_dtype(FlexTensor::from_data(TensorData::new(data, shape)), dtype)
}

/// Runs `work(index, chunk of a, chunk of b)` on every `size` elements of two buffers of one length, over the
/// threads where there are any.
pub(crate) fn for_each_chunk_pair(
    a: &mut [f32],
    b: &mut [f32],
    size: usize,
    work: impl Fn(usize, &mut [f32], &mut [f32]) + Send + Sync,
) {
    #[cfg(not(target_arch = "wasm32"))]
    if a.len() > size {
        use rayon::prelude::*;
        let pairs = a.par_chunks_mut(size).zip(b.par_chunks_mut(size));
        pairs
            .with_max_len(1)
            .enumerate()
            .for_each(|(i, (a, b))| work(i, a, b));
        return;
    }
    let pairs = a.chunks_mut(size).zip(b.chunks_mut(size));
    pairs.enumerate().for_each(|(i, (a, b))| work(i, a, b));
}
