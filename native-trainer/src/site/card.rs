//! The model card of a published adapter, from what the entry and its run say.

use qloom_core::adapters::gallery::{AdapterFacts, Estimate, GalleryBase, Score as Published};
use serde_json::Value;

use super::publish::Publication;
use crate::config::RunConfig;
use crate::report::card::{Card, DataUsed};
use crate::report::numbers;
use crate::report::scores::{Metric, Sample, Score, TaskScores};

/// What there is to say.
pub(super) struct About<'a> {
    /// Name, licence, description.
    pub(super) publication: &'a Publication,
    /// The base.
    pub(super) base: &'a GalleryBase,
    /// The adapter.
    pub(super) facts: &'a AdapterFacts,
    /// Before and after.
    pub(super) scores: &'a [Published],
    /// Prompts answered by both.
    pub(super) samples: &'a [Sample],
    /// The run's configuration, as published.
    pub(super) config: Option<&'a str>,
    /// The run's `metrics.json`, or null.
    pub(super) metrics: &'a Value,
    /// Whether the entry has a picture of the losses.
    pub(super) has_curve: bool,
}

/// The text of README.md.
pub(super) fn render(about: &About<'_>) -> String {
    // A configuration of another version is shown, but not understood.
    let config: Option<RunConfig> = about.config.and_then(|text| toml::from_str(text).ok());
    let p = about.publication;
    let card = Card {
        name: p.name.clone(),
        description: p.description.clone(),
        base: about.base.name.clone(),
        base_sha256: about
            .base
            .fingerprint
            .clone()
            .unwrap_or_else(|| "not recorded".to_owned()),
        pipeline: pipeline(about.facts).to_owned(),
        license: p.licence.clone(),
        settings: settings(about.facts, config.as_ref(), &p.created),
        data: config.map_or_else(Vec::new, |config| data(&config, about.metrics)),
        scores: tasks(about.scores, &p.task),
        samples: about.samples.to_vec(),
        config: about.config.unwrap_or_default().to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let mut text = card.render();
    if about.has_curve {
        text.push_str("\n## Loss\n\n![Loss by optimizer step](loss.png)\n");
    }
    text
}

fn pipeline(facts: &AdapterFacts) -> &'static str {
    match facts.task_type.as_deref() {
        Some("SEQ_CLS") => "text-classification",
        _ => "text-generation",
    }
}

fn settings(
    facts: &AdapterFacts,
    config: Option<&RunConfig>,
    created: &str,
) -> Vec<(String, String)> {
    let mut all = vec![
        ("method", facts.method.clone()),
        ("rank", facts.rank.to_string()),
        ("alpha", facts.alpha.to_string()),
        ("target modules", facts.target_modules.join(", ")),
        ("trained values", numbers::count(facts.parameters)),
    ];
    if let Some(config) = config {
        all.push(("quantization", config.model.quantization.clone()));
        all.push(("learning rate", numbers::learning_rate(config.train.lr)));
        all.push(("seed", config.train.seed.to_string()));
    }
    all.push(("published", created.to_owned()));
    all.into_iter().map(|(n, v)| (n.to_owned(), v)).collect()
}

fn data(config: &RunConfig, metrics: &Value) -> Vec<DataUsed> {
    let counted = &metrics["data"];
    let used = |role: &str, names: &[String]| {
        Some(DataUsed {
            name: names.join(", "),
            role: role.to_owned(),
            rows: counted[format!("{role}_examples")]
                .as_u64()
                .filter(|n| *n > 0)?,
            tokens: counted[format!("{role}_tokens")].as_u64(),
            sha256: counted[format!("{role}_sha256")]
                .as_str()
                .unwrap_or("-")
                .to_owned(),
        })
    };
    // Without files of its own, the held-out set is a share of the training file.
    let held = match config.data.eval.is_empty() {
        true => &config.data.train,
        false => &config.data.eval,
    };
    let both = [used("train", &config.data.train), used("eval", held)];
    both.into_iter().flatten().collect()
}

/// Scores in the shape that tables share, grouped by task in their order.
pub(super) fn tasks(scores: &[Published], task: &str) -> Vec<TaskScores> {
    let mut tasks: Vec<TaskScores> = Vec::new();
    for score in scores {
        let name = score.task.as_deref().unwrap_or(task);
        if tasks.last().is_none_or(|last| last.task != name) {
            tasks.push(TaskScores {
                task: name.to_owned(),
                examples: usize::try_from(score.examples.unwrap_or(0)).unwrap_or(usize::MAX),
                metrics: Vec::new(),
            });
        }
        if let Some(last) = tasks.last_mut() {
            last.metrics.push(Metric {
                name: score.metric.clone(),
                lower_is_better: score.lower_is_better,
                base: score.base.map(shown),
                adapted: score.adapted.map(shown),
                p: None,
            });
        }
    }
    tasks
}

fn shown(estimate: Estimate) -> Score {
    Score {
        value: estimate.value,
        interval: estimate.interval.map(|[low, high]| (low, high)),
    }
}
