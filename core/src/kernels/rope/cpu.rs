//! Rotary embedding on the CPU: in place, tokens in parallel.

use burn::backend::TensorMetadata;
use burn_flex::FlexTensor;

use crate::kernels::cpu::for_each_chunk;
use crate::kernels::swiglu::flex::{self, contiguous};
use crate::kernels::swiglu::vector::{Isa, fma, multiversion};

/// Features rotated per step; heads are short, so the steps must be too.
const STEP: usize = 8;

multiversion! {
    /// Rotates the heads of one token, `[heads, 2 * cos.len()]`; `sign` is -1 to turn back.
    fn rotate_token<const FMA: bool>(x: &mut [f32], cos: &[f32], sin: &[f32], sign: f32) {
        let half = cos.len();
        let (cos_steps, cos_rest) = cos.as_chunks::<STEP>();
        let (sin_steps, sin_rest) = sin.as_chunks::<STEP>();
        for head in x.chunks_exact_mut(2 * half) {
            let (first, second) = head.split_at_mut(half);
            let (firsts, first_rest) = first.as_chunks_mut::<STEP>();
            let (seconds, second_rest) = second.as_chunks_mut::<STEP>();
            let angles = cos_steps.iter().zip(sin_steps);
            for ((a, b), (cos, sin)) in firsts.iter_mut().zip(seconds).zip(angles) {
                for i in 0..STEP {
                    let (x, y, s) = (a[i], b[i], sin[i] * sign);
                    a[i] = fma::<FMA>(x, cos[i], -(y * s));
                    b[i] = fma::<FMA>(y, cos[i], x * s);
                }
            }
            let angles = cos_rest.iter().zip(sin_rest);
            for ((a, b), (&cos, &sin)) in first_rest.iter_mut().zip(second_rest).zip(angles) {
                let (x, y, s) = (*a, *b, sin * sign);
                *a = fma::<FMA>(x, cos, -(y * s));
                *b = fma::<FMA>(y, cos, x * s);
            }
        }
    }
}

/// See [`super::RopeOps::rope`].
pub(super) fn rope(x: FlexTensor, cos: FlexTensor, sin: FlexTensor, inverse: bool) -> FlexTensor {
    let (dtype, shape) = (TensorMetadata::dtype(&x), TensorMetadata::shape(&x));
    let (mut x, cos, sin) = (contiguous(x), contiguous(cos), contiguous(sin));
    let (cos, sin) = (cos.storage::<f32>(), sin.storage::<f32>());
    let (isa, sign) = (Isa::detect(), if inverse { -1.0 } else { 1.0 });
    let (token, half) = (shape[2] * shape[3], shape[3] / 2);
    if token == 0 {
        return flex::to_dtype(x, dtype);
    }
    let tokens = flex::rows_per_task(token);
    for_each_chunk(x.storage_mut(), tokens * token, |task, x| {
        let at = task * tokens * half;
        let angles = cos[at..]
            .chunks_exact(half)
            .zip(sin[at..].chunks_exact(half));
        for (x, (cos, sin)) in x.chunks_exact_mut(token).zip(angles) {
            rotate_token(isa, x, cos, sin, sign);
        }
    });
    flex::to_dtype(x, dtype)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::swiglu::testing::numbers;

    #[test]
    fn instruction_sets_agree() {
        for half in [1, 2, 7, 8, 9, 24, 32] {
            let (x, cos, sin) = (numbers(1, 6 * half), numbers(2, half), numbers(3, half));
            let run = |isa| {
                let mut x = x.clone();
                rotate_token(isa, &mut x, &cos, &sin, -1.0);
                x
            };
            let portable = run(Isa::Portable);
            for isa in Isa::all() {
                for (a, b) in run(isa).iter().zip(&portable) {
                    assert!((a - b).abs() <= 1e-6, "{isa:?}, half {half}: {a} and {b}");
                }
            }
        }
    }
}
