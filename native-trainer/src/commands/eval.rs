//! `trainer eval`.

use anyhow::{Context, Result};
use qloom_core::data::Format;
use qloom_core::models::Architecture;
use serde_json::{Value, json};

use super::{Common, UsageError, classify};
use crate::base::{BaseFiles, check_vocabulary};
use crate::cli::EvalArguments;
use crate::config::{self, RunConfig};
use crate::device;
use crate::report::scores::TaskScores;
use crate::report::table;
use crate::session::{Data, Scoring, compare, load_adapter};

/// Scores base and adapter on the same held-out examples.
pub(super) fn run(common: &Common, arguments: EvalArguments) -> Result<()> {
    let (config, adapter) = resolve(&arguments)?;
    let base = BaseFiles::open(&config.model.base)?;
    if let Architecture::Bert(bert) = base.architecture()? {
        let batch = arguments.batch_size;
        return classify::eval(common, config, adapter, batch, &base, &bert);
    }
    let chosen = device::choose(&common.device)?;
    let dtype = device::compute_type(&config.model.compute, &chosen)?;
    let llama = base.llama_config()?;
    let tokenizer = base.tokenizer_for(&config.data)?;
    check_vocabulary(&tokenizer, &llama, &base.name)?;
    let data = Data::load(&config.data, &tokenizer, llama.max_position_embeddings)?;
    let examples = if data.eval.is_empty() {
        &data.train
    } else {
        &data.eval
    };
    let model = base.load(
        &chosen,
        &config.model.quantization,
        config.model.double_quant,
        dtype,
    )?;
    let ends = base.end_ids(&llama, &tokenizer);
    let scoring = Scoring {
        examples,
        tokenizer: &tokenizer,
        metrics: &config.eval.metrics,
        labels: &data.labels,
        batch_size: arguments.batch_size,
        end_ids: &ends,
    };
    let base_scores = scoring.score(&model, "base")?;
    let adapted = match &adapter {
        Some(folder) => Some(scoring.score(
            &model.with(&load_adapter(folder.as_ref(), &base, &model)?),
            "adapted",
        )?),
        None => None,
    };
    if common.json {
        let adapted = adapted
            .as_ref()
            .map_or(Value::Null, |scores| Value::Object(scores.to_json()));
        let json = json!({ "base": base_scores.to_json(), "adapted": adapted, "examples": examples.len() });
        println!("{}", serde_json::to_string_pretty(&json)?);
        return Ok(());
    }
    let mut metrics = compare(&base_scores, adapted.as_ref().unwrap_or(&base_scores))?;
    if adapted.is_none() {
        for metric in &mut metrics {
            (metric.adapted, metric.p) = (None, None);
        }
    }
    let scores = TaskScores {
        task: "held-out".into(),
        examples: examples.len(),
        metrics,
    };
    println!("{}", table::scores(&[scores], table::Look::stdout()));
    Ok(())
}

/// The configuration to score under, and the adapter's folder.
fn resolve(arguments: &EvalArguments) -> Result<(RunConfig, Option<String>)> {
    if let Some(path) = &arguments.config {
        let mut config = config::load(path, &arguments.set)?;
        config.eval.metrics.clone_from(&arguments.metrics);
        let adapter = format!("{}/adapter", config.output.dir);
        let adapter = arguments
            .model
            .adapter
            .as_ref()
            .map_or(adapter, |a| a.display().to_string());
        return Ok((config, Some(adapter)));
    }
    let data = arguments.data.as_ref().ok_or_else(|| {
        UsageError::new("trainer eval needs a run's configuration, or --data with the examples to score (see trainer eval --help)")
    })?;
    let mut config = RunConfig::default();
    config.model.base = arguments.model.base.clone().unwrap_or_default();
    config
        .model
        .quantization
        .clone_from(&arguments.model.quantization);
    config.model.compute.clone_from(&arguments.model.compute);
    config.data.train = vec![data.display().to_string()];
    config.data.max_length = arguments.max_length;
    config.data.format = arguments.format.as_deref().map(parse_format).transpose()?;
    config.eval.metrics.clone_from(&arguments.metrics);
    Ok((
        config,
        arguments
            .model
            .adapter
            .as_ref()
            .map(|a| a.display().to_string()),
    ))
}

/// A data format by name.
pub(super) fn parse_format(name: &str) -> Result<Format> {
    let known = || Format::ALL.map(Format::name).join(", ");
    Format::ALL
        .into_iter()
        .find(|format| format.name() == name)
        .with_context(|| format!("--format {name}: expected one of {}", known()))
        .map_err(|error| UsageError::new(error.to_string()).into())
}
