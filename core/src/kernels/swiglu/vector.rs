//! Loops the compiler turns into SIMD: one body, compiled for AVX-512, for AVX2+FMA and for the base of the
//! target, chosen at run time.
//!
//! The order of every sum is written out (fixed lanes), so a result depends on the shapes and the instruction set
//! alone. The exponential is Cody and Waite's reduction with the polynomial of Cephes' `expf`
//! (<https://www.netlib.org/cephes/>): error below 2 ulp.

/// Instruction sets the loops are compiled for. Values other than `Portable` only come from [`Isa::detect`] and
/// [`Isa::all`], which is what makes calling the `target_feature` functions sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isa {
    /// 512-bit registers.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// 256-bit registers and fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// What the target guarantees.
    Portable,
}

impl Isa {
    /// The widest set this processor has.
    pub(crate) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if Self::has_avx512() {
                return Self::Avx512;
            }
            if Self::has_avx2() {
                return Self::Avx2;
            }
        }
        Self::Portable
    }

    /// Every set this processor has.
    #[cfg(test)]
    pub(crate) fn all() -> Vec<Self> {
        let mut all = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if Self::has_avx2() {
                all.push(Self::Avx2);
            }
            if Self::has_avx512() {
                all.push(Self::Avx512);
            }
        }
        all
    }

    #[cfg(target_arch = "x86_64")]
    fn has_avx2() -> bool {
        std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma")
    }

    #[cfg(target_arch = "x86_64")]
    fn has_avx512() -> bool {
        Self::has_avx2()
            && std::is_x86_feature_detected!("avx512f")
            && std::is_x86_feature_detected!("avx512vl")
            && std::is_x86_feature_detected!("avx512dq")
    }
}

/// Whether the target itself has a fused multiply-add; elsewhere `mul_add` would call a slow library function.
pub(crate) const BASE_FMA: bool = cfg!(target_arch = "aarch64");

/// Defines a function once per instruction set; its first argument becomes the [`Isa`] to run.
///
/// `FMA` says, inside the body, whether a fused multiply-add is one instruction.
macro_rules! multiversion {
    ($(
        $(#[$meta:meta])*
        fn $name:ident<const $fma:ident: bool>($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block
    )*) => {$(
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        pub(crate) fn $name(isa: $crate::kernels::swiglu::vector::Isa, $($arg: $ty),*) $(-> $ret)? {
            use $crate::kernels::swiglu::vector::{BASE_FMA, Isa};
            // Lanes read best by number.
            #[allow(clippy::needless_range_loop)]
            #[inline(always)]
            fn body<const $fma: bool>($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx2,fma")]
            fn avx512($($arg: $ty),*) $(-> $ret)? {
                body::<true>($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $ty),*) $(-> $ret)? {
                body::<true>($($arg),*)
            }
            match isa {
                #[cfg(target_arch = "x86_64")]
                #[allow(unsafe_code)]
                // SAFETY: `Avx512` is only made after detecting the features.
                Isa::Avx512 => unsafe { avx512($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                #[allow(unsafe_code)]
                // SAFETY: `Avx2` is only made after detecting the features.
                Isa::Avx2 => unsafe { avx2($($arg),*) },
                Isa::Portable => body::<BASE_FMA>($($arg),*),
            }
        }
    )*};
}
pub(crate) use multiversion;

/// `a * b + c`, fused where that is one instruction.
#[inline(always)]
pub(crate) fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Partial sums held side by side; enough for two of the widest registers.
pub(crate) const LANES: usize = 32;

/// The sum of a set of lanes, in halves: the same tree on every machine.
#[inline(always)]
pub(crate) fn sum_lanes(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// `e^x`; below -87.3 it is 0, above 88.37 infinite; NaN stays NaN.
#[inline(always)]
pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
    /// Adding 1.5 * 2^23 leaves the nearest whole number in the low bits.
    const SHIFT: f32 = 12_582_912.0;
    /// ln 2 in two parts, the first of 10 bits so that its multiples are exact.
    const LN2_HIGH: f32 = 355.0 / 512.0;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let shifted = fma::<FMA>(x, std::f32::consts::LOG2_E, SHIFT);
    let n = shifted - SHIFT;
    let r = fma::<FMA>(n, -LN2_LOW, fma::<FMA>(n, -LN2_HIGH, x));
    let mut p = 1.987_569_1e-4;
    p = fma::<FMA>(p, r, 1.398_199_9e-3);
    p = fma::<FMA>(p, r, 8.333_452e-3);
    p = fma::<FMA>(p, r, 4.166_579_6e-2);
    p = fma::<FMA>(p, r, 1.666_666_5e-1);
    p = fma::<FMA>(p, r, 0.5);
    p = fma::<FMA>(p, r * r, r) + 1.0;
    // 2^n, straight from the low bits of `shifted` into the exponent.
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    let y = p * power;
    let y = if x < -87.3 { 0.0 } else { y };
    if x > 88.37 { f32::INFINITY } else { y }
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn sigmoid<const FMA: bool>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<FMA>(-x))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    multiversion! {
        fn exp_all<const FMA: bool>(x: &[f32], y: &mut [f32]) {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = exp::<FMA>(x);
            }
        }
    }

    #[test]
    fn exp_is_within_two_ulp() {
        let mut x: Vec<f32> = (-872_999..883_600).map(|i| i as f32 * 1e-4).collect();
        x.extend([0.0, -0.0, f32::MIN_POSITIVE, 1e-20, -1e-20]);
        for isa in Isa::all() {
            let mut y = vec![0.0; x.len()];
            exp_all(isa, &x, &mut y);
            let worst = x.iter().zip(&y).map(|(&x, &y)| {
                let exact = f64::from(x).exp();
                let ulp = f64::from(f32::from_bits((exact as f32).to_bits() + 1))
                    - f64::from(exact as f32);
                ((f64::from(y) - exact) / ulp).abs()
            });
            let worst = worst.fold(0.0, f64::max);
            assert!(worst < 2.0, "{isa:?}: {worst} ulp");
        }
    }

    #[test]
    fn exp_at_the_ends() {
        for isa in Isa::all() {
            let x = [
                -1e30,
                f32::NEG_INFINITY,
                -87.4,
                89.0,
                f32::INFINITY,
                1e30,
                f32::NAN,
                0.0,
            ];
            let mut y = [7.0; 8];
            exp_all(isa, &x, &mut y);
            assert_eq!(y[..3], [0.0; 3], "{isa:?}");
            assert_eq!(y[3..6], [f32::INFINITY; 3], "{isa:?}");
            assert!(y[6].is_nan() && y[7] == 1.0, "{isa:?}");
        }
    }

    #[test]
    fn lanes_add_up() {
        let lanes = std::array::from_fn(|i| i as f32);
        assert_eq!(sum_lanes(lanes), (LANES * (LANES - 1) / 2) as f32);
    }
}
