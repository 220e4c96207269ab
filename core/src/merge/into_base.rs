//! Merging an adapter into its base, written tensor by tensor: `W' = W + scaling · B·A`, or what DoRA and HiRA make of `W`.
//!
//! | base | requantize | what is written |
//! |---|---|---|
//! | dense | no | the merged weights in their own type, everything else as it was |
//! | dense | yes | the merged weights, then all linears quantized to NF4 |
//! | NF4 | no | everything dequantized, the merged weights dense |
//! | NF4 | yes | adapted weights dequantized, merged and quantized again; every other tensor keeps its bytes |
//!
//! A classification head that the base lacks, or has for other classes, is written beside it.
//!
//! Rounding `W'` to the type it is stored in loses part of a small update, to 4 bits much of it: [`update_errors`] measures
//! what is left, by reading the written file back.

use super::MergeError;
use super::base_weights::{Changes, Extended, MergedWeights, dense};
use crate::adapters::Adapter;
use crate::quantization::{
    CheckpointReport, QuantizationConfig, QuantizationError, QuantizeOptions,
    dequantize_checkpoint, quantize_checkpoint, rewrite_quantized,
};
use crate::weights::{WeightError, WeightSource};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::io::Write;

/// Writes `source` with `adapter` merged into it as one safetensors file. The report's `converted` counts the tensors that
/// were rewritten.
///
/// `progress` is called with (tensors done, tensors in all). The sink is returned for the caller to close.
///
/// # Errors
/// An adapter for another base, a base that cannot be read or quantized, a sink that refuses bytes.
pub fn merge_into_base<S: WeightSource + ?Sized, W: Write>(
    source: &S,
    config_json: &[u8],
    adapter: &Adapter,
    requantize: bool,
    out: W,
    progress: impl FnMut(usize, usize),
) -> Result<(W, CheckpointReport), MergeError> {
    let changes = Changes::new(source, adapter)?;
    let config = match changes.unties_head(source) {
        true => untied(config_json)?,
        false => config_json.to_vec(),
    };
    let quantized = QuantizationConfig::from_config_json(&config)?;
    let extended = Extended {
        base: source,
        changes: &changes,
    };
    let mut options = QuantizeOptions::default();
    if let Some(old) = &quantized {
        options.double_quant = old.bnb_4bit_use_double_quant;
        options.skip_modules = old.llm_int8_skip_modules.clone().unwrap_or_default();
    }
    if let Some(quantized) = quantized
        && requantize
        && !changes.unties_head(source)
    {
        let config = with_dense(quantized, &changes, &config)?;
        let values = |name: &str| changes.values(source, name);
        let replaced = |name: &str| changes.touches(name);
        return rewrite_quantized(&extended, &config, &replaced, &values, out, progress);
    }
    let merged = MergedWeights {
        base: &extended,
        changes: &changes,
    };
    if requantize {
        let plain = QuantizationConfig::take_from(&config)?;
        return Ok(quantize_checkpoint(
            &merged, &plain, &options, out, progress,
        )?);
    }
    let (out, report) = dequantize_checkpoint(&merged, &config, None, out, progress)?;
    // To the converter every tensor of the merged source is dense already.
    let rewritten = merged
        .names()
        .iter()
        .filter(|name| changes.touches(name))
        .count();
    let report = CheckpointReport {
        converted: rewritten,
        copied: report.copied + report.converted - rewritten,
        ..report
    };
    Ok((out, report))
}

/// The configuration of an NF4 base whose list of dense modules names the head that an adapter brings.
fn with_dense(
    mut quantized: QuantizationConfig,
    changes: &Changes,
    config_json: &[u8],
) -> Result<Vec<u8>, QuantizationError> {
    let mut dense = quantized.llm_int8_skip_modules.take().unwrap_or_default();
    let before = dense.len();
    for module in changes.brought_modules() {
        if !dense.iter().any(|known| known == module) {
            dense.push(module.to_owned());
        }
    }
    if dense.len() == before {
        return Ok(config_json.to_vec());
    }
    quantized.llm_int8_skip_modules = Some(dense);
    quantized.put_into(config_json)
}

/// `config.json` of a model whose head is no longer the embedding.
fn untied(config_json: &[u8]) -> Result<Vec<u8>, WeightError> {
    let json = |e: serde_json::Error| WeightError::Json {
        file: "config.json".into(),
        reason: e.to_string(),
    };
    let mut config: Map<String, Value> = serde_json::from_slice(config_json).map_err(json)?;
    config.insert("tie_word_embeddings".into(), Value::Bool(false));
    serde_json::to_vec_pretty(&config).map_err(json)
}

/// What storing the merged weight did to the update of one module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UpdateError {
    /// The module's path.
    pub module: String,
    /// `‖stored − (W + ΔW)‖`, Frobenius.
    pub error_norm: f64,
    /// `‖ΔW‖`.
    pub update_norm: f64,
}

impl UpdateError {
    /// Over several modules: `√Σ‖stored − (W + ΔW)‖² / √Σ‖ΔW‖²`; `None` where no update has any length.
    pub fn relative(modules: &[Self]) -> Option<f64> {
        let sum = |part: fn(&Self) -> f64| modules.iter().map(|m| part(m).powi(2)).sum::<f64>();
        let updates = sum(|m| m.update_norm);
        (updates > 0.0).then(|| (sum(|m| m.error_norm) / updates).sqrt())
    }
}

/// Compares what `merged` stores with the exact merge of `adapter` into `source`, module by module.
///
/// # Errors
/// Tensors that one of the two lacks.
pub fn update_errors<S: WeightSource + ?Sized, T: WeightSource + ?Sized>(
    source: &S,
    merged: &T,
    adapter: &Adapter,
) -> Result<Vec<UpdateError>, MergeError> {
    let changes = Changes::new(source, adapter)?;
    changes
        .adapted()
        .map(|(name, path)| {
            let (weight, stored) = (dense(source, name)?, dense(merged, name)?);
            let change = changes.change(name, &weight).unwrap_or_default();
            let (mut error, mut update) = (0.0f64, 0.0f64);
            for ((w, d), s) in weight.iter().zip(change).zip(&stored) {
                error += (f64::from(*s) - (f64::from(*w) + f64::from(d))).powi(2);
                update += f64::from(d).powi(2);
            }
            Ok(UpdateError {
                module: path.to_owned(),
                error_norm: error.sqrt(),
                update_norm: update.sqrt(),
            })
        })
        .collect()
}
