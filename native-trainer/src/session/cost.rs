//! What a run cost: the `training` object of `metrics.json`, written last, so that its presence marks a finished run.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::files::{atomic, read};

/// Key of the object in `metrics.json`.
pub(crate) const KEY: &str = "training";

/// The cost of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cost {
    /// Optimizer steps.
    pub(crate) steps: u64,
    /// Target tokens trained on.
    pub(crate) target_tokens: u64,
    /// Values trained.
    pub(crate) trainable_parameters: u64,
    /// Bytes of the adapter's (or model's) tensor file.
    pub(crate) adapter_bytes: u64,
    /// Share of rank-one components cut out, of sparse LoRA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sparsity: Option<f64>,
    /// Seconds of the training loop with its evaluations and checkpoints; of the last start, where a run was resumed.
    pub(crate) seconds: f64,
    /// Whether the run was resumed, so that `seconds` leaves out what came before.
    pub(crate) resumed: bool,
    /// Tokens read per second, median over steps.
    pub(crate) tokens_per_s: f64,
    /// Peak memory of the process while it trained, base included; absent where the system does not say.
    pub(crate) peak_memory_bytes: Option<u64>,
    /// The device.
    pub(crate) device: String,
}

/// Adds `cost` to the run's `metrics.json`.
pub(crate) fn record(metrics: &Path, cost: &Cost) -> Result<()> {
    let mut object: Map<String, Value> = serde_json::from_slice(&read(metrics)?)
        .with_context(|| format!("{} is no JSON object", metrics.display()))?;
    object.insert(KEY.to_owned(), serde_json::to_value(cost)?);
    atomic::write_file(metrics, &serde_json::to_vec_pretty(&object)?)
}
