//! What the loop asks of whatever it trains: a loss with its gradients, and a score on held-out examples.
//!
//! The loop (order, accumulation, clipping, AdamW, checkpoints, early stopping) is one for every model. What differs is
//! what a batch is asked: the next token ([`super::causal`]) or a class per document ([`super::classification`]).

use std::collections::BTreeMap;

use burn::tensor::{DType, Device};

use super::{Accumulated, Parameters, StepOptions, TrainError, TrainSet};
use crate::data::{Batch, Example};
use crate::host::LocalFuture;

/// A frozen model together with what it is to learn.
pub trait Objective {
    /// Where its weights are, without autodiff.
    fn device(&self) -> Device;

    /// Whether `parameters` and the base together are a whole model.
    ///
    /// # Errors
    /// What is missing.
    fn check(&self, parameters: &Parameters) -> Result<(), TrainError> {
        let _ = parameters;
        Ok(())
    }

    /// The type it computes in. In f16 the loop scales the loss, so that small gradients do not become zero.
    fn dtype(&self) -> DType {
        DType::F32
    }

    /// Whether the model can be trained on `example`: every index it holds must be inside the model's tables, which a
    /// device would read beyond without a word.
    ///
    /// # Errors
    /// What is outside, and what to do.
    fn check_example(&self, parameters: &Parameters, example: &Example) -> Result<(), String> {
        let _ = (parameters, example);
        Ok(())
    }

    /// What the loss of `batch` is a mean over: target tokens, or examples.
    fn targets(&self, batch: &Batch) -> usize;

    /// Adds the loss and the gradients of `batch` to `sum`; every target counts `scale`.
    ///
    /// `dropout_seed` seeds the masks of this micro-batch.
    fn accumulate(
        &self,
        parameters: &Parameters,
        batch: &Batch,
        scale: f64,
        dropout_seed: u64,
        options: StepOptions,
        sum: &mut Accumulated,
    );

    /// Roughly the bytes that one tape over all blocks would hold for `batch`.
    fn activation_bytes(&self, batch: &Batch) -> u64;

    /// Scores the current parameters on held-out examples; `step` is named in errors.
    ///
    /// # Errors
    /// A loss that is no number, or a set without a target.
    fn evaluate<'a>(
        &'a self,
        parameters: &'a Parameters,
        set: &'a TrainSet<'_>,
        step: u64,
    ) -> LocalFuture<'a, Result<Evaluation, TrainError>>;
}

/// Scores on held-out examples.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Mean loss per target, in nats.
    pub loss: f64,
    /// `exp(loss)`, where the targets are tokens.
    pub perplexity: Option<f64>,
    /// Targets scored: tokens, or examples.
    pub targets: u64,
    /// Further metrics by name.
    pub metrics: BTreeMap<String, f64>,
}

/// Adds the loss and gradients of `batch` to `sum`. Every target counts `scale`.
///
/// `dropout_seed` seeds the masks of this micro-batch.
pub fn accumulate(
    objective: &dyn Objective,
    parameters: &Parameters,
    batch: &Batch,
    scale: f64,
    dropout_seed: u64,
    options: StepOptions,
    sum: &mut Accumulated,
) {
    objective.accumulate(parameters, batch, scale, dropout_seed, options, sum);
}
