//! RMS normalization on the CPU: each row is read twice and written once, rows in parallel.

use burn::backend::TensorMetadata;
use burn::tensor::Shape;
use burn_flex::FlexTensor;

use crate::kernels::cpu::for_each_chunk;
use crate::kernels::swiglu::flex::{self, contiguous};
use crate::kernels::swiglu::vector::{Isa, LANES, fma, multiversion, sum_lanes};

multiversion! {
    /// The sum of squares.
    fn sum_squares<const FMA: bool>(x: &[f32]) -> f32 {
        let (chunks, rest) = x.as_chunks::<LANES>();
        let mut lanes = [0.0; LANES];
        for x in chunks {
            for i in 0..LANES {
                lanes[i] = fma::<FMA>(x[i], x[i], lanes[i]);
            }
        }
        let mut sum = sum_lanes(lanes);
        for &x in rest {
            sum = fma::<FMA>(x, x, sum);
        }
        sum
    }

    /// The sum of `x * weight * dy`.
    fn sum_products<const FMA: bool>(x: &[f32], weight: &[f32], dy: &[f32]) -> f32 {
        let ((xs, x), (weights, weight)) = (x.as_chunks::<LANES>(), weight.as_chunks::<LANES>());
        let (dys, dy) = dy.as_chunks::<LANES>();
        let mut lanes = [0.0; LANES];
        for ((x, w), d) in xs.iter().zip(weights).zip(dys) {
            for i in 0..LANES {
                lanes[i] = fma::<FMA>(x[i], w[i] * d[i], lanes[i]);
            }
        }
        let mut sum = sum_lanes(lanes);
        for ((&x, &w), &d) in x.iter().zip(weight).zip(dy) {
            sum = fma::<FMA>(x, w * d, sum);
        }
        sum
    }

    /// `y = x * scale * weight`.
    fn scale_run<const FMA: bool>(x: &[f32], weight: &[f32], scale: f32, y: &mut [f32]) {
        for ((y, &x), &w) in y.iter_mut().zip(x).zip(weight) {
            *y = x * scale * w;
        }
    }

    /// `dy = dy * weight * scale - x * shift`, in place.
    fn grad_run<const FMA: bool>(x: &[f32], weight: &[f32], scale: f32, shift: f32, dy: &mut [f32]) {
        for ((d, &x), &w) in dy.iter_mut().zip(x).zip(weight) {
            *d = fma::<FMA>(*d * w, scale, -(x * shift));
        }
    }

    /// `sum += dy * x * scale`.
    fn accumulate_run<const FMA: bool>(x: &[f32], dy: &[f32], scale: f32, sum: &mut [f32]) {
        for ((s, &x), &d) in sum.iter_mut().zip(x).zip(dy) {
            *s = fma::<FMA>(x * scale, d, *s);
        }
    }
}

fn inverse_rms(isa: Isa, x: &[f32], eps: f32) -> f32 {
    1.0 / (sum_squares(isa, x) / x.len() as f32 + eps).sqrt()
}

/// See [`super::RmsNormOps::rms_norm`].
pub(super) fn rms_norm(x: FlexTensor, weight: FlexTensor, eps: f64) -> FlexTensor {
    let (dtype, shape) = (TensorMetadata::dtype(&x), TensorMetadata::shape(&x));
    let (x, weight) = (contiguous(x), contiguous(weight));
    let (x, weight) = (x.storage::<f32>(), weight.storage::<f32>());
    let (isa, eps, hidden) = (Isa::detect(), eps as f32, shape[1].max(1));
    let size = flex::rows_per_task(hidden) * hidden;
    let mut y = vec![0.0; x.len()];
    for_each_chunk(&mut y, size, |task, y| {
        let x = x[task * size..].chunks_exact(hidden);
        for (y, x) in y.chunks_exact_mut(hidden).zip(x) {
            scale_run(isa, x, weight, inverse_rms(isa, x, eps), y);
        }
    });
    flex::tensor(y, shape, dtype)
}

