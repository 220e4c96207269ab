//! Next-token prediction: the loss of a language model and its gradients.
//!
//! The loss never meets the tape. The fused linear cross-entropy returns the gradient of the normalized hidden states,
//! and `sum(normed * gradient)` is a scalar with exactly that gradient.

use std::collections::BTreeMap;

use burn::tensor::{DType, Device, Gradients, IndexingUpdateOp, Tensor};

use super::objective::{Evaluation, Objective};
use super::step::{Accumulated, Place, Stack, StepOptions, accumulate_stack, block_index};
use super::{Parameters, Role, TrainError, TrainSet};
use crate::data::{Batch, Example, collate};
use crate::evaluation::{PerplexityError, TokenLosses};
use crate::host::LocalFuture;
use crate::kernels::cross_entropy::{CrossEntropy, linear_cross_entropy};
use crate::lora::Overlay;
use crate::models::llama::{Context, Llama, index_tensor};

const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";
const BLOCKS: &str = "model.layers.";

impl Objective for Llama {
    fn device(&self) -> Device {
        self.device()
    }

    fn dtype(&self) -> DType {
        self.embed_tokens.dtype()
    }

    fn check_example(&self, _: &Parameters, example: &Example) -> Result<(), String> {
        let vocab = self.config.vocab_size;
        if let Some(id) = example.input_ids.iter().find(|id| **id as usize >= vocab) {
            return Err(format!(
                "token id {id}, but the model's vocabulary has {vocab} entries; use the tokenizer that belongs to this model"
            ));
        }
        if example.len() > self.rope.len() {
            return Err(format!(
                "{} tokens, but the model has positions for {}; shorten it, or lower data.max_length",
                example.len(),
                self.rope.len()
            ));
        }
        Ok(())
    }

    fn targets(&self, batch: &Batch) -> usize {
        batch.target_tokens
    }

    fn accumulate(
        &self,
        parameters: &Parameters,
        batch: &Batch,
        scale: f64,
        dropout_seed: u64,
        options: StepOptions,
        sum: &mut Accumulated,
    ) {
        let context = Context {
            dropout_seed: Some(dropout_seed),
            ..self.context(batch)
        };
        let stack = CausalStep {
            model: self,
            parameters,
            batch,
            context,
            scale,
            chunk: options.loss_chunk,
        };
        accumulate_stack(&stack, parameters, dropout_seed, options.recompute, sum);
    }

    fn activation_bytes(&self, batch: &Batch) -> u64 {
        let c = &self.config;
        // Attention keeps no scores: its backward pass computes them again.
        let per_token = 16 * c.hidden_size + 6 * c.intermediate_size;
        let tokens = (batch.rows * batch.width) as u64;
        4 * tokens * per_token as u64 * self.blocks.len() as u64
    }

    fn evaluate<'a>(
        &'a self,
        parameters: &'a Parameters,
        set: &'a TrainSet<'_>,
        step: u64,
    ) -> LocalFuture<'a, Result<Evaluation, TrainError>> {
        Box::pin(async move {
            let failed = |source| TrainError::Evaluation { step, source };
            let model = self.with(&parameters.overlay());
            let losses = evaluate(&model, set).await.map_err(failed)?;
            let loss = losses.loss().map_err(failed)?;
            Ok(Evaluation {
                loss,
                perplexity: Some(loss.exp()),
                targets: losses.tokens(),
                metrics: BTreeMap::new(),
            })
        })
    }
}

/// Losses of `model` over `set`, one entry per row of its plan: per example, in order, for the
/// sequential unpacked plan that evaluations use.
///
/// # Errors
/// A loss that is no number; the device failed.
pub async fn evaluate(model: &Llama, set: &TrainSet<'_>) -> Result<TokenLosses, PerplexityError> {
    let mut losses = TokenLosses::default();
    for rows in set.plan.epoch(0) {
        let batch = collate(set.examples, &rows, set.collate);
        for row in model.row_losses(&batch).await? {
            losses.push(row.nll, row.tokens as u64)?;
        }
    }
    Ok(losses)
}

struct CausalStep<'a> {
    model: &'a Llama,
    parameters: &'a Parameters,
    batch: &'a Batch,
    context: Context,
    scale: f64,
    chunk: usize,
}

impl Stack for CausalStep<'_> {
    fn device(&self) -> Device {
        self.model.device()
    }

    fn blocks(&self) -> usize {
        self.model.blocks.len()
    }

    fn place(&self, name: &str) -> Place {
        match (name, block_index(name, BLOCKS)) {
            (EMBEDDING, _) => Place::Embedding,
            (HEAD, _) => Place::Fused,
            (_, Some(index)) => Place::Block(index),
            _ => Place::Head,
        }
    }

    fn embedding(&self, overlay: &Overlay) -> Tensor<2> {
        let ids = &self.batch.input_ids;
        match overlay.matrix(EMBEDDING) {
            Some(trained) => trained
                .select(0, index_tensor(ids, &self.model.device()))
                .cast(self.model.embed_tokens.dtype()),
            None => self.model.embed(ids),
        }
    }

    fn embedding_gradient(&self, dx: Tensor<2>, sum: &mut Accumulated) {
        let Some(index) = self.index_of(EMBEDDING) else {
            return;
        };
        let ids = index_tensor(&self.batch.input_ids, &self.model.device());
        let table = Tensor::<2>::zeros(self.model.embed_tokens.dims(), &self.model.device());
        let dx = dx.cast(DType::F32);
        sum.add(
            index,
            table
                .select_assign(0, ids, dx, IndexingUpdateOp::Add)
                .flatten(0, 1),
        );
    }

    fn block(&self, index: usize, overlay: &Overlay, x: Tensor<2>) -> Tensor<2> {
        self.model
            .block_with(index, overlay)
            .forward(x, &self.context, None)
    }

    fn head(&self, overlay: &Overlay, hidden: Tensor<2>, sum: &mut Accumulated) -> Gradients {
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
        let CrossEntropy {
            losses,
            grad_hidden,
            grad_weight,
        } = linear_cross_entropy(
            normed.clone().inner(),
            &head,
            &targets,
            self.scale as f32,
            self.chunk,
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
}

impl CausalStep<'_> {
    /// Whether the trained tensor `name` serves as the head: its own matrix, or the tied embedding.
    fn is_head(&self, name: &str) -> bool {
        let mut specs = self.parameters.specs().iter();
        let kept = specs.any(|s| s.role == Role::InputTable);
        let tied = self.model.tied && !kept && !self.trains(HEAD);
        self.trains(name) && (name == HEAD || tied)
    }

    fn trains(&self, name: &str) -> bool {
        self.index_of(name).is_some()
    }

    fn index_of(&self, name: &str) -> Option<usize> {
        self.parameters.specs().iter().position(|s| s.name == name)
    }
}
