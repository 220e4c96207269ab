//! Layer normalization on the CPU: each row is read three times from the cache and written once, rows in parallel.

use burn::backend::TensorMetadata;
use burn::tensor::Shape;
use burn_flex::FlexTensor;

use crate::kernels::cpu::for_each_chunk;
use crate::kernels::swiglu::flex::{self, contiguous};
use crate::kernels::swiglu::vector::{Isa, LANES, fma, multiversion, sum_lanes};

multiversion! {
    /// The sum.
    fn sum<const FMA: bool>(x: &[f32]) -> f32 {
        let (chunks, rest) = x.as_chunks::<LANES>();
        let mut lanes = [0.0; LANES];
        for x in chunks {
            for i in 0..LANES {
                lanes[i] += x[i];
            }
        }
        let mut sum = sum_lanes(lanes);
        for &x in rest {
            sum += x;
        }
        sum
    }

    /// The sum of `(x - mean)²`.
    fn sum_squares<const FMA: bool>(x: &[f32], mean: f32) -> f32 {
        let (chunks, rest) = x.as_chunks::<LANES>();
        let mut lanes = [0.0; LANES];
        for x in chunks {
            for i in 0..LANES {
                let centred = x[i] - mean;
                lanes[i] = fma::<FMA>(centred, centred, lanes[i]);
            }
        }
        let mut sum = sum_lanes(lanes);
        for &x in rest {
            sum = fma::<FMA>(x - mean, x - mean, sum);
        }
        sum
    }

    /// The sum of `weight * dy`.
    fn sum_products<const FMA: bool>(weight: &[f32], dy: &[f32]) -> f32 {
        let ((weights, weight), (dys, dy)) = (weight.as_chunks::<LANES>(), dy.as_chunks::<LANES>());
        let mut lanes = [0.0; LANES];
        for (w, d) in weights.iter().zip(dys) {
            for i in 0..LANES {
                lanes[i] = fma::<FMA>(w[i], d[i], lanes[i]);
            }
        }
        let mut sum = sum_lanes(lanes);
        for (&w, &d) in weight.iter().zip(dy) {
            sum = fma::<FMA>(w, d, sum);
        }
        sum
    }

    /// The sum of `(x - mean) * weight * dy`.
    fn sum_moments<const FMA: bool>(x: &[f32], mean: f32, weight: &[f32], dy: &[f32]) -> f32 {
        let ((xs, x), (weights, weight)) = (x.as_chunks::<LANES>(), weight.as_chunks::<LANES>());
        let (dys, dy) = dy.as_chunks::<LANES>();
        let mut lanes = [0.0; LANES];
        for ((x, w), d) in xs.iter().zip(weights).zip(dys) {
            for i in 0..LANES {
                lanes[i] = fma::<FMA>(x[i] - mean, w[i] * d[i], lanes[i]);
            }
        }
        let mut sum = sum_lanes(lanes);
        for ((&x, &w), &d) in x.iter().zip(weight).zip(dy) {
            sum = fma::<FMA>(x - mean, w * d, sum);
        }
        sum
    }

    /// `y = (x - mean) * scale * weight + bias`.
    fn scale_run<const FMA: bool>(x: &[f32], mean: f32, scale: f32, weight: &[f32], bias: &[f32], y: &mut [f32]) {
        for (((y, &x), &w), &b) in y.iter_mut().zip(x).zip(weight).zip(bias) {
            *y = fma::<FMA>((x - mean) * scale, w, b);
        }
    }

    /// `dy = (dy * weight - level) * scale - (x - mean) * shift`, in place.
    fn grad_run<const FMA: bool>(x: &[f32], mean: f32, weight: &[f32], level: f32, scale: f32, shift: f32, dy: &mut [f32]) {
        for ((d, &x), &w) in dy.iter_mut().zip(x).zip(weight) {
            *d = fma::<FMA>(fma::<FMA>(*d, w, -level), scale, -((x - mean) * shift));
        }
    }

    /// `sum += dy * (x - mean) * scale`.
    fn accumulate_run<const FMA: bool>(x: &[f32], mean: f32, scale: f32, dy: &[f32], sum: &mut [f32]) {
        for ((s, &x), &d) in sum.iter_mut().zip(x).zip(dy) {
            *s = fma::<FMA>((x - mean) * scale, d, *s);
        }
    }
}

