//! The training loop.

use burn::tensor::{DType, Tensor};
use thiserror::Error;

use super::{
    Accumulated, AdamW, Checkpoint, CheckpointError, CheckpointKind, CheckpointState,
    EarlyStopping, EarlyStoppingConfig, EarlyStoppingError, EvalRecord, Event, LossNormalization,
    Objective, Observer, Parameters, Recompute, Schedule, ScheduleError, StepOptions, StepRecord,
    TrainConfig, clip_coefficient, global_norm, resolve_warmup,
};
use crate::data::{Batch, BatchPlan, CollateOptions, Example, collate};
use crate::evaluation::PerplexityError;
use crate::host::{LocalFuture, ReadError, to_scalar};
use crate::models::bert::BertError;

/// Positions whose logits exist at once when the loss is computed in chunks.
const LOSS_CHUNK: usize = 512;
/// Activations above this many bytes are recomputed under [`Recompute::Auto`].
const ACTIVATION_BUDGET: u64 = 1 << 30;
/// What the loss of a run in f16 is first multiplied with: a power of two, so that only exponents change. Halved whenever
/// a gradient overflows. As torch's `GradScaler` starts.
const LOSS_SCALE: f64 = 65_536.0;

/// Examples and the order they come in.
#[derive(Debug)]
pub struct TrainSet<'a> {
    /// Tokenized examples (packed rows where packing is on).
    pub examples: &'a [Example],
    /// Batches of every epoch.
    pub plan: BatchPlan,
    /// How rows are padded; padding is never a target and never seen.
    pub collate: CollateOptions,
}

/// Batches of rows of documents, by index.
type Batches = Vec<Vec<Vec<usize>>>;

/// What the loop needs from the program around it.
pub trait Host {
    /// Seconds on a steady clock.
    fn seconds(&self) -> f64;
    /// Whether the user asked to stop after this step.
    fn interrupted(&self) -> bool;
    /// Keeps a checkpoint; `best` marks the lowest held-out loss so far. An error stops the run.
    fn save<'a>(
        &'a mut self,
        checkpoint: &'a Checkpoint,
        parameters: &'a Parameters,
        best: bool,
    ) -> LocalFuture<'a, Result<(), String>>;
    /// Awaited after every optimizer step, so that a browser's worker gets to its other events: there also arrives what
    /// makes [`Host::interrupted`] true.
    fn pause(&mut self) -> LocalFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// All steps done.
    Finished,
    /// The held-out loss stopped falling.
    Early,
    /// The user asked.
    Interrupted,
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Why it ended.
    pub stop: Stop,
    /// Optimizer steps done in all.
    pub steps: u64,
    /// Targets trained on in all: tokens, or examples where the model classifies.
    pub tokens: u64,
    /// Loss of the last step.
    pub last_loss: f64,
}

/// What can go wrong in training.
#[derive(Debug, Error)]
pub enum TrainError {
    /// Loss or gradient norm stopped being a number.
    #[error(
        "step {step}: the {what} is not finite ({value}), so the run was stopped before it could harm the adapter; the batch held \
         {batch}. Try a lower lr, `compute = \"f32\"`, or look at these rows with `trainer data`"
    )]
    NonFinite {
        /// Optimizer step, from 1.
        step: u64,
        /// `loss` or `gradient norm`.
        what: &'static str,
        /// The value.
        value: f64,
        /// Source lines of the batch.
        batch: String,
    },
    /// Trained values that are no numbers any more.
    #[error(
        "step {step}: trained values are not finite, so nothing was saved over the last good checkpoint. Try a lower lr, or \
         lower betas and weight_decay"
    )]
    Values {
        /// Optimizer step, from 1.
        step: u64,
    },
    /// A setting out of range.
    #[error("{0}")]
    Config(String),
    /// An example with something outside the model's tables.
    #[error("{row}: {reason}")]
    Example {
        /// Where it came from.
        row: String,
        /// What is outside, and what to do.
        reason: String,
    },
    /// No batch to train on.
    #[error("there is no batch to train on; the training set is empty")]
    Empty,
    /// Not one target in a whole optimizer step.
    #[error(
        "step {step}: nothing in its batches is trained, no token and no class ({batch}); look at them with `trainer data`"
    )]
    NoTargets {
        /// Optimizer step, from 1.
        step: u64,
        /// Source lines of the batch.
        batch: String,
    },
    /// A checkpoint could not be taken up.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A learning-rate setting out of range.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// An early-stopping setting out of range.
    #[error(transparent)]
    EarlyStopping(#[from] EarlyStoppingError),
    /// The held-out loss is no number, or has no token.
    #[error("held-out evaluation at step {step}: {source}")]
    Evaluation {
        /// Optimizer step, from 1.
        step: u64,
        /// What is wrong.
        source: PerplexityError,
    },
    /// The held-out loss of a classifier is no number.
    #[error(
        "held-out evaluation at step {step}: the loss is {loss}; try a lower lr, or `compute = \"f32\"`"
    )]
    HeldOut {
        /// Optimizer step, from 1.
        step: u64,
        /// The loss.
        loss: f64,
    },
    /// An encoder without a head, or input it has no rows for.
    #[error(transparent)]
    Encoder(#[from] BertError),
    /// The device failed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A checkpoint could not be kept.
    #[error("step {step}: saving failed: {reason}")]
    Save {
        /// Optimizer step, from 1.
        step: u64,
        /// The host's error.
        reason: String,
    },
}