/// See [`super::RmsNormOps::rms_norm_grad_x`].
pub(super) fn grad_x(x: FlexTensor, weight: FlexTensor, dy: FlexTensor, eps: f64) -> FlexTensor {
    let (dtype, hidden) = (
        TensorMetadata::dtype(&x),
        TensorMetadata::shape(&x)[1].max(1),
    );
    let (x, weight, mut dy) = (contiguous(x), contiguous(weight), contiguous(dy));
    let (x, weight) = (x.storage::<f32>(), weight.storage::<f32>());
    let (isa, eps) = (Isa::detect(), eps as f32);
    let size = flex::rows_per_task(hidden) * hidden;
    for_each_chunk(dy.storage_mut(), size, |task, dy| {
        let x = x[task * size..].chunks_exact(hidden);
        for (dy, x) in dy.chunks_exact_mut(hidden).zip(x) {
            // With n = x r: dx = r (dy w - n mean(dy w n)) = (dy w) r - x r³ mean(dy w x).
            let r = inverse_rms(isa, x, eps);
            let mean = sum_products(isa, x, weight, dy) / hidden as f32;
            grad_run(isa, x, weight, r, r * r * r * mean, dy);
        }
    });
    flex::to_dtype(dy, dtype)
}

/// See [`super::RmsNormOps::rms_norm_grad_weight`].
pub(super) fn grad_weight(x: FlexTensor, dy: FlexTensor, eps: f64) -> FlexTensor {
    let (dtype, hidden) = (TensorMetadata::dtype(&x), TensorMetadata::shape(&x)[1]);
    let (x, dy) = (contiguous(x), contiguous(dy));
    let (x, dy) = (x.storage::<f32>(), dy.storage::<f32>());
    let (isa, eps) = (Isa::detect(), eps as f32);
    let size = flex::rows_per_task(hidden) * hidden;
    // One partial sum per task, added in order: the same bits whatever thread ran what.
    let mut partial = vec![0.0; x.len().div_ceil(size.max(1)) * hidden];
    for_each_chunk(&mut partial, hidden.max(1), |task, sum| {
        let at = task * size..((task + 1) * size).min(x.len());
        let rows = x[at.clone()]
            .chunks_exact(hidden)
            .zip(dy[at].chunks_exact(hidden));
        for (x, dy) in rows {
            accumulate_run(isa, x, dy, inverse_rms(isa, x, eps), sum);
        }
    });
    let mut sum = vec![0.0; hidden];
    for part in partial.chunks_exact(hidden.max(1)) {
        for (sum, part) in sum.iter_mut().zip(part) {
            *sum += part;
        }
    }
    flex::tensor(sum, Shape::from([hidden]), dtype)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::swiglu::testing::numbers;

    #[test]
    fn instruction_sets_agree() {
        for n in [1, 5, 31, 32, 33, 48, 100, 288] {
            let (x, w, dy) = (numbers(1, n), numbers(2, n), numbers(3, n));
            let run = |isa| {
                let (mut y, mut dx, mut dw) = (vec![0.0; n], dy.clone(), w.clone());
                scale_run(isa, &x, &w, 0.7, &mut y);
                grad_run(isa, &x, &w, 0.7, 0.3, &mut dx);
                accumulate_run(isa, &x, &dy, 0.7, &mut dw);
                let sums = vec![sum_squares(isa, &x), sum_products(isa, &x, &w, &dy)];
                [y, dx, dw, sums].concat()
            };
            let portable = run(Isa::Portable);
            for isa in Isa::all() {
                for (a, b) in run(isa).iter().zip(&portable) {
                    assert!(
                        (a - b).abs() <= 2e-6 * b.abs().max(1.0),
                        "{isa:?}, n {n}: {a} and {b}"
                    );
                }
            }
        }
    }
}
