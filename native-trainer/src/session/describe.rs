//! What a finished run says about itself: the adapter's model card and the run's page.

use anyhow::Result;
use qloom_core::data::{DataReport, Task};
use qloom_core::lora::Method;

use super::{Data, RunResult};
use crate::config::RunConfig;
use crate::files::atomic;
use crate::report::card::{Card, DataUsed};
use crate::report::html::Page;
use crate::report::numbers;
use crate::report::scores::TaskScores;

/// Writes `report.html` and, for an adapter, its `README.md`.
pub(crate) fn write(
    config: &RunConfig,
    base: &str,
    base_fingerprint: &str,
    data: &Data,
    result: &RunResult,
    task: &str,
) -> Result<()> {
    let toml = toml::to_string_pretty(config)?;
    let scores = match result.metrics.is_empty() {
        true => Vec::new(),
        false => vec![TaskScores {
            task: task.to_owned(),
            examples: result.examples,
            metrics: result.metrics.clone(),
        }],
    };
    let settings = settings(config, result);
    let card = Card {
        name: result
            .folder
            .file_name()
            .map_or_else(|| "adapter".into(), |n| n.to_string_lossy().into_owned()),
        description: None,
        base: base.to_owned(),
        base_sha256: base_fingerprint.to_owned(),
        pipeline: match data.task {
            Task::Causal => "text-generation".to_owned(),
            Task::SequenceClassification => "text-classification".to_owned(),
        },
        license: None,
        settings: settings.clone(),
        data: data_used(config, data),
        scores: scores.clone(),
        samples: result.samples.clone(),
        config: toml.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    // The card tells how to load an adapter; a whole model is a base like any other.
    if config.lora.method != Method::Full {
        atomic::write_file(&result.artifact.join("README.md"), card.render().as_bytes())?;
    }
    let page = Page {
        title: format!("{}: before and after", card.name),
        lead: format!(
            "{base}, fine-tuned with {}; scores of base and adapted on the same held-out examples.",
            how(config)
        ),
        scores,
        curves: vec![(String::new(), result.curve.clone())],
        samples: result.samples.clone(),
        facts: settings,
        config: Some(toml),
    };
    page.write(&result.folder.join("report.html"))
}

/// The method in a sentence: LoRA on NF4 weights is what QLoRA means.
fn how(config: &RunConfig) -> String {
    let nf4 = config.model.quantization == "nf4";
    match config.lora.method {
        Method::Lora if nf4 => "QLoRA".to_owned(),
        Method::Full => "every weight trained".to_owned(),
        Method::Head => "only its head trained".to_owned(),
        method => format!(
            "{} on {} weights",
            method.kind().unwrap_or_default(),
            if nf4 { "NF4" } else { "dense" }
        ),
    }
}

fn settings(config: &RunConfig, result: &RunResult) -> Vec<(String, String)> {
    let summary = &result.summary;
    let mut facts = vec![
        ("method", summary.method.clone()),
        ("initialization", summary.init.clone()),
        ("quantization", config.model.quantization.clone()),
        ("optimizer steps", result.outcome.steps.to_string()),
        (
            "trained values",
            numbers::count(summary.trained_values as u64),
        ),
        ("weights file", numbers::bytes(summary.bytes)),
        ("targets", numbers::count(result.outcome.tokens)),
        ("learning rate", numbers::learning_rate(config.train.lr)),
        ("seed", config.train.seed.to_string()),
    ];
    if !matches!(config.lora.method, Method::Full | Method::Head) {
        facts.insert(3, ("alpha", config.lora.alpha.to_string()));
        facts.insert(3, ("rank", config.lora.rank.to_string()));
    }
    if let Some(sparsity) = summary.sparsity {
        facts.push(("sparsity", format!("{:.1} %", 100.0 * sparsity)));
    }
    facts
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn data_used(config: &RunConfig, data: &Data) -> Vec<DataUsed> {
    let used = |role: &str, names: &[String], report: &DataReport, hash: String| DataUsed {
        name: names.join(", "),
        role: role.to_owned(),
        rows: report.rows as u64,
        tokens: Some(report.trained_tokens as u64),
        sha256: hash,
    };
    let eval = if config.data.eval.is_empty() {
        &config.data.train
    } else {
        &config.data.eval
    };
    let mut all = vec![used(
        "train",
        &config.data.train,
        &data.report,
        data.hash_of_train(),
    )];
    all.extend(
        data.eval_report
            .as_ref()
            .map(|report| used("eval", eval, report, data.hash_of_eval())),
    );
    all
}
