//! SwiGLU on the CPU: one pass over the numbers, every element on its own.

use burn::backend::TensorMetadata;
use burn_flex::FlexTensor;

use super::flex::{self, contiguous, for_each_chunk_pair};
use super::vector::{Isa, fma, multiversion, sigmoid};
use crate::kernels::cpu::for_each_chunk;

multiversion! {
    /// `y = silu(gate) * up`.
    fn swiglu_run<const FMA: bool>(gate: &[f32], up: &[f32], y: &mut [f32]) {
        for ((y, &g), &u) in y.iter_mut().zip(gate).zip(up) {
            *y = g * sigmoid::<FMA>(g) * u;
        }
    }

    /// Overwrites `gate` with its gradient, and `dy`, the gradient of the result, with that of `up`.
    fn gradients_run<const FMA: bool>(gate: &mut [f32], up: &[f32], dy: &mut [f32]) {
        for ((g, d), &u) in gate.iter_mut().zip(dy.iter_mut()).zip(up) {
            let s = sigmoid::<FMA>(*g);
            let silu = *g * s;
            let slope = fma::<FMA>(silu, 1.0 - s, s);
            *g = *d * u * slope;
            *d *= silu;
        }
    }
}

/// See [`super::SwigluOps::swiglu`].
pub(super) fn swiglu(gate: FlexTensor, up: FlexTensor) -> FlexTensor {
    let (dtype, shape) = (TensorMetadata::dtype(&up), TensorMetadata::shape(&up));
    let (gate, up) = (contiguous(gate), contiguous(up));
    let (gate, up) = (gate.storage::<f32>(), up.storage::<f32>());
    let isa = Isa::detect();
    let size = flex::rows_per_task(1);
    let mut y = vec![0.0; up.len()];
    for_each_chunk(&mut y, size, |task, y| {
        let at = task * size..task * size + y.len();
        swiglu_run(isa, &gate[at.clone()], &up[at], y);
    });
    flex::tensor(y, shape, dtype)
}

/// See [`super::SwigluOps::swiglu_gradients`].
pub(super) fn gradients(
    gate: FlexTensor,
    up: FlexTensor,
    dy: FlexTensor,
) -> (FlexTensor, FlexTensor) {
    let (gate_dtype, up_dtype) = (TensorMetadata::dtype(&gate), TensorMetadata::dtype(&up));
    let (mut gate, up, mut dy) = (contiguous(gate), contiguous(up), contiguous(dy));
    let isa = Isa::detect();
    let size = flex::rows_per_task(1);
    let up = up.storage::<f32>();
    for_each_chunk_pair(
        gate.storage_mut(),
        dy.storage_mut(),
        size,
        |task, gate, dy| {
            gradients_run(isa, gate, &up[task * size..task * size + dy.len()], dy);
        },
    );
    (
        flex::to_dtype(gate, gate_dtype),
        flex::to_dtype(dy, up_dtype),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::swiglu::testing::numbers;

    #[test]
    fn instruction_sets_agree() {
        for n in [0, 1, 5, 16, 31, 32, 33, 100, 257] {
            let scaled = |seed| {
                numbers(seed, n)
                    .iter()
                    .map(|x| x * 8.0)
                    .collect::<Vec<f32>>()
            };
            let (gate, up, dy) = (scaled(1), scaled(2), scaled(3));
            let run = |isa| {
                let mut y = vec![0.0; n];
                swiglu_run(isa, &gate, &up, &mut y);
                let (mut dgate, mut dup) = (gate.clone(), dy.clone());
                gradients_run(isa, &mut dgate, &up, &mut dup);
                [y, dgate, dup].concat()
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
