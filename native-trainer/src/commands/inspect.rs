//! `trainer inspect`: what a folder or file holds.

use std::path::Path;

use anyhow::{Result, bail};
use qloom_core::adapters::Receipt;
use qloom_core::models::Architecture;
use qloom_core::models::bert::{BertConfig, Prefixed};
use qloom_core::weights::{WeightSource, sha256_hex};
use serde_json::{Value, json};

use super::{Common, UsageError};
use crate::base::BaseFiles;
use crate::cli::InspectArguments;
use crate::files::{atomic, listing, read};
use crate::session::{TENSORS, is_checkpoint, labels_of, latest, read_adapter, read_checkpoint};

/// Prints facts about a base, an adapter, checkpoints or a run.
pub(super) fn run(common: &Common, arguments: InspectArguments) -> Result<()> {
    let path = &arguments.path;
    if arguments.resave.is_some() && !path.join("adapter_config.json").is_file() {
        return Err(UsageError::new(format!(
            "--resave writes an adapter again, and {} holds no adapter_config.json; name the adapter's folder",
            path.display()
        ))
        .into());
    }
    let facts = if path.join("adapter_config.json").is_file() {
        let facts = adapter(path)?;
        if let Some(out) = &arguments.resave {
            resave(path, out)?;
        }
        facts
    } else if is_checkpoint(path) {
        checkpoint(path)?
    } else if path.join("config.toml").is_file() {
        run_folder(path)?
    } else if path.join("config.json").is_file() {
        base(path)?
    } else {
        bail!(
            "{}: no base, adapter, checkpoint or run; it holds {}",
            path.display(),
            listing(path, 12)
        );
    };
    if common.json {
        println!("{}", serde_json::to_string_pretty(&facts)?);
    } else {
        print(&facts, 0);
    }
    Ok(())
}

fn print(value: &Value, depth: usize) {
    let Value::Object(fields) = value else { return };
    let indent = "  ".repeat(depth);
    for (key, value) in fields {
        match value {
            Value::Object(_) => {
                println!("{indent}{key}:");
                print(value, depth + 1);
            }
            Value::String(text) => println!("{indent}{key}: {text}"),
            other => println!("{indent}{key}: {other}"),
        }
    }
}

fn adapter(path: &Path) -> Result<Value> {
    let adapter = read_adapter(path)?;
    let modules = adapter.pairs()?;
    let values: usize = adapter.tensors.values().map(|t| t.numel()).sum();
    let zeros = modules.iter().flat_map(|m| m.a.iter().chain(&m.b));
    let pair_values: usize = modules.iter().map(|m| m.a.len() + m.b.len()).sum();
    let zeros = zeros.filter(|v| **v == 0.0).count() as f64 / pair_values.max(1) as f64;
    let mut targets: Vec<&str> = modules
        .iter()
        .filter_map(|m| m.path.rsplit('.').next())
        .collect();
    targets.sort_unstable();
    targets.dedup();
    let mut ranks: Vec<usize> = modules.iter().map(|m| m.rank).collect();
    ranks.sort_unstable();
    ranks.dedup();
    let receipt = path.join("qloom.json");
    let receipt = if receipt.is_file() {
        Some(Receipt::from_json(&read(&receipt)?)?)
    } else {
        None
    };
    Ok(json!({
        "kind": "adapter",
        "base": adapter.config.base_model_name_or_path,
        "method": receipt.as_ref().and_then(|r| r.rest.get("method").cloned()).unwrap_or_else(|| {
            if adapter.config.is_head_only() { "head".into() } else { adapter.kind().to_string().to_lowercase().into() }
        }),
        "init": receipt.as_ref().and_then(|r| r.rest.get("init").cloned()),
        "sparsity": receipt.as_ref().and_then(|r| r.rest.get("sparsity").cloned()),
        "zero_share": zeros,
        "bytes": std::fs::metadata(path.join("adapter_model.safetensors"))?.len(),
        "peft_type": adapter.config.peft_type,
        "task_type": adapter.config.task_type,
        "labels": labels_of(path)?,
        "rank": ranks,
        "alpha": adapter.config.lora_alpha,
        "rslora": adapter.config.use_rslora,
        "target_modules": targets,
        "modules": modules.len(),
        "modules_to_save": adapter.saved().keys().collect::<Vec<_>>(),
        "tensors": adapter.tensors.len(),
        "trained_values": values,
        "base_fingerprint": receipt.and_then(|r| r.base_fingerprint),
        "sha256": {
            "adapter_config.json": sha256_hex(&read(&path.join("adapter_config.json"))?),
            "adapter_model.safetensors": sha256_hex(&read(&path.join("adapter_model.safetensors"))?),
        },
    }))
}

