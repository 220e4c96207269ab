//! Passes over a tile of transposed logits (`[entries, rows]`), every lane one position, and their exponential.
//!
//! The loops are plain Rust that the compiler vectorizes; they are compiled three times, for AVX-512, for AVX2+FMA and
//! for the baseline, and chosen at run time.

/// `exp(x)` for `x <= 0`: 0 below -87.3, NaN for NaN. Within 2 units in the last place.
///
/// `x = n ln 2 + r`, `|r| <= ln 2 / 2`; `n` by adding 1.5 * 2^23, which leaves it in the low mantissa bits; `exp(r)`
/// by a polynomial of degree 6 with the coefficients of Cephes' `expf`; `2^n` by adding `n` to the exponent.
#[inline(always)]
fn exp_negative<const FMA: bool>(x: f32) -> f32 {
    const SMALLEST: f32 = -87.3;
    const ROUND: f32 = 12_582_912.0;
    #[inline(always)]
    fn madd<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
        if FMA { a.mul_add(b, c) } else { a * b + c }
    }
    // NaN fails the comparison and stays.
    let clamped = if x < SMALLEST { SMALLEST } else { x };
    let shifted = madd::<FMA>(clamped, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = madd::<FMA>(n, -0.693_359_4, clamped);
    let r = madd::<FMA>(n, 2.121_944_4e-4, r);
    let mut p = 1.987_569_1e-4;
    p = madd::<FMA>(p, r, 1.398_2e-3);
    p = madd::<FMA>(p, r, 8.333_452e-3);
    p = madd::<FMA>(p, r, 4.166_579_6e-2);
    p = madd::<FMA>(p, r, 1.666_666_5e-1);
    p = madd::<FMA>(p, r, 0.5);
    let p = madd::<FMA>(p, r * r, r) + 1.0;
    let scaled = f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23));
    if x < SMALLEST { 0.0 } else { scaled }
}

#[inline(always)]
fn max_tile_body<const FMA: bool>(logits: &[f32], max: &mut [f32]) {
    for entry in logits.chunks_exact(max.len()) {
        for (m, &l) in max.iter_mut().zip(entry) {
            *m = if l > *m { l } else { *m };
        }
    }
}

#[inline(always)]
fn exp_tile_body<const FMA: bool>(
    logits: &mut [f32],
    old: &[f32],
    max: &[f32],
    correction: &mut [f32],
    sum: &mut [f32],
) {
    for (c, (&old, &new)) in correction.iter_mut().zip(old.iter().zip(max)) {
        *c = exp_negative::<FMA>(old - new);
    }
    sum.fill(0.0);
    for entry in logits.chunks_exact_mut(max.len()) {
        for ((l, &m), s) in entry.iter_mut().zip(max).zip(sum.iter_mut()) {
            *l = exp_negative::<FMA>(*l - m);
            *s += *l;
        }
    }
}

#[inline(always)]
fn subtract_exp_tile_body<const FMA: bool>(logits: &mut [f32], offsets: &[f32], scale: f32) {
    for entry in logits.chunks_exact_mut(offsets.len()) {
        for (l, &o) in entry.iter_mut().zip(offsets) {
            let x = *l - o;
            // Rounding may leave the largest logit a little above the logarithm of the sum.
            *l = scale * exp_negative::<FMA>(if x > 0.0 { 0.0 } else { x });
        }
    }
}

/// Compiles a loop for each instruction set and chooses at run time.
macro_rules! multiversion {
    ($(#[$doc:meta])* $name:ident = $body:ident($($arg:ident: $type:ty),*)) => {
        $(#[$doc])*
        pub(super) fn $name($($arg: $type),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f")]
                fn avx512($($arg: $type),*) {
                    $body::<true>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $type),*) {
                    $body::<true>($($arg),*)
                }
                if std::is_x86_feature_detected!("avx512f") {
                    // SAFETY: the feature was just detected.
                    #[allow(unsafe_code)]
                    return unsafe { avx512($($arg),*) };
                }
                if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
                    // SAFETY: the features were just detected.
                    #[allow(unsafe_code)]
                    return unsafe { avx2($($arg),*) };
                }
            }
            // NEON always has fused multiply-add; elsewhere it would be a call.
            $body::<{ cfg!(target_arch = "aarch64") }>($($arg),*)
        }
    };
}

multiversion! {
    /// `max[r] = max(max[r], logits[.., r])`; a NaN logit is passed over here and shows in the sum.
    max_tile = max_tile_body(logits: &[f32], max: &mut [f32])
}
multiversion! {
    /// `correction = exp(old - max)`, `logits = exp(logits - max)`, `sum[r] = Σ logits[.., r]`.
    exp_tile = exp_tile_body(
        logits: &mut [f32], old: &[f32], max: &[f32], correction: &mut [f32], sum: &mut [f32]
    )
}
multiversion! {
    /// `logits = scale * exp(logits - offsets)`.
    subtract_exp_tile = subtract_exp_tile_body(logits: &mut [f32], offsets: &[f32], scale: f32)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;

    fn worst<const FMA: bool>() -> f64 {
        let mut worst = 0f64;
        for i in 0..2_000_000 {
            let x = -87.0 * (i as f32 / 2_000_000.0);
            let exact = f64::from(x).exp();
            let ulp = f64::from((exact as f32).next_up()) - f64::from(exact as f32);
            worst = worst.max((f64::from(exp_negative::<FMA>(x)) - exact).abs() / ulp);
        }
        worst
    }

    #[test]
    fn exponential_is_within_two_units_in_the_last_place() {
        assert!(worst::<true>() < 2.0, "{}", worst::<true>());
        assert!(worst::<false>() < 2.0, "{}", worst::<false>());
    }

    #[test]
    fn exponential_at_the_edges() {
        assert_eq!(exp_negative::<false>(0.0), 1.0);
        assert_eq!(exp_negative::<false>(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp_negative::<false>(-1e30), 0.0);
        assert!(exp_negative::<false>(f32::NAN).is_nan());
        assert!(exp_negative::<true>(f32::NAN).is_nan());
    }
}
