//! Instruction following: text metrics of base and adapted, the loss curve, and answers before and after.

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use super::super::kitchen::Kitchen;
use crate::files::{atomic, read};
use crate::report::{markdown, numbers};
use crate::runs::record::{metrics, score};

/// Answers shown.
const SHOWN: usize = 8;

/// The tables as markdown; `loss.png` and `samples.md` beside them.
pub(super) fn table(kitchen: &Kitchen) -> Result<String> {
    let experiments = kitchen
        .experiments
        .as_ref()
        .context("this table needs a run before it")?;
    experiments.write(&kitchen.site.out, "experiments")?;
    let record = experiments.records().first().context("no run was made")?;
    let mut rows: Vec<Vec<String>> = metrics(std::slice::from_ref(record))
        .iter()
        .map(|metric| row(metric, &record.base, &record.adapted, None))
        .collect();
    let of = |model: &str| {
        kitchen
            .scores
            .iter()
            .find(|s| s.model == model && s.category.is_empty())
    };
    let model = kitchen
        .models
        .first()
        .map(|m| m.name.clone())
        .unwrap_or_default();
    if let (Some(base), Some(adapted)) = (of("base"), of(&model)) {
        let comparison = kitchen
            .comparisons
            .iter()
            .find(|(name, _)| *name == model)
            .map(|(_, c)| c);
        let keys = base
            .metrics
            .keys()
            .filter_map(|key| key.strip_suffix("_ci"));
        rows.extend(keys.map(|metric| {
            let p = comparison.and_then(|c| c[metric]["p_value"].as_f64());
            row(metric, &base.metrics, &adapted.metrics, p)
        }));
    }
    let header = ["metric", "base", "adapted", "difference by chance"].map(str::to_owned);
    let mut text = format!("## Held-out rows\n\n{}", markdown::table(&header, &rows));

    let picture = std::path::Path::new(&record.folder).join("loss.png");
    if picture.is_file() {
        atomic::write_file(&kitchen.path("loss.png"), &read(&picture)?)?;
        text.push_str("\n![loss by optimizer step](loss.png)\n");
    }
    let samples = samples(kitchen, &model);
    atomic::write_file(
        &kitchen.path("samples.md"),
        format!("# Before and after\n\n{samples}").as_bytes(),
    )?;
    text.push_str(&format!(
        "\n## Before and after\n\n{samples}\n{}",
        experiments.sections()
    ));
    Ok(text)
}

fn row(
    metric: &str,
    base: &Map<String, Value>,
    adapted: &Map<String, Value>,
    p: Option<f64>,
) -> Vec<String> {
    let shown = |scores: &Map<String, Value>| match score(scores, metric) {
        Some(found) => numbers::with_interval(found.value, found.interval),
        None => "-".to_owned(),
    };
    vec![
        metric.to_owned(),
        shown(base),
        shown(adapted),
        p.map_or("-".to_owned(), numbers::p_value),
    ]
}

fn samples(kitchen: &Kitchen, model: &str) -> String {
    let header = ["prompt", "reference", "base", "adapted"].map(str::to_owned);
    let cell = |row: &Map<String, Value>, key: &str| {
        row.get(key)
            .and_then(Value::as_str)
            .unwrap_or("-")
            .to_owned()
    };
    let rows: Vec<Vec<String>> = kitchen
        .answers
        .iter()
        .take(SHOWN)
        .map(|row| {
            ["prompt", "reference", "base", model]
                .map(|key| cell(row, key))
                .to_vec()
        })
        .collect();
    markdown::table(&header, &rows)
}