/// Mean and inverse deviation of a row.
fn moments(isa: Isa, x: &[f32], eps: f32) -> (f32, f32) {
    let count = x.len() as f32;
    let mean = sum(isa, x) / count;
    (mean, 1.0 / (sum_squares(isa, x, mean) / count + eps).sqrt())
}

/// See [`super::LayerNormOps::affine_layer_norm`].
pub(super) fn layer_norm(
    x: FlexTensor,
    weight: FlexTensor,
    bias: FlexTensor,
    eps: f64,
) -> FlexTensor {
    let (dtype, shape) = (TensorMetadata::dtype(&x), TensorMetadata::shape(&x));
    let [x, weight, bias] = [x, weight, bias].map(contiguous);
    let [x, weight, bias] = [&x, &weight, &bias].map(|t| t.storage::<f32>());
    let (isa, eps, hidden) = (Isa::detect(), eps as f32, shape[1].max(1));
    let size = flex::rows_per_task(hidden) * hidden;
    let mut y = vec![0.0; x.len()];
    for_each_chunk(&mut y, size, |task, y| {
        let x = x[task * size..].chunks_exact(hidden);
        for (y, x) in y.chunks_exact_mut(hidden).zip(x) {
            let (mean, r) = moments(isa, x, eps);
            scale_run(isa, x, mean, r, weight, bias, y);
        }
    });
    flex::tensor(y, shape, dtype)
}

/// See [`super::LayerNormOps::layer_norm_grad_x`].
pub(super) fn grad_x(x: FlexTensor, weight: FlexTensor, dy: FlexTensor, eps: f64) -> FlexTensor {
    let (dtype, hidden) = (
        TensorMetadata::dtype(&x),
        TensorMetadata::shape(&x)[1].max(1),
    );
    let (x, weight, mut dy) = (contiguous(x), contiguous(weight), contiguous(dy));
    let (x, weight) = (x.storage::<f32>(), weight.storage::<f32>());
    let (isa, eps, count) = (Isa::detect(), eps as f32, hidden as f32);
    let size = flex::rows_per_task(hidden) * hidden;
    for_each_chunk(dy.storage_mut(), size, |task, dy| {
        let x = x[task * size..].chunks_exact(hidden);
        for (dy, x) in dy.chunks_exact_mut(hidden).zip(x) {
            // With c = x - mean, n = c r and g = dy w: dx = r (g - mean(g) - n mean(g n)) = r (g - mean(g)) - c r³ mean(g c).
            let (mean, r) = moments(isa, x, eps);
            let level = sum_products(isa, weight, dy) / count;
            let along = sum_moments(isa, x, mean, weight, dy) / count;
            grad_run(isa, x, mean, weight, level, r, r * r * r * along, dy);
        }
    });
    flex::to_dtype(dy, dtype)
}

/// See [`super::LayerNormOps::layer_norm_grad_weight`].
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
            let (mean, r) = moments(isa, x, eps);
            accumulate_run(isa, x, mean, r, dy, sum);
        }
    });
    let mut sum = vec![0.0; hidden];
    for part in partial.chunks_exact(hidden.max(1)) {
        sum.iter_mut().zip(part).for_each(|(s, p)| *s += p);
    }
    flex::tensor(sum, Shape::from([hidden]), dtype)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::swiglu::testing::numbers;

    #[test]
    fn instruction_sets_agree() {
        for n in [1, 5, 31, 32, 33, 48, 100, 384] {
            let (x, w, dy) = (numbers(1, n), numbers(2, n), numbers(3, n));
            let run = |isa| {
                let (mut y, mut dx, mut dw) = (vec![0.0; n], dy.clone(), w.clone());
                scale_run(isa, &x, 0.2, 0.7, &w, &dy, &mut y);
                grad_run(isa, &x, 0.2, &w, 0.1, 0.7, 0.3, &mut dx);
                accumulate_run(isa, &x, 0.2, 0.7, &dy, &mut dw);
                let sums = vec![
                    sum(isa, &x),
                    sum_squares(isa, &x, 0.2),
                    sum_products(isa, &w, &dy),
                    sum_moments(isa, &x, 0.2, &w, &dy),
                ];
                [y, dx, dw, sums].concat()
            };
            let portable = run(Isa::Portable);
            for isa in Isa::all() {
                for (a, b) in run(isa).iter().zip(&portable) {
                    assert!(
                        (a - b).abs() <= 4e-6 * b.abs().max(1.0),
                        "{isa:?}, n {n}: {a} and {b}"
                    );
                }
            }
        }
    }
}
