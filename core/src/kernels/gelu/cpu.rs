//! GELU on the CPU: one pass over the numbers, every element on its own.
//!
//! The tail of the distribution is `Φ(-|x|) = p(t) exp(-x²/2) / 2` with `t = 1 / (1 + c |x| / √2)` and a polynomial of
//! degree 5 (Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26): absolute error below 1e-7, and its
//! exponential is also the density that the gradient needs.

use burn::backend::TensorMetadata;
use burn_flex::FlexTensor;

use crate::kernels::cpu::for_each_chunk;
use crate::kernels::swiglu::flex::{self, contiguous};
use crate::kernels::swiglu::vector::{Isa, exp, fma, multiversion};

/// `Φ(x)` and `exp(-x²/2)`.
#[inline(always)]
fn distribution<const FMA: bool>(x: f32) -> (f32, f32) {
    const SLOPE: f32 = 0.327_591_1 * std::f32::consts::FRAC_1_SQRT_2;
    let e = exp::<FMA>(-0.5 * x * x);
    let t = 1.0 / fma::<FMA>(x.abs(), SLOPE, 1.0);
    let mut p = 1.061_405_4;
    p = fma::<FMA>(p, t, -1.453_152_1);
    p = fma::<FMA>(p, t, 1.421_413_8);
    p = fma::<FMA>(p, t, -0.284_496_72);
    p = fma::<FMA>(p, t, 0.254_829_6);
    let tail = 0.5 * p * t * e;
    (if x < 0.0 { tail } else { 1.0 - tail }, e)
}

multiversion! {
    /// `y = x Φ(x)`.
    fn gelu_run<const FMA: bool>(x: &[f32], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = x * distribution::<FMA>(x).0;
        }
    }

    /// `dy = dy (Φ(x) + x φ(x))`, in place.
    fn gradient_run<const FMA: bool>(x: &[f32], dy: &mut [f32]) {
        /// `1 / √(2π)`.
        const DENSITY: f32 = 0.398_942_3;
        for (d, &x) in dy.iter_mut().zip(x) {
            let (phi, e) = distribution::<FMA>(x);
            *d *= fma::<FMA>(x * DENSITY, e, phi);
        }
    }
}

/// See [`super::GeluOps::exact_gelu`].
pub(super) fn gelu(x: FlexTensor) -> FlexTensor {
    let (dtype, shape) = (TensorMetadata::dtype(&x), TensorMetadata::shape(&x));
    let x = contiguous(x);
    let x = x.storage::<f32>();
    let (isa, size) = (Isa::detect(), flex::rows_per_task(1));
    let mut y = vec![0.0; x.len()];
    for_each_chunk(&mut y, size, |task, y| {
        gelu_run(isa, &x[task * size..task * size + y.len()], y);
    });
    flex::tensor(y, shape, dtype)
}

/// See [`super::GeluOps::exact_gelu_gradient`].
pub(super) fn gradient(x: FlexTensor, dy: FlexTensor) -> FlexTensor {
    let dtype = TensorMetadata::dtype(&dy);
    let (x, mut dy) = (contiguous(x), contiguous(dy));
    let x = x.storage::<f32>();
    let (isa, size) = (Isa::detect(), flex::rows_per_task(1));
    for_each_chunk(dy.storage_mut(), size, |task, dy| {
        gradient_run(isa, &x[task * size..task * size + dy.len()], dy);
    });
    flex::to_dtype(dy, dtype)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::swiglu::testing::numbers;

    #[test]
    fn instruction_sets_agree() {
        for n in [0, 1, 5, 31, 32, 33, 100, 257] {
            let x: Vec<f32> = numbers(1, n).iter().map(|x| x * 6.0).collect();
            let dy = numbers(2, n);
            let run = |isa| {
                let (mut y, mut dx) = (vec![0.0; n], dy.clone());
                gelu_run(isa, &x, &mut y);
                gradient_run(isa, &x, &mut dx);
                [y, dx].concat()
            };
            let portable = run(Isa::Portable);
            for isa in Isa::all() {
                for (a, b) in run(isa).iter().zip(&portable) {
                    assert!(
                        (a - b).abs() <= 1e-6 * b.abs().max(1.0),
                        "{isa:?}, n {n}: {a} and {b}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_ends_are_the_identity_and_zero_and_nan_stays() {
        for isa in Isa::all() {
            let x = [40.0, 1e30, -40.0, f32::NAN, 0.0];
            let mut y = [7.0; 5];
            gelu_run(isa, &x, &mut y);
            assert_eq!(y[..3], [40.0, 1e30, -0.0], "{isa:?}");
            assert!(y[3].is_nan() && y[4] == 0.0, "{isa:?}");
            let mut dy = [1.0; 5];
            gradient_run(isa, &x, &mut dy);
            assert_eq!(dy[..3], [1.0, 1.0, 0.0], "{isa:?}");
        }
    }
}
