//! Rows of scores: to probabilities, and the gradient back.

use super::HIDDEN;
use crate::kernels::swiglu::vector::{LANES, exp, fma, multiversion, sum_lanes};

multiversion! {
    /// `scores = softmax(scores + bias)`, in place; all zeros where every key is hidden.
    fn softmax_row<const FMA: bool>(scores: &mut [f32], bias: &[f32]) {
        let mut lanes = [f32::NEG_INFINITY; LANES];
        let (chunks, rest) = scores.as_chunks_mut::<LANES>();
        let (bias_chunks, bias_rest) = bias.as_chunks::<LANES>();
        for (s, b) in chunks.iter_mut().zip(bias_chunks) {
            for i in 0..LANES {
                s[i] += b[i];
                lanes[i] = if s[i] > lanes[i] { s[i] } else { lanes[i] };
            }
        }
        let mut max = f32::NEG_INFINITY;
        for (s, b) in rest.iter_mut().zip(bias_rest) {
            *s += b;
            max = max.max(*s);
        }
        for lane in lanes {
            max = max.max(lane);
        }
        if max <= HIDDEN && scores.iter().all(|s| !s.is_nan()) {
            scores.fill(0.0);
            return;
        }
        let mut lanes = [0.0; LANES];
        let (chunks, rest) = scores.as_chunks_mut::<LANES>();
        for s in chunks {
            for i in 0..LANES {
                s[i] = exp::<FMA>(s[i] - max);
                lanes[i] += s[i];
            }
        }
        let mut sum = sum_lanes(lanes);
        for s in rest {
            *s = exp::<FMA>(*s - max);
            sum += *s;
        }
        let inverse = 1.0 / sum;
        for s in scores {
            *s *= inverse;
        }
    }

    /// `dp = scale p (dp - sum(p dp))`, in place: the gradient of the scores before scaling.
    fn gradient_row<const FMA: bool>(p: &[f32], dp: &mut [f32], scale: f32) {
        let (ps, p_rest) = p.as_chunks::<LANES>();
        let (dps, dp_rest) = dp.as_chunks::<LANES>();
        let mut lanes = [0.0; LANES];
        for (p, dp) in ps.iter().zip(dps) {
            for i in 0..LANES {
                lanes[i] = fma::<FMA>(p[i], dp[i], lanes[i]);
            }
        }
        let mut sum = sum_lanes(lanes);
        for (&p, &dp) in p_rest.iter().zip(dp_rest) {
            sum = fma::<FMA>(p, dp, sum);
        }
        for (dp, &p) in dp.iter_mut().zip(p) {
            *dp = scale * p * (*dp - sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::swiglu::{testing::numbers, vector::Isa};

    #[test]
    fn instruction_sets_agree() {
        for n in [1, 2, 5, 31, 32, 33, 64, 100, 257] {
            let (scores, mut bias, dp) = (numbers(1, n), numbers(2, n), numbers(3, n));
            bias[n / 2] = -1e30;
            bias[0] = 0.0;
            let run = |isa| {
                let (mut p, mut ds) = (scores.clone(), dp.clone());
                softmax_row(isa, &mut p, &bias);
                gradient_row(isa, &p, &mut ds, 0.3);
                [p, ds].concat()
            };
            let portable = run(Isa::Portable);
            let total: f32 = portable[..n].iter().sum();
            assert!(
                (total - 1.0).abs() < 1e-5,
                "n {n}: probabilities add up to {total}"
            );
            assert!(n == 1 || portable[n / 2] == 0.0);
            for isa in Isa::all() {
                for (a, b) in run(isa).iter().zip(&portable) {
                    assert!((a - b).abs() <= 2e-6, "{isa:?}, n {n}: {a} and {b}");
                }
            }
        }
    }

    #[test]
    fn nothing_to_see_gives_zeros_and_nan_stays() {
        for isa in Isa::all() {
            for n in [1, 32, 40] {
                let mut scores = vec![3.0; n];
                softmax_row(isa, &mut scores, &vec![-1e30; n]);
                assert_eq!(scores, vec![0.0; n]);
                let mut scores = vec![3.0; n];
                scores[n - 1] = f32::NAN;
                softmax_row(isa, &mut scores, &vec![0.0; n]);
                assert!(
                    scores.iter().all(|s| s.is_nan()),
                    "{isa:?}, n {n}: {scores:?}"
                );
            }
        }
    }
}
