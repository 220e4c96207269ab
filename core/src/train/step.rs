//! Loss and gradients of one micro-batch.
//!
//! Two ways that give the same numbers. *Recomputed*: the forward pass runs without a tape and
//! keeps each block's input; the backward pass runs one block at a time again under autodiff and
//! pulls its gradient through, so that peak memory is one block. *Whole*: one tape over all blocks.
//!
//! Either way a model is three parts to the step, whatever its architecture: an embedding off the
//! tape, a stack of blocks, and a head that turns hidden states into a loss. [`Stack`] is that view.

use burn::tensor::{DType, Device, Gradients, Tensor};

use super::parameters::{Leaf, Parameters};
use crate::lora::Overlay;

/// How gradients are computed; no choice here changes them.
#[derive(Clone, Copy, Debug)]
pub struct StepOptions {
    /// Run each block again in the backward pass instead of keeping its activations.
    pub recompute: bool,
    /// Target positions whose logits exist at once; `usize::MAX` for all.
    pub loss_chunk: usize,
}

/// Where in the model a trained tensor acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Before the first block; its gradient is computed from that of the first block's input.
    Embedding,
    /// In the block of this index.
    Block(usize),
    /// After the last block, on the tape of the loss.
    Head,
    /// After the last block, with a gradient the loss kernel returns itself.
    Fused,
}

/// A model with one micro-batch in hand, as the step sees it.
pub(super) trait Stack {
    /// Where it computes, without autodiff.
    fn device(&self) -> Device;

    /// Number of blocks.
    fn blocks(&self) -> usize;

    /// Where the trained tensor `name` acts.
    fn place(&self, name: &str) -> Place;

    /// The input of the first block.
    fn embedding(&self, overlay: &Overlay) -> Tensor<2>;

    /// Adds the gradients of the embedding's tensors, given that of the first block's input.
    fn embedding_gradient(&self, dx: Tensor<2>, sum: &mut Accumulated);

    /// Block `index` under `overlay`.
    fn block(&self, index: usize, overlay: &Overlay, x: Tensor<2>) -> Tensor<2>;

    /// Head and loss over the last block's output; adds the loss to `sum` and returns the gradients of everything
    /// `hidden` and the overlay were computed from.
    fn head(&self, overlay: &Overlay, hidden: Tensor<2>, sum: &mut Accumulated) -> Gradients;
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

    /// Adds to the gradient of parameter `index`. A kernel may return it in the type it computes in; the sum is f32.
    pub(super) fn add(&mut self, index: usize, gradient: Tensor<1>) {
        let gradient = gradient.cast(DType::F32);
        let slot = &mut self.gradients[index];
        *slot = Some(match slot.take() {
            Some(sum) => sum + gradient,
            None => gradient,
        });
    }

    pub(super) fn collect(&mut self, leaves: &[Leaf], gradients: &mut Gradients) {
        for leaf in leaves {
            if let Some(gradient) = leaf.tensor.grad_remove(gradients) {
                self.add(leaf.index, gradient);
            }
        }
    }
}

/// Adds the loss and gradients of the micro-batch that `stack` holds to `sum`.
pub(super) fn accumulate_stack(
    stack: &impl Stack,
    parameters: &Parameters,
    dropout_seed: u64,
    recompute: bool,
    sum: &mut Accumulated,
) {
    let step = MicroStep {
        stack,
        parameters,
        dropout_seed,
    };
    if recompute {
        step.recomputed(sum)
    } else {
        step.whole(sum)
    }
}

struct MicroStep<'a, S> {
    stack: &'a S,
    parameters: &'a Parameters,
    dropout_seed: u64,
}

impl<S: Stack> MicroStep<'_, S> {
    fn recomputed(&self, sum: &mut Accumulated) {
        let blocks = self.stack.blocks();
        let mut inputs = Vec::with_capacity(blocks);
        let mut x = self.embedding();
        for index in 0..blocks {
            inputs.push(x.clone());
            let overlay = self
                .parameters
                .training_overlay(|name| self.stack.place(name) == Place::Block(index));
            x = self.run_block(index, &overlay, x);
        }

        let (overlay, leaves) = self
            .parameters
            .tracked(|name| self.stack.place(name) == Place::Head);
        let hidden = x.autodiff().require_grad();
        self.seed(blocks);
        let mut gradients = self.stack.head(&overlay, hidden.clone(), sum);
        sum.collect(&leaves, &mut gradients);
        let Some(mut dx) = hidden.grad_remove(&mut gradients) else {
            return;
        };

        let lowest = self.lowest_trained();
        for (index, input) in inputs.into_iter().enumerate().rev() {
            // A gradient goes no deeper than the lowest tensor that is trained.
            let needed = match lowest {
                Some(Place::Embedding) => true,
                Some(Place::Block(first)) if index > first => true,
                Some(Place::Block(first)) if index == first => false,
                _ => return,
            };
            let (overlay, leaves) = self
                .parameters
                .tracked(|name| self.stack.place(name) == Place::Block(index));
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
        self.seed_embedding();
        self.stack.embedding_gradient(dx, sum);
    }

    fn whole(&self, sum: &mut Accumulated) {
        let (overlay, leaves) = self
            .parameters
            .tracked(|name| matches!(self.stack.place(name), Place::Block(_) | Place::Head));
        let trains_embedding = self.lowest_trained() == Some(Place::Embedding);
        let mut x = self.embedding();
        if trains_embedding {
            x = x.autodiff().require_grad();
        }
        let embedded = x.clone();
        for index in 0..self.stack.blocks() {
            x = self.run_block(index, &overlay, x);
        }
        self.seed(self.stack.blocks());
        let mut gradients = self.stack.head(&overlay, x, sum);
        sum.collect(&leaves, &mut gradients);
        if trains_embedding && let Some(dx) = embedded.grad_remove(&mut gradients) {
            self.seed_embedding();
            self.stack.embedding_gradient(dx, sum);
        }
    }

    fn embedding(&self) -> Tensor<2> {
        self.seed_embedding();
        self.stack.embedding(
            &self
                .parameters
                .training_overlay(|name| self.stack.place(name) == Place::Embedding),
        )
    }

    fn run_block(&self, index: usize, overlay: &Overlay, x: Tensor<2>) -> Tensor<2> {
        self.seed(index);
        self.stack.block(index, overlay, x)
    }

    /// Seeds the masks of block `index`; of the head, where it is the number of blocks.
    fn seed(&self, index: usize) {
        let seed = self
            .dropout_seed
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .wrapping_add(index as u64);
        self.stack.device().seed(seed);
    }

    fn seed_embedding(&self) {
        self.seed(usize::MAX);
    }

    /// The embedding, or the first block, that holds a trained tensor.
    fn lowest_trained(&self) -> Option<Place> {
        let places = self
            .parameters
            .specs()
            .iter()
            .map(|s| self.stack.place(&s.name));
        let mut lowest = None;
        for place in places {
            lowest = match (lowest, place) {
                (_, Place::Embedding) => return Some(Place::Embedding),
                (Some(Place::Block(first)), Place::Block(index)) => {
                    Some(Place::Block(first.min(index)))
                }
                (None, Place::Block(index)) => Some(Place::Block(index)),
                (found, _) => found,
            };
        }
        lowest
    }
}

/// The index in a name that begins with `list` and a dot: `model.layers.3.mlp…` under `model.layers.` is 3.
pub(super) fn block_index(name: &str, list: &str) -> Option<usize> {
    name.strip_prefix(list)?.split('.').next()?.parse().ok()
}
