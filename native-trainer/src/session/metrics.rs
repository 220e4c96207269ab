//! A run's `metrics.json` after its scores were taken again.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use crate::config::ModelConfig;
use crate::files::{atomic, read};

/// Puts the `base` and `adapted` of `scores` into the `metrics.json` of the run in `folder`; what was not measured again
/// stays. Says no, and changes nothing, where the scores are of other examples than the run's (`data_sha256`) or of the
/// base in another form.
pub(crate) fn refresh(
    folder: &Path,
    scores: &Value,
    data_sha256: &str,
    model: &ModelConfig,
) -> Result<bool> {
    let path = folder.join("metrics.json");
    if !path.is_file() || !same_form(folder, model)? {
        return Ok(false);
    }
    let mut metrics: Map<String, Value> = serde_json::from_slice(&read(&path)?)
        .with_context(|| format!("{} is no JSON object", path.display()))?;
    let of = metrics.get("data").and_then(|data| data.get("sha256"));
    if of.and_then(Value::as_str) != Some(data_sha256) {
        return Ok(false);
    }
    for side in ["base", "adapted"] {
        if let (Some(Value::Object(old)), Some(Value::Object(new))) =
            (metrics.get_mut(side), scores.get(side))
        {
            old.extend(new.clone());
        }
    }
    atomic::write_file(&path, &serde_json::to_vec_pretty(&metrics)?)?;
    Ok(true)
}

/// Whether the run had its base in the form that `model` says.
fn same_form(folder: &Path, model: &ModelConfig) -> Result<bool> {
    let path = folder.join("config.toml");
    if !path.is_file() {
        return Ok(false);
    }
    let ran = crate::config::load(&path, &[])?.model;
    let form = |m: &ModelConfig| (m.quantization.clone(), m.double_quant, m.compute.clone());
    Ok(form(&ran) == form(model))
}