/// One run over a frozen base.
pub struct Trainer<'a> {
    objective: &'a dyn Objective,
    config: TrainConfig,
    set: TrainSet<'a>,
    eval: Option<TrainSet<'a>>,
    schedule: Schedule,
    fingerprint: String,
    steps_per_epoch: u64,
    total_steps: u64,
    /// What is trained.
    pub parameters: Parameters,
    optimizer: AdamW,
    decay: Option<Tensor<1>>,
    early_stopping: EarlyStopping,
    tokens: u64,
    loss_scale: f64,
}

impl<'a> Trainer<'a> {
    /// Sets a run up. `fingerprint` identifies data and seeds; a resumed run must have the same.
    ///
    /// # Errors
    /// [`TrainError::Config`]; [`TrainError::Example`]; [`TrainError::Empty`] when the set has no batch;
    /// [`TrainError::Encoder`] for a classifier without a head.
    pub fn new(
        objective: &'a dyn Objective,
        parameters: Parameters,
        config: TrainConfig,
        set: TrainSet<'a>,
        eval: Option<TrainSet<'a>>,
        fingerprint: String,
    ) -> Result<Self, TrainError> {
        config.validate().map_err(TrainError::Config)?;
        objective.check(&parameters)?;
        for set in [Some(&set), eval.as_ref()].into_iter().flatten() {
            check_examples(objective, &parameters, set.examples)?;
        }
        let micro_batches = set.plan.batches_per_epoch() as u64;
        if micro_batches == 0 {
            return Err(TrainError::Empty);
        }
        let steps_per_epoch = micro_batches.div_ceil(config.grad_accumulation.max(1) as u64);
        let total_steps = config
            .max_steps
            .unwrap_or_else(|| (config.epochs * steps_per_epoch as f64).ceil().max(1.0) as u64);
        let warmup = resolve_warmup(config.warmup_steps, config.warmup_ratio, total_steps)?;
        let schedule = Schedule::new(config.schedule, config.lr, warmup, total_steps)?;
        Ok(Self {
            optimizer: AdamW::new(&config, parameters.count(), &objective.device())
                .with_lr_scale(parameters.lr_scale()),
            decay: parameters.decay_mask(),
            early_stopping: EarlyStopping::new(patience(&config))?,
            objective,
            parameters,
            config,
            set,
            eval,
            schedule,
            fingerprint,
            steps_per_epoch,
            total_steps,
            tokens: 0,
            loss_scale: match objective.dtype() {
                DType::F16 => LOSS_SCALE,
                _ => 1.0,
            },
        })
    }

    /// Optimizer steps of the whole run.
    pub fn total_steps(&self) -> u64 {
        self.total_steps
    }

    /// Continues from `checkpoint`.
    pub fn resume(&mut self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        checkpoint.restore(&mut self.parameters, &mut self.optimizer, &self.fingerprint)?;
        let state = checkpoint.state.early_stopping.clone();
        self.early_stopping = EarlyStopping::resume(patience(&self.config), state)?;
        self.tokens = checkpoint.state.tokens;
        self.loss_scale = checkpoint.state.loss_scale.unwrap_or(self.loss_scale);
        Ok(())
    }

    /// Trains to the end, to an early stop, or until the host is interrupted. The host is given a pause after every
    /// step.
    ///
    /// # Errors
    /// A loss, a gradient or a held-out loss that is no number; a checkpoint that cannot be kept; the device failed.
    pub async fn run(
        &mut self,
        host: &mut dyn Host,
        observer: &mut dyn Observer,
    ) -> Result<Outcome, TrainError> {
        let mut last_loss = f64::NAN;
        let mut stop = Stop::Finished;
        let mut epoch_batches: Option<(u64, Batches)> = None;
        while self.optimizer.step < self.total_steps {
            let began = host.seconds();
            let epoch = self.optimizer.step / self.steps_per_epoch;
            let (_, batches) = match epoch_batches.take() {
                Some(current) if current.0 == epoch => epoch_batches.insert(current),
                _ => epoch_batches.insert((epoch, self.set.plan.epoch(epoch))),
            };
            let record = self.step(epoch, batches, began, host).await?;
            last_loss = record.loss;
            observer.on_step(&record);
            host.pause().await;

            let verdict = self.evaluate_if_due(record.epoch, observer).await?;
            stop = self.stop_reason(host, verdict.stop);
            let last = stop != Stop::Finished || self.at_end();
            if last || verdict.improved || self.is_due(self.config.save_every) {
                self.save(host, verdict.improved).await?;
                let kind = match (last, verdict.improved) {
                    (true, _) => CheckpointKind::Last,
                    (_, true) => CheckpointKind::Best,
                    _ => CheckpointKind::Periodic,
                };
                observer.on_event(&Event::CheckpointSaved {
                    step: record.step,
                    kind,
                });
            }
            if stop != Stop::Finished {
                break;
            }
        }
        self.announce(stop, observer);
        Ok(Outcome {
            stop,
            steps: self.optimizer.step,
            tokens: self.tokens,
            last_loss,
        })
    }

