//! The `[train]` table of a run's configuration.

use serde::{Deserialize, Serialize};

use super::ScheduleKind;

/// How the gradients of an accumulated step are normalized.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossNormalization {
    /// Divide by the target tokens of the whole accumulated step: `8 x 1` equals `1 x 8`.
    #[default]
    Tokens,
    /// Average the micro-batches' own token means, as older trainers did. Short micro-batches then
    /// weigh too much; kept to reproduce published runs.
    MicroBatch,
}

/// Whether blocks are recomputed in the backward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recompute {
    /// Recompute when the activations of all blocks would take more than a gibibyte.
    #[default]
    Auto,
    /// Keep only each block's input and run the block again in the backward pass.
    On,
    /// Keep every activation.
    Off,
}

/// Settings of the training loop. Defaults are those of Hugging Face's `TrainingArguments` unless
/// said otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Passes over the training set. Ignored when `max_steps` is given.
    pub epochs: f64,
    /// Optimizer steps; overrides `epochs`.
    pub max_steps: Option<u64>,
    /// Sequences per micro-batch.
    pub batch_size: usize,
    /// Micro-batches per optimizer step.
    pub grad_accumulation: usize,
    /// What the accumulated gradient is divided by.
    pub loss_normalization: LossNormalization,
    /// Peak learning rate. The default, 2e-4, is the QLoRA paper's for small models.
    pub lr: f64,
    /// Shape of the learning rate after warm-up.
    pub schedule: ScheduleKind,
    /// Steps of linear warm-up from zero. Overrides `warmup_ratio`.
    pub warmup_steps: Option<u64>,
    /// Warm-up as a share of all steps, rounded up.
    pub warmup_ratio: f64,
    /// Decoupled weight decay. Of a whole model norms and biases are exempt; of an adapter, what is saved beside it decays
    /// as a whole, as torch's AdamW over PEFT's trained parameters does it.
    pub weight_decay: f64,
    /// AdamW's decay rates of the two moments.
    pub betas: [f64; 2],
    /// AdamW's denominator term, outside the square root.
    pub eps: f64,
    /// Largest global gradient norm; larger gradients are scaled down. 0 switches clipping off.
    pub max_grad_norm: f64,
    /// Trade a second forward pass of each block for activation memory.
    pub recompute: Recompute,
    /// Evaluate the loss in chunks of target positions, so that logits of a whole batch never
    /// exist. Off computes them at once.
    pub fused_loss: bool,
    /// Evaluate on held-out data every so many steps; never when absent.
    pub eval_every: Option<u64>,
    /// Save a checkpoint every so many steps; only at the end when absent.
    pub save_every: Option<u64>,
    /// Checkpoints kept besides the best one.
    pub keep_checkpoints: usize,
    /// Stop after this many evaluations without improvement.
    pub early_stopping: Option<u32>,
    /// Smallest fall of the held-out loss that counts as improvement.
    pub early_stopping_min_delta: f64,
    /// Seeds adapter initialization and dropout.
    pub seed: u64,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            epochs: 3.0,
            max_steps: None,
            batch_size: 8,
            grad_accumulation: 1,
            loss_normalization: LossNormalization::Tokens,
            lr: 2e-4,
            schedule: ScheduleKind::Linear,
            warmup_steps: None,
            warmup_ratio: 0.0,
            weight_decay: 0.0,
            betas: [0.9, 0.999],
            eps: 1e-8,
            max_grad_norm: 1.0,
            recompute: Recompute::Auto,
            fused_loss: true,
            eval_every: None,
            save_every: None,
            keep_checkpoints: 2,
            early_stopping: None,
            early_stopping_min_delta: 0.0,
            seed: 42,
        }
    }
}

impl TrainConfig {
    /// What is out of range, as `train.key = value: expected ...`.
    pub fn validate(&self) -> Result<(), String> {
        let [first, second] = self.betas;
        let share = |beta: f64| (0.0..1.0).contains(&beta);
        let checks = [
            (
                "batch_size",
                self.batch_size >= 1,
                self.batch_size.to_string(),
                "at least 1",
            ),
            (
                "grad_accumulation",
                self.grad_accumulation >= 1,
                self.grad_accumulation.to_string(),
                "at least 1",
            ),
            (
                "epochs",
                self.epochs > 0.0 && self.epochs.is_finite(),
                self.epochs.to_string(),
                "a number above 0",
            ),
            (
                "lr",
                self.lr >= 0.0 && self.lr.is_finite(),
                self.lr.to_string(),
                "a number of at least 0, such as 2e-4",
            ),
            (
                "warmup_ratio",
                (0.0..=1.0).contains(&self.warmup_ratio),
                self.warmup_ratio.to_string(),
                "a share from 0 to 1, such as 0.03",
            ),
            (
                "weight_decay",
                self.weight_decay >= 0.0 && self.weight_decay.is_finite(),
                self.weight_decay.to_string(),
                "a number of at least 0, such as 0.01",
            ),
            (
                "betas",
                share(first) && share(second),
                format!("[{first}, {second}]"),
                "two numbers from 0 to below 1, such as [0.9, 0.999]",
            ),
            (
                "eps",
                self.eps > 0.0 && self.eps.is_finite(),
                self.eps.to_string(),
                "a number above 0, such as 1e-8",
            ),
            (
                "max_grad_norm",
                self.max_grad_norm >= 0.0,
                self.max_grad_norm.to_string(),
                "a number of at least 0, where 0 switches clipping off",
            ),
        ];
        match checks.into_iter().find(|(_, ok, _, _)| !ok) {
            Some((key, _, found, expected)) => {
                Err(format!("train.{key} = {found}: expected {expected}"))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn what_would_train_to_nonsense_is_refused_with_its_range() {
        TrainConfig::default().validate().unwrap();
        let edge = "betas = [0.0, 0.0]\nweight_decay = 0.0\nmax_grad_norm = 0.0\nlr = 0.0\nwarmup_ratio = 1.0";
        toml::from_str::<TrainConfig>(edge)
            .unwrap()
            .validate()
            .unwrap();
        for (text, range) in [
            (
                "betas = [0.9, 1.0]",
                "[0.9, 1]: expected two numbers from 0 to below 1",
            ),
            ("betas = [-0.1, 0.9]", "train.betas"),
            ("betas = [nan, 0.9]", "train.betas"),
            ("eps = 0.0", "above 0"),
            (
                "weight_decay = -1e6",
                "train.weight_decay = -1000000: expected a number of at least 0",
            ),
            ("weight_decay = inf", "train.weight_decay"),
            ("batch_size = 0", "at least 1"),
            ("grad_accumulation = 0", "at least 1"),
            ("epochs = 0", "above 0"),
            ("lr = -1.0", "train.lr"),
            ("warmup_ratio = 1.5", "from 0 to 1"),
            ("max_grad_norm = nan", "train.max_grad_norm"),
        ] {
            let config: TrainConfig = toml::from_str(text).unwrap();
            let error = config.validate().unwrap_err();
            assert!(error.contains(range), "{text}: {error}");
        }
    }
}
