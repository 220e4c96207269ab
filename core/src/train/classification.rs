//! Sequence classification: the loss of a classifier, its gradients, and its scores.
//!
//! A target is an example. The head and its loss are small and lie on the tape as they are; only the documents' first
//! tokens leave the last block, and padding is never computed (see [`Layout`]).

use std::collections::BTreeMap;

use burn::tensor::activation::log_softmax;
use burn::tensor::{DType, Device, Gradients, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::objective::{Evaluation, Objective};
use super::step::{Accumulated, Place, Stack, StepOptions, accumulate_stack, block_index};
use super::{Parameters, TrainError, TrainSet};
use crate::data::{Batch, CollateOptions, Example, collate};
use crate::evaluation::ConfusionMatrix;
use crate::host::{LocalFuture, to_vec};
use crate::lora::Overlay;
use crate::models::bert::{BertClassifier, BertError, Layout};

impl Objective for BertClassifier {
    fn device(&self) -> Device {
        self.device()
    }

    fn check(&self, parameters: &Parameters) -> Result<(), TrainError> {
        self.head.with(&parameters.overlay()).parts()?;
        Ok(())
    }

    fn dtype(&self) -> DType {
        self.encoder.dtype()
    }

    fn check_example(&self, parameters: &Parameters, example: &Example) -> Result<(), String> {
        let one = collate(
            std::slice::from_ref(example),
            &[vec![0]],
            CollateOptions::new(0),
        );
        self.encoder.check(&one).map_err(|e| e.to_string())?;
        let trained = parameters.specs().iter().find_map(|spec| {
            let classifier = format!("{}.weight", self.encoder.config.names().classifier());
            (spec.name == classifier).then(|| spec.shape[0])
        });
        let classes = trained.or(self.head.num_labels()).unwrap_or(0);
        match example.class {
            Some(class) if class >= classes => Err(format!(
                "class {class}, but the head has {classes} classes, counted from 0; start a new head or correct the labels"
            )),
            _ => Ok(()),
        }
    }

    fn targets(&self, batch: &Batch) -> usize {
        batch.classes.len()
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
        let stack = ClassificationStep {
            model: self,
            parameters,
            layout: Layout::compact(batch, &self.device()),
            classes: &batch.classes,
            scale,
            seed: dropout_seed,
        };
        accumulate_stack(&stack, parameters, dropout_seed, options.recompute, sum);
    }

    fn activation_bytes(&self, batch: &Batch) -> u64 {
        let c = &self.encoder.config;
        let per_token = (14 * c.hidden_size + 3 * c.intermediate_size) as u64;
        4 * batch.tokens() as u64 * per_token * self.encoder.blocks.len() as u64
    }

    fn evaluate<'a>(
        &'a self,
        parameters: &'a Parameters,
        set: &'a TrainSet<'_>,
        step: u64,
    ) -> LocalFuture<'a, Result<Evaluation, TrainError>> {
        Box::pin(async move {
            let scores = classify(&self.with(&parameters.overlay()), set).await?;
            let loss = scores.loss();
            if !loss.is_finite() {
                return Err(TrainError::HeldOut { step, loss });
            }
            let metrics = BTreeMap::from([
                ("accuracy".to_owned(), scores.accuracy()),
                ("macro_f1".to_owned(), scores.macro_f1()),
            ]);
            Ok(Evaluation {
                loss,
                perplexity: None,
                targets: scores.gold.len() as u64,
                metrics,
            })
        })
    }
}

/// A classifier's answers to examples whose classes are known, in the order of the plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClassLosses {
    /// Class probabilities of every example.
    pub probabilities: Vec<Vec<f32>>,
    /// The right class of every example.
    pub gold: Vec<usize>,
    /// Negative log-likelihood of the right class of every example, in nats.
    pub nll: Vec<f64>,
}

impl ClassLosses {
    /// The likeliest class of every example; of equal ones the first.
    pub fn predicted(&self) -> Vec<usize> {
        let likeliest = |p: &Vec<f32>| {
            let better = |best: usize, i: usize| if p[i] > p[best] { i } else { best };
            (0..p.len()).fold(0, better)
        };
        self.probabilities.iter().map(likeliest).collect()
    }

    /// Mean negative log-likelihood.
    pub fn loss(&self) -> f64 {
        self.nll.iter().sum::<f64>() / self.nll.len() as f64
    }

    /// Share of right answers.
    pub fn accuracy(&self) -> f64 {
        self.counts().map_or(f64::NAN, |m| m.accuracy())
    }

    /// Plain mean of the classes' F1.
    pub fn macro_f1(&self) -> f64 {
        self.counts().map_or(f64::NAN, |m| m.macro_f1())
    }