    /// One optimizer step: gradients of its micro-batches, clipping, update.
    async fn step(
        &mut self,
        epoch: u64,
        batches: &Batches,
        began: f64,
        host: &dyn Host,
    ) -> Result<StepRecord, TrainError> {
        let index = self.optimizer.step;
        let accumulation = self.config.grad_accumulation.max(1);
        let first = (index % self.steps_per_epoch) as usize * accumulation;
        let group = &batches[first..(first + accumulation).min(batches.len())];
        let micro: Vec<Batch> = group
            .iter()
            .map(|rows| collate(self.set.examples, rows, self.set.collate))
            .collect();
        let counts: Vec<usize> = micro.iter().map(|b| self.objective.targets(b)).collect();
        let targets: usize = counts.iter().sum();
        if targets == 0 {
            return Err(TrainError::NoTargets {
                step: index + 1,
                batch: self.describe(group),
            });
        }

        let (loss, gradient, grad_norm) = loop {
            let sum = self.accumulate(&micro, &counts, index);
            let loss = to_scalar(sum.loss.clone()).await? / self.loss_scale;
            let mut gradient = sum.flat(&self.parameters);
            if self.loss_scale > 1.0 {
                gradient = gradient.div_scalar(self.loss_scale);
            }
            let grad_norm = global_norm(&gradient).await?;
            let overflowed = loss.is_finite() && !grad_norm.is_finite();
            if !overflowed || self.loss_scale <= 1.0 {
                break (loss, gradient, grad_norm);
            }
            self.loss_scale /= 2.0;
        };
        for (what, value) in [("loss", loss), ("gradient norm", grad_norm)] {
            if !value.is_finite() {
                return Err(TrainError::NonFinite {
                    step: index + 1,
                    what,
                    value,
                    batch: self.describe(group),
                });
            }
        }

        let lr = self.schedule.lr(index);
        let coefficient = clip_coefficient(grad_norm, self.config.max_grad_norm);
        let gradient = if coefficient < 1.0 {
            gradient.mul_scalar(coefficient)
        } else {
            gradient
        };
        let values = self.parameters.values.clone();
        self.parameters.values = self
            .optimizer
            .update(values, gradient, lr, self.decay.as_ref());
        self.parameters
            .constrain(self.optimizer.step, self.total_steps)
            .await?;
        self.tokens += targets as u64;

        let seen: usize = micro.iter().map(Batch::tokens).sum();
        let elapsed = (host.seconds() - began).max(1e-9);
        let done_in_epoch = (index % self.steps_per_epoch + 1) as f64 / self.steps_per_epoch as f64;
        Ok(StepRecord {
            step: index + 1,
            epoch: epoch as f64 + done_in_epoch,
            loss,
            lr,
            grad_norm,
            tokens: targets as u64,
            tokens_per_s: seen as f64 / elapsed,
        })
    }

    /// Loss and gradients of the micro-batches of step `index`, times the loss scale.
    fn accumulate(&self, micro: &[Batch], counts: &[usize], index: u64) -> Accumulated {
        let targets: usize = counts.iter().sum();
        let mut sum = Accumulated::new(&self.parameters);
        for (number, (batch, &count)) in micro.iter().zip(counts).enumerate() {
            if count == 0 {
                continue;
            }
            let scale = match self.config.loss_normalization {
                LossNormalization::Tokens => 1.0 / targets as f64,
                LossNormalization::MicroBatch => 1.0 / (micro.len() * count) as f64,
            };
            let scale = scale * self.loss_scale;
            let seed = dropout_seed(self.config.seed, index, number as u64);
            let options = self.options(batch);
            self.objective
                .accumulate(&self.parameters, batch, scale, seed, options, &mut sum);
        }
        sum
    }

