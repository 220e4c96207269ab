//! Loss and gradients of one micro-batch.
//!
//! Two ways that give the same numbers. *Recomputed*: the forward pass runs without a tape and
//! keeps each block's input; the backward pass runs one block at a time again under autodiff and
//! pulls its gradient through, so that peak memory is one block. *Whole*: one tape over all blocks.
//!
//! Either way the loss itself never meets the tape. The fused linear cross-entropy returns the
//! gradient of the normalized hidden states, and `sum(normed * gradient)` is a scalar with exactly
//! that gradient.

use burn::tensor::{IndexingUpdateOp, Tensor};

use super::parameters::{Leaf, Parameters};
use crate::data::Batch;
use crate::kernels::cross_entropy::{CrossEntropy, linear_cross_entropy};
use crate::lora::Overlay;
use crate::models::llama::{Context, Llama, block_path, index_tensor};

const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";
const NORM: &str = "model.norm.weight";

/// How gradients are computed; no choice here changes them.
#[derive(Clone, Copy, Debug)]
pub struct StepOptions {
    /// Run each block again in the backward pass instead of keeping its activations.
    pub recompute: bool,
    /// Target positions whose logits exist at once; `usize::MAX` for all.
    pub loss_chunk: usize,
}

/// Sums over the micro-batches of an optimizer step.
#[derive(Debug)]
pub struct Accumulated {
    gradients: Vec<Option<Tensor<1>>>,
    /// The loss descended on, `[1]`, f32, still on the device.
    pub loss: Tensor<1>,
}

impl Accumulated {
    /// Nothing accumulated yet.
    pub fn new(parameters: &Parameters) -> Self {
        Self {
            gradients: vec![None; parameters.specs().len()],
            loss: Tensor::zeros([1], &parameters.values.device()),
        }
    }

    /// The gradient in the layout of the flat parameter vector.
    pub fn flat(self, parameters: &Parameters) -> Tensor<1> {
        let device = parameters.values.device();
        let parts = self.gradients.into_iter().zip(parameters.specs());
        Tensor::cat(
            parts
                .map(|(g, s)| g.unwrap_or_else(|| Tensor::zeros([s.len()], &device)))
                .collect(),
            0,
        )
    }

    fn add(&mut self, index: usize, gradient: Tensor<1>) {
        let slot = &mut self.gradients[index];
        *slot = Some(match slot.take() {
            Some(sum) => sum + gradient,
            None => gradient,
        });
    }

    fn collect(&mut self, leaves: &[Leaf], gradients: &mut burn::tensor::Gradients) {
        for leaf in leaves {
            if let Some(gradient) = leaf.tensor.grad_remove(gradients) {
                self.add(leaf.index, gradient);
            }
        }
    }
}

/// Adds the loss and gradients of `batch` to `sum`. Every target token counts `scale`.
///
/// `dropout_seed` seeds the masks of this micro-batch.
pub fn accumulate(
    model: &Llama,
    parameters: &Parameters,
    batch: &Batch,
    scale: f64,
    dropout_seed: u64,
    options: StepOptions,
    sum: &mut Accumulated,
) {
    let context = Context {
        dropout_seed: Some(dropout_seed),
        ..model.context(batch)
    };
    let step = MicroStep {
        model,
        parameters,
        batch,
        context,
        scale,
        options,
    };
    if options.recompute {
        step.recomputed(sum)
    } else {
        step.whole(sum)
    }
}

struct MicroStep<'a> {
    model: &'a Llama,
    parameters: &'a Parameters,
    batch: &'a Batch,
    context: Context,
    scale: f64,
    options: StepOptions,
}

