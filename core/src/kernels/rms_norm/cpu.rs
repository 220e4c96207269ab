//! RMS normalization on the CPU: each row is read twice and written once, rows in parallel.

use burn_flex::FlexTensor;

use crate::kernels::norm;
use crate::kernels::swiglu::flex::contiguous;
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
    let weight = contiguous(weight);
    let (weight, isa, eps) = (weight.storage::<f32>(), Isa::detect(), eps as f32);
    norm::map_rows(x, |x, y| {
        scale_run(isa, x, weight, inverse_rms(isa, x, eps), y);
    })
}

/// See [`super::RmsNormOps::rms_norm_grad_x`].
pub(super) fn grad_x(x: FlexTensor, weight: FlexTensor, dy: FlexTensor, eps: f64) -> FlexTensor {
    let weight = contiguous(weight);
    let (weight, isa, eps) = (weight.storage::<f32>(), Isa::detect(), eps as f32);
    norm::overwrite_rows(x, dy, |x, dy| {
        // With n = x r: dx = r (dy w - n mean(dy w n)) = (dy w) r - x r³ mean(dy w x).
        let r = inverse_rms(isa, x, eps);
        let mean = sum_products(isa, x, weight, dy) / x.len() as f32;
        grad_run(isa, x, weight, r, r * r * r * mean, dy);
    })
}

/// See [`super::RmsNormOps::rms_norm_grad_weight`].
pub(super) fn grad_weight(x: FlexTensor, dy: FlexTensor, eps: f64) -> FlexTensor {
    let (isa, eps) = (Isa::detect(), eps as f32);
    norm::sum_rows(x, dy, |x, dy, sum| {
        accumulate_run(isa, x, dy, inverse_rms(isa, x, eps), sum);
    })
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
