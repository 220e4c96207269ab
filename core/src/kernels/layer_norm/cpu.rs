//! Layer normalization on the CPU: each row is read three times from the cache and written once, rows in parallel.

use burn_flex::FlexTensor;

use crate::kernels::norm;
use crate::kernels::swiglu::flex::contiguous;
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
    let [weight, bias] = [weight, bias].map(contiguous);
    let [weight, bias] = [&weight, &bias].map(|t| t.storage::<f32>());
    let (isa, eps) = (Isa::detect(), eps as f32);
    norm::map_rows(x, |x, y| {
        let (mean, r) = moments(isa, x, eps);
        scale_run(isa, x, mean, r, weight, bias, y);
    })
}

/// See [`super::LayerNormOps::layer_norm_grad_x`].
pub(super) fn grad_x(x: FlexTensor, weight: FlexTensor, dy: FlexTensor, eps: f64) -> FlexTensor {
    let weight = contiguous(weight);
    let (weight, isa, eps) = (weight.storage::<f32>(), Isa::detect(), eps as f32);
    norm::overwrite_rows(x, dy, |x, dy| {
        // With c = x - mean, n = c r and g = dy w: dx = r (g - mean(g) - n mean(g n)) = r (g - mean(g)) - c r³ mean(g c).
        let (mean, r) = moments(isa, x, eps);
        let count = x.len() as f32;
        let level = sum_products(isa, weight, dy) / count;
        let along = sum_moments(isa, x, mean, weight, dy) / count;
        grad_run(isa, x, mean, weight, level, r, r * r * r * along, dy);
    })
}

/// See [`super::LayerNormOps::layer_norm_grad_weight`].
pub(super) fn grad_weight(x: FlexTensor, dy: FlexTensor, eps: f64) -> FlexTensor {
    let (isa, eps) = (Isa::detect(), eps as f32);
    norm::sum_rows(x, dy, |x, dy, sum| {
        let (mean, r) = moments(isa, x, eps);
        accumulate_run(isa, x, mean, r, dy, sum);
    })
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