fn resave(path: &Path, out: &Path) -> Result<()> {
    anyhow::ensure!(
        !out.exists(),
        "{} exists already; choose a new folder for --resave",
        out.display()
    );
    let (config, tensors) = read_adapter(path)?.to_bytes()?;
    atomic::replace_folder(out, |folder| {
        atomic::write_file(&folder.join("adapter_config.json"), &config)?;
        atomic::write_file(&folder.join("adapter_model.safetensors"), &tensors)
    })
}

fn base(path: &Path) -> Result<Value> {
    let files = BaseFiles::open(&path.display().to_string())?;
    let config = match files.architecture()? {
        Architecture::Llama(config) => config,
        Architecture::Bert(config) => return encoder(&files, &config),
    };
    let parameters: usize = config
        .expected_tensors()
        .iter()
        .map(|(_, shape)| shape.iter().product::<usize>())
        .sum();
    Ok(json!({
        "kind": "base",
        "architecture": format!("{:?}", config.architecture),
        "parameters": parameters,
        "hidden_size": config.hidden_size,
        "layers": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "kv_heads": config.num_key_value_heads,
        "vocab_size": config.vocab_size,
        "context": config.max_position_embeddings,
        "weight_bytes": files.weight_bytes(),
        "quantized": files.is_quantized()?,
        "target_modules": qloom_core::adapters::valid_targets(&config.linear_modules()),
        "fingerprint": files.fingerprint()?,
    }))
}

fn encoder(files: &BaseFiles, config: &BertConfig) -> Result<Value> {
    let source = files.source()?;
    let source = Prefixed::new(&source, config.family);
    let head = config.head_tensors(config.num_labels);
    let has = |name: &str| source.contains(name);
    let parameters: usize = config
        .expected_tensors(config.num_labels)
        .iter()
        .filter(|(name, _)| has(name))
        .map(|(_, shape)| shape.iter().product::<usize>())
        .sum();
    Ok(json!({
        "kind": "base",
        "architecture": format!("{:?}", config.family),
        "parameters": parameters,
        "hidden_size": config.hidden_size,
        "layers": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "vocab_size": config.vocab_size,
        "context": config.max_position_embeddings,
        "classification_head": head.iter().all(|(name, _)| has(name)),
        "labels": config.labels,
        "weight_bytes": files.weight_bytes(),
        "quantized": files.is_quantized()?,
        "target_modules": qloom_core::adapters::valid_targets(&config.linear_modules()),
        "fingerprint": files.fingerprint()?,
    }))
}

fn checkpoint(path: &Path) -> Result<Value> {
    let checkpoint = read_checkpoint(path)?;
    let state = &checkpoint.state;
    Ok(json!({
        "kind": "checkpoint",
        "step": state.step,
        "target_tokens": state.tokens,
        "trained_tensors": state.parameters.len(),
        "bytes": std::fs::metadata(path.join(TENSORS))?.len(),
    }))
}

fn run_folder(path: &Path) -> Result<Value> {
    let checkpoint = latest(&path.join("checkpoints"))?;
    let metrics = path.join("metrics.json");
    let metrics: Value = if metrics.is_file() {
        serde_json::from_slice(&read(&metrics)?)?
    } else {
        Value::Null
    };
    let adapter_folder = path.join("adapter");
    let adapter = if adapter_folder.is_dir() {
        adapter(&adapter_folder)?
    } else {
        Value::Null
    };
    Ok(json!({
        "kind": "run",
        "last_checkpoint_step": checkpoint.as_ref().map(|c| c.state.step),
        "target_tokens": checkpoint.as_ref().map(|c| c.state.tokens),
        "trained_tensors": checkpoint.as_ref().map(|c| c.state.parameters.len()),
        "adapter": adapter,
        "metrics": metrics,
    }))
}
