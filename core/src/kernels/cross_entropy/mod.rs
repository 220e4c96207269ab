//! Fused linear cross-entropy: losses and gradients of a language-model head without the batch's logits.
//!
//! ```text
//! logits[n, vocab] = hidden[n, d] weightᵀ          the largest tensor of a training step, were it ever whole
//! losses[n]        = logsumexp(logits) - logits[target]
//! grad_hidden      = scale (softmax(logits) - onehot(target)) weight
//! grad_weight      = scale (softmax(logits) - onehot(target))ᵀ hidden
//! ```
//!
//! The head is a leaf of the step, so its gradient can be computed with the loss and no tape is needed. On the CPU
//! (`cpu.rs`) the vocabulary is walked in tiles under a running maximum and no row of logits is ever whole; elsewhere
//! plain tensor operations see `chunk_rows` positions at a time.

mod cpu;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use burn::backend::Flex;
use burn::tensor::{DType, IndexingUpdateOp, Int, Tensor, TensorData, activation::log_softmax};
use burn_flex::FlexTensor;

/// Losses and gradients of `softmax(hidden weightᵀ)` against the targets.
#[derive(Clone, Debug)]
pub struct CrossEntropy {
    /// Negative log-likelihood of each position, unscaled, `[n]`, f32.
    pub losses: Tensor<1>,
    /// `scale * d(sum losses)/d(hidden)`, `[n, d]`, in `hidden`'s type.
    pub grad_hidden: Tensor<2>,
    /// `scale * d(sum losses)/d(weight)`, `[vocab, d]`, f32, where asked for.
    pub grad_weight: Option<Tensor<2>>,
}

/// Losses and gradients of the head, without a tape.
///
/// `hidden` is `[n, d]`, `weight` `[vocab, d]`, `targets` has `n` ids below `vocab`; `chunk_rows` bounds how many
/// positions have logits at one time. Autodiff marks on the inputs are ignored.
///
/// # Panics
/// Where `targets` does not have `n` ids below `vocab`.
pub fn linear_cross_entropy(
    hidden: Tensor<2>,
    weight: &Tensor<2>,
    targets: &[u32],
    scale: f32,
    chunk_rows: usize,
    want_weight_grad: bool,
) -> CrossEntropy {
    let (hidden, weight) = (hidden.inner(), weight.clone().inner());
    let ([n, d], [vocab, _]) = (hidden.dims(), weight.dims());
    assert_eq!(
        targets.len(),
        n,
        "{} targets for {n} positions",
        targets.len()
    );
    let largest = targets.iter().max().map_or(0, |t| *t as usize);
    assert!(
        n == 0 || largest < vocab,
        "target {largest} is outside the vocabulary of {vocab}"
    );
    if n == 0 {
        let device = hidden.device();
        return CrossEntropy {
            losses: Tensor::zeros([0], (&device, DType::F32)),
            grad_hidden: hidden,
            grad_weight: want_weight_grad.then(|| Tensor::zeros([vocab, d], (&device, DType::F32))),
        };
    }
    if let Some((h, w)) = on_cpu(&hidden, &weight) {
        let head = cpu::Head {
            hidden: h.storage::<f32>(),
            weight: w.storage::<f32>(),
            targets,
            scale,
            width: d,
        };
        let (losses, grad_hidden) = head.losses();
        let matrix = |values: Vec<f32>, rows: usize| {
            Tensor::from_primitive::<Flex>(FlexTensor::from_data(TensorData::new(
                values,
                [rows, d],
            )))
        };
        let grad_weight =
            want_weight_grad.then(|| matrix(head.weight_gradient(&losses.logsumexp), vocab));
        let losses = FlexTensor::from_data(TensorData::new(losses.nll, [n]));
        return CrossEntropy {
            losses: Tensor::from_primitive::<Flex>(losses),
            grad_hidden: matrix(grad_hidden, n),
            grad_weight,
        };
    }
    by_chunks(hidden, weight, targets, scale, chunk_rows, want_weight_grad)
}

/// Both tensors as contiguous f32 host memory, where that is what they are.
fn on_cpu(hidden: &Tensor<2>, weight: &Tensor<2>) -> Option<(FlexTensor, FlexTensor)> {
    if hidden.dtype() != DType::F32 || weight.dtype() != DType::F32 {
        return None;
    }
    let hidden = hidden.clone().try_into_primitive::<Flex>().ok()?;
    let weight = weight.clone().try_into_primitive::<Flex>().ok()?;
    Some((hidden.to_contiguous(), weight.to_contiguous()))
}

/// The same with plain tensor operations: any device, any float type, softmax in f32.
fn by_chunks(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    targets: &[u32],
    scale: f32,
    chunk_rows: usize,
    want_weight_grad: bool,
) -> CrossEntropy {
    let [n, _] = hidden.dims();
    let device = hidden.device();
    let chunk_rows = chunk_rows.clamp(1, n);
    let mut losses = Vec::new();
    let mut grads = Vec::new();
    let mut grad_weight: Option<Tensor<2>> = None;
    for start in (0..n).step_by(chunk_rows) {
        let rows = chunk_rows.min(n - start);
        let h = hidden.clone().narrow(0, start, rows);
        let ids: Vec<i32> = targets[start..start + rows]
            .iter()
            .map(|&t| t as i32)
            .collect();
        let ids =
            Tensor::<2, Int>::from_data(TensorData::new(ids, [rows, 1]), (&device, DType::I32));
        let logits = h
            .clone()
            .matmul(weight.clone().transpose())
            .cast(DType::F32);
        let log_probabilities = log_softmax(logits, 1);
        let nll = log_probabilities.clone().gather(1, ids.clone()).neg();
        losses.push(nll.reshape([rows]));
        let minus_one = Tensor::<2>::full([rows, 1], -1.0, (&device, DType::F32));
        let error = log_probabilities
            .exp()
            .scatter(1, ids, minus_one, IndexingUpdateOp::Add);
        let error = error.mul_scalar(scale);
        if want_weight_grad {
            let part = error.clone().transpose().matmul(h.clone().cast(DType::F32));
            grad_weight = Some(match grad_weight.take() {
                Some(sum) => sum + part,
                None => part,
            });
        }
        grads.push(error.cast(h.dtype()).matmul(weight.clone()));
    }
    CrossEntropy {
        losses: Tensor::cat(losses, 0),
        grad_hidden: Tensor::cat(grads, 0),
        grad_weight,
    }
}