impl MicroStep<'_> {
    fn recomputed(&self, sum: &mut Accumulated) {
        let mut inputs = Vec::with_capacity(self.model.blocks.len());
        let mut x = self.embedding(&self.parameters.training_overlay(|name| name == EMBEDDING));
        for index in 0..self.model.blocks.len() {
            inputs.push(x.clone());
            let overlay = self.parameters.training_overlay(in_block(index));
            x = self.run_block(index, &overlay, x);
        }

        let (overlay, leaves) = self.parameters.tracked(|name| name == NORM);
        let hidden = x.autodiff().require_grad();
        let mut gradients = self.head(&overlay, hidden.clone(), sum);
        sum.collect(&leaves, &mut gradients);
        let Some(mut dx) = hidden.grad_remove(&mut gradients) else {
            return;
        };

        for (index, input) in inputs.into_iter().enumerate().rev() {
            let (overlay, leaves) = self.parameters.tracked(in_block(index));
            let needed = index > 0 || self.trains(EMBEDDING);
            if !needed && leaves.is_empty() {
                return;
            }
            let input = if needed {
                input.autodiff().require_grad()
            } else {
                input
            };
            let output = self.run_block(index, &overlay, input.clone());
            let mut gradients = (output * dx.clone()).sum().backward();
            sum.collect(&leaves, &mut gradients);
            match input.grad_remove(&mut gradients) {
                Some(gradient) if needed => dx = gradient,
                _ => return,
            }
        }
        self.embedding_gradient(dx, sum);
    }

    fn whole(&self, sum: &mut Accumulated) {
        let (overlay, leaves) = self
            .parameters
            .tracked(|name| name != EMBEDDING && name != HEAD);
        let mut x = self.embedding(&self.parameters.training_overlay(|name| name == EMBEDDING));
        if self.trains(EMBEDDING) {
            x = x.autodiff().require_grad();
        }
        let embedded = x.clone();
        for index in 0..self.model.blocks.len() {
            x = self.run_block(index, &overlay, x);
        }
        let mut gradients = self.head(&overlay, x, sum);
        sum.collect(&leaves, &mut gradients);
        if self.trains(EMBEDDING)
            && let Some(dx) = embedded.grad_remove(&mut gradients)
        {
            self.embedding_gradient(dx, sum);
        }
    }

    fn run_block(&self, index: usize, overlay: &Overlay, x: Tensor<2>) -> Tensor<2> {
        if let Some(seed) = self.context.dropout_seed {
            self.model.device().seed(
                seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)
                    .wrapping_add(index as u64),
            );
        }
        self.model
            .block_with(index, overlay)
            .forward(x, &self.context, None)
    }

    fn embedding(&self, overlay: &Overlay) -> Tensor<2> {
        let table = overlay
            .matrix(EMBEDDING)
            .unwrap_or_else(|| self.model.embed_tokens.clone());
        let dtype = self.model.embed_tokens.dtype();
        table
            .select(0, index_tensor(&self.batch.input_ids, &self.model.device()))
            .cast(dtype)
    }

    /// Final norm, head and loss; returns the gradients of everything `hidden` was computed from.
    fn head(
        &self,
        overlay: &Overlay,
        hidden: Tensor<2>,
        sum: &mut Accumulated,
    ) -> burn::tensor::Gradients {
        let (positions, targets) = self.batch.targets();
        let hidden = hidden.select(0, index_tensor(&positions, &self.model.device()));
        let normed = self.model.norm_with(overlay, hidden);

        let trained_head = [HEAD, EMBEDDING]
            .into_iter()
            .find(|name| self.is_head(name));
        let head = match trained_head {
            Some(name) => self.parameters.training_overlay(|n| n == name).matrix(name),
            None => None,
        };
        let head = head.unwrap_or_else(|| self.model.head().clone());
        let chunk = self.options.loss_chunk;
        let scale = self.scale as f32;
        let CrossEntropy {
            losses,
            grad_hidden,
            grad_weight,
        } = linear_cross_entropy(
            normed.clone().inner(),
            &head,
            &targets,
            scale,
            chunk,
            trained_head.is_some(),
        );

        sum.loss = sum.loss.clone() + losses.sum().mul_scalar(self.scale);
        if let (Some(name), Some(gradient)) = (trained_head, grad_weight)
            && let Some(index) = self.index_of(name)
        {
            sum.add(index, gradient.flatten(0, 1));
        }
        (normed * grad_hidden).sum().backward()
    }

    fn embedding_gradient(&self, dx: Tensor<2>, sum: &mut Accumulated) {
        let Some(index) = self.index_of(EMBEDDING) else {
            return;
        };
        let ids = index_tensor(&self.batch.input_ids, &self.model.device());
        let table = Tensor::<2>::zeros(self.model.embed_tokens.dims(), &self.model.device());
        let dx = dx.cast(burn::tensor::DType::F32);
        sum.add(
            index,
            table
                .select_assign(0, ids, dx, IndexingUpdateOp::Add)
                .flatten(0, 1),
        );
    }

    /// Whether the trained tensor `name` serves as the head: its own matrix, or the tied embedding.
    fn is_head(&self, name: &str) -> bool {
        let tied = self.model.lm_head.is_none() && !self.trains(HEAD);
        self.trains(name) && (name == HEAD || tied)
    }

    fn trains(&self, name: &str) -> bool {
        self.index_of(name).is_some()
    }

    fn index_of(&self, name: &str) -> Option<usize> {
        self.parameters.specs().iter().position(|s| s.name == name)
    }
}

/// Accepts the names under block `index`.
fn in_block(index: usize) -> impl Fn(&str) -> bool {
    let prefix = format!("{}.", block_path(index));
    move |name| name.starts_with(&prefix)
}