    fn options(&self, batch: &Batch) -> StepOptions {
        let recompute = match self.config.recompute {
            Recompute::On => true,
            Recompute::Off => false,
            Recompute::Auto => self.objective.activation_bytes(batch) > ACTIVATION_BUDGET,
        };
        let loss_chunk = if self.config.fused_loss {
            LOSS_CHUNK
        } else {
            usize::MAX
        };
        StepOptions {
            recompute,
            loss_chunk,
        }
    }

    async fn evaluate_if_due(
        &mut self,
        epoch: f64,
        observer: &mut dyn Observer,
    ) -> Result<Verdict, TrainError> {
        let step = self.optimizer.step;
        let Some(set) = self
            .eval
            .as_ref()
            .filter(|_| self.is_due(self.config.eval_every) || self.at_end())
        else {
            return Ok(Verdict::default());
        };
        let scores = self.objective.evaluate(&self.parameters, set, step).await?;
        let verdict = self.early_stopping.update(step, scores.loss);
        observer.on_eval(&EvalRecord {
            step,
            epoch,
            eval_loss: scores.loss,
            perplexity: scores.perplexity,
            tokens: scores.targets,
            best: verdict.is_best,
            metrics: scores.metrics,
        });
        Ok(Verdict {
            improved: verdict.is_best,
            stop: verdict.stop,
        })
    }

    fn stop_reason(&self, host: &dyn Host, stale: bool) -> Stop {
        if self.at_end() {
            Stop::Finished
        } else if host.interrupted() {
            Stop::Interrupted
        } else if stale {
            Stop::Early
        } else {
            Stop::Finished
        }
    }

    fn announce(&self, stop: Stop, observer: &mut dyn Observer) {
        let step = self.optimizer.step;
        match (stop, self.early_stopping.best()) {
            (Stop::Interrupted, _) => observer.on_event(&Event::Interrupted { step }),
            (Stop::Early, Some(best)) => {
                observer.on_event(&Event::EarlyStopped {
                    step,
                    best_step: best.step,
                    best_value: best.value,
                });
            }
            _ => observer.on_event(&Event::Finished {
                step,
                tokens: self.tokens,
            }),
        }
    }

    async fn save(&self, host: &mut dyn Host, best: bool) -> Result<(), TrainError> {
        let step = self.optimizer.step;
        let state = CheckpointState {
            step,
            parameters: self
                .parameters
                .specs()
                .iter()
                .map(|s| s.name.clone())
                .collect(),
            tokens: self.tokens,
            early_stopping: self.early_stopping.state().clone(),
            fingerprint: self.fingerprint.clone(),
            loss_scale: (self.objective.dtype() == DType::F16).then_some(self.loss_scale),
        };
        let checkpoint = Checkpoint::capture(&self.parameters, &self.optimizer, state).await?;
        if !checkpoint.is_finite() {
            return Err(TrainError::Values { step });
        }
        host.save(&checkpoint, &self.parameters, best)
            .await
            .map_err(|reason| TrainError::Save { step, reason })
    }

    fn is_due(&self, every: Option<u64>) -> bool {
        every.is_some_and(|n| n > 0 && self.optimizer.step.is_multiple_of(n))
    }

    fn at_end(&self) -> bool {
        self.optimizer.step >= self.total_steps
    }

    /// The source lines of a group of micro-batches, shortened.
    fn describe(&self, group: &[Vec<Vec<usize>>]) -> String {
        let rows: Vec<String> = group
            .iter()
            .flatten()
            .flatten()
            .map(|&row| self.set.examples[row].source.to_string())
            .collect();
        match rows.len() {
            0..=8 => rows.join(", "),
            n => format!("{}, … ({n} rows)", rows[..8].join(", ")),
        }
    }
}

/// Holds every example to the model's tables.
fn check_examples(
    objective: &dyn Objective,
    parameters: &Parameters,
    examples: &[Example],
) -> Result<(), TrainError> {
    for example in examples {
        let checked = objective.check_example(parameters, example);
        checked.map_err(|reason| TrainError::Example {
            row: example.source.to_string(),
            reason,
        })?;
    }
    Ok(())
}

/// What an evaluation means for the run.
#[derive(Clone, Copy, Debug, Default)]
struct Verdict {
    improved: bool,
    stop: bool,
}

/// Early stopping's settings; without a patience the best value is still tracked.
fn patience(config: &TrainConfig) -> EarlyStoppingConfig {
    EarlyStoppingConfig {
        patience: config.early_stopping.unwrap_or(u32::MAX),
        min_delta: config.early_stopping_min_delta,
    }
}

/// A seed for the masks of one micro-batch (SplitMix64's finalizer over the three numbers).
fn dropout_seed(seed: u64, step: u64, micro_batch: u64) -> u64 {
    let mut z = seed
        ^ step.wrapping_mul(0x9E37_79B9_7F4A_7C15)
        ^ micro_batch.wrapping_mul(0xD1B5_4A32_D192_ED03);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