    /// Counts of right against predicted classes; `None` without examples.
    fn counts(&self) -> Option<ConfusionMatrix> {
        let classes = self.probabilities.first()?.len();
        let mut matrix = ConfusionMatrix::new((0..classes).map(|c| c.to_string())).ok()?;
        for (gold, predicted) in self.gold.iter().zip(self.predicted()) {
            matrix.add(*gold, Some(predicted)).ok()?;
        }
        Some(matrix)
    }
}

/// Class probabilities and losses of `model` over `set`: per example, in order, for the sequential plan that
/// evaluations use.
///
/// # Errors
/// [`BertError::NoHead`]; ids or positions outside the encoder's tables; the device failed.
pub async fn classify(
    model: &BertClassifier,
    set: &TrainSet<'_>,
) -> Result<ClassLosses, BertError> {
    let mut all = ClassLosses::default();
    for rows in set.plan.epoch(0) {
        let batch = collate(set.examples, &rows, set.collate);
        let logits = model.logits(&batch)?;
        let [_, classes] = logits.dims();
        let log_probabilities = to_vec(log_softmax(logits, 1)).await?;
        for (row, &class) in log_probabilities.chunks(classes).zip(&batch.classes) {
            all.nll
                .push(row.get(class).map_or(f64::NAN, |&l| -f64::from(l)));
            all.gold.push(class);
            all.probabilities
                .push(row.iter().map(|l| l.exp()).collect());
        }
    }
    Ok(all)
}

struct ClassificationStep<'a> {
    model: &'a BertClassifier,
    parameters: &'a Parameters,
    layout: Layout,
    classes: &'a [usize],
    scale: f64,
    seed: u64,
}

impl Stack for ClassificationStep<'_> {
    fn device(&self) -> Device {
        self.model.device()
    }

    fn blocks(&self) -> usize {
        self.model.encoder.blocks.len()
    }

    fn place(&self, name: &str) -> Place {
        let names = self.model.encoder.config.names();
        match block_index(name, names.blocks()) {
            Some(index) => Place::Block(index),
            None if name.starts_with(names.embeddings()) => Place::Embedding,
            None => Place::Head,
        }
    }

    fn embedding(&self, overlay: &Overlay) -> Tensor<2> {
        let embeddings = self.model.encoder.embeddings_with(overlay);
        embeddings.forward(&self.layout, true)
    }

    fn embedding_gradient(&self, dx: Tensor<2>, sum: &mut Accumulated) {
        let (overlay, leaves) = self
            .parameters
            .tracked(|name| self.place(name) == Place::Embedding);
        if leaves.is_empty() {
            return;
        }
        let mut gradients = (self.embedding(&overlay) * dx).sum().backward();
        sum.collect(&leaves, &mut gradients);
    }

    fn block(&self, index: usize, overlay: &Overlay, x: Tensor<2>) -> Tensor<2> {
        let block = self.model.encoder.block_with(index, overlay);
        // Attention masks do not come from the device's generator: a seed of their own for every block.
        let seed = Some(self.seed ^ (index as u64 + 1).wrapping_mul(0xD6E8_FEB8_6659_FD93));
        if index + 1 == self.blocks() {
            block.forward_first(x, &self.layout, seed)
        } else {
            block.forward(x, &self.layout, seed)
        }
    }

    fn head(&self, overlay: &Overlay, hidden: Tensor<2>, sum: &mut Accumulated) -> Gradients {
        let device = self.device();
        // Checked before the run began (`Objective::check`); a head that is missing after all must not pass for a loss.
        let Ok(logits) = self.model.head.with(overlay).forward(hidden.clone(), true) else {
            sum.loss = sum.loss.clone() + f32::NAN;
            return hidden.sum().backward();
        };
        let wanted = one_hot(self.classes, logits.dims(), &device);
        let likelihood = (log_softmax(logits, 1) * wanted).sum();
        let loss = likelihood.mul_scalar(-self.scale);
        sum.loss = sum.loss.clone() + loss.clone().inner();
        loss.backward()
    }
}

/// 1 at the class of each document, `[documents, classes]`.
fn one_hot(classes: &[usize], [rows, columns]: [usize; 2], device: &Device) -> Tensor<2> {
    let mut values = vec![0.0f32; rows * columns];
    for (row, &class) in values.chunks_mut(columns.max(1)).zip(classes) {
        if let Some(slot) = row.get_mut(class) {
            *slot = 1.0;
        }
    }
    Tensor::from_data(
        TensorData::new(values, [rows, columns]),
        (device, DType::F32),
    )
}
