//! Adapters by category and their merges: every model's scores, over all held-out prompts and category by category.
//!
//! The files are those the experiment had when it was made by hand: answers side by side, BERTScore per model and
//! category, the judge's verdicts.

use anyhow::{Context, Result};
use qloom_core::adapters::RECEIPT;
use serde_json::{Map, Value};

use super::super::kitchen::{Kitchen, Role};
use super::super::steps::Scored;
use crate::files::{atomic, read};
use crate::report::{markdown, numbers};
use crate::runs::record::score;

/// The tables as markdown; `answers.csv`, `scores.csv`, `judge.csv` and the runs' tables beside them.
pub(super) fn table(kitchen: &Kitchen) -> Result<String> {
    let experiments = kitchen
        .experiments
        .as_ref()
        .context("this table needs runs before it")?;
    experiments.write(&kitchen.site.out, "runs")?;
    let metrics = shown(&kitchen.scores);
    write_csv(kitchen, "answers.csv", &answers(kitchen))?;
    write_csv(kitchen, "scores.csv", &scores(kitchen, &metrics))?;

    let mut text = String::from("## Every model on all held-out prompts\n\n");
    let main = main_metric(&metrics);
    let mut header: Vec<String> = ["model", "kind"].map(str::to_owned).to_vec();
    header.extend(metrics.iter().cloned());
    if let Some(main) = main {
        header.push(format!("{main}, against the base"));
    }
    header.push("distance from the true sum".to_owned());
    if !kitchen.verdicts.is_empty() {
        header.push("judge: wins over the base".to_owned());
    }
    let rows: Vec<Vec<String>> = whole(kitchen)
        .map(|scored| overall(kitchen, scored, &metrics))
        .collect();
    text.push_str(&markdown::table(&header, &rows));
    text.push_str(
        "\nThe distance is that of a merged adapter from the weighted sum of its parts' updates, relative to that sum: \
         0 is the sum itself. Every metric by category, with intervals, is in scores.csv.\n",
    );
    for metric in metrics.iter().filter(|m| CROSSED.contains(&m.as_str())) {
        text.push_str(&format!("\n## {metric}, by category\n\n"));
        let (header, rows) = crossed(kitchen, metric);
        text.push_str(&markdown::table(&header, &rows));
    }
    if !kitchen.verdicts.is_empty() {
        write_csv(kitchen, "judge.csv", &verdicts(kitchen))?;
    }
    text.push_str(&format!("\n{}", experiments.sections()));
    Ok(text)
}

/// Metrics that get a table of models by categories.
const CROSSED: [&str; 3] = ["bertscore_f1", "rougeL", "token_f1"];

/// The metric whose difference from the base is tested in the table.
fn main_metric(metrics: &[String]) -> Option<&String> {
    let found = |name: &&str| metrics.iter().find(|m| m == name);
    CROSSED.iter().find_map(found)
}

/// The metrics to show: those with an interval that are no parts of another.
fn shown(scores: &[Scored]) -> Vec<String> {
    let first = scores.iter().find(|s| s.category.is_empty());
    let keys = first.into_iter().flat_map(|s| s.metrics.keys());
    keys.filter_map(|key| key.strip_suffix("_ci"))
        .filter(|key| !matches!(*key, "bertscore_precision" | "bertscore_recall"))
        .map(str::to_owned)
        .collect()
}

fn whole(kitchen: &Kitchen) -> impl Iterator<Item = &Scored> {
    kitchen.scores.iter().filter(|s| s.category.is_empty())
}

fn kind(kitchen: &Kitchen, model: &str) -> &'static str {
    match kitchen
        .models
        .iter()
        .find(|m| m.name == model)
        .map(|m| m.role)
    {
        None => "base",
        Some(Role::Full | Role::Single) => "all rows",
        Some(Role::Category) => "one category",
        Some(Role::Merged) => "merged",
    }
}

fn overall(kitchen: &Kitchen, scored: &Scored, metrics: &[String]) -> Vec<String> {
    let mut row = vec![
        scored.model.clone(),
        kind(kitchen, &scored.model).to_owned(),
    ];
    row.extend(
        metrics
            .iter()
            .map(|metric| match score(&scored.metrics, metric) {
                Some(found) => numbers::with_interval(found.value, found.interval),
                None => "-".to_owned(),
            }),
    );
    if let Some(main) = main_metric(metrics) {
        let compared = of(&kitchen.comparisons, &scored.model);
        let p = compared.and_then(|c| c[main.as_str()]["p_value"].as_f64());
        row.push(p.map_or("-".to_owned(), numbers::p_value));
    }
    row.push(distance(kitchen, &scored.model).map_or("-".to_owned(), numbers::score));
    if !kitchen.verdicts.is_empty() {
        row.push(of(&kitchen.verdicts, &scored.model).map_or("-".to_owned(), win_rate));
    }
    row
}

fn of<'a>(all: &'a [(String, Value)], model: &str) -> Option<&'a Value> {
    all.iter()
        .find(|(name, _)| name == model)
        .map(|(_, value)| value)
}

/// How far a merged adapter is from the weighted sum of its parts' updates, as its receipt has it.
fn distance(kitchen: &Kitchen, model: &str) -> Option<f64> {
    let merged = kitchen.models.iter().find(|m| m.name == model)?;
    let receipt = read(&merged.adapter.join(RECEIPT)).ok()?;
    let receipt: Value = serde_json::from_slice(&receipt).ok()?;
    receipt["merge"]["fidelity"]["relative_error"].as_f64()
}

fn win_rate(verdict: &Value) -> String {
    let rate = &verdict["report"]["win_rate"];
    let part = |key: &str| rate[key].as_f64();
    match (part("estimate"), part("low"), part("high")) {
        (Some(value), Some(low), Some(high)) => numbers::with_interval(value, Some((low, high))),
        _ => "-".to_owned(),
    }
}

/// Models by categories.
fn crossed(kitchen: &Kitchen, metric: &str) -> (Vec<String>, Vec<Vec<String>>) {
    let mut categories: Vec<(String, usize)> = Vec::new();
    for scored in kitchen.scores.iter().filter(|s| !s.category.is_empty()) {
        if !categories
            .iter()
            .any(|(known, _)| *known == scored.category)
        {
            categories.push((scored.category.clone(), scored.examples));
        }
    }
    let header = std::iter::once("model".to_owned())
        .chain(categories.iter().map(|(name, n)| format!("{name} ({n})")))
        .collect();
    let cell = |model: &str, category: &str| {
        let found = kitchen
            .scores
            .iter()
            .find(|s| s.model == model && s.category == category);
        let value = found.and_then(|s| s.metrics.get(metric)?.as_f64());
        value.map_or("-".to_owned(), numbers::score)
    };
    let rows = whole(kitchen).map(|scored| {
        std::iter::once(scored.model.clone())
            .chain(
                categories
                    .iter()
                    .map(|(category, _)| cell(&scored.model, category)),
            )
            .collect()
    });
    (header, rows.collect())
}

fn answers(kitchen: &Kitchen) -> Vec<Vec<String>> {
    let Some(first) = kitchen.answers.first() else {
        return Vec::new();
    };
    let header: Vec<String> = first.keys().cloned().collect();
    let cell = |row: &Map<String, Value>, key: &String| match row.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    };
    let rows = kitchen
        .answers
        .iter()
        .map(|row| header.iter().map(|key| cell(row, key)).collect());
    std::iter::once(header.clone()).chain(rows).collect()
}

fn scores(kitchen: &Kitchen, metrics: &[String]) -> Vec<Vec<String>> {
    let mut header = ["model", "kind", "category", "examples"]
        .map(str::to_owned)
        .to_vec();
    for metric in metrics {
        header.extend([
            metric.clone(),
            format!("{metric}_low"),
            format!("{metric}_high"),
        ]);
    }
    let row = |scored: &Scored| {
        let category = if scored.category.is_empty() {
            "all"
        } else {
            &scored.category
        };
        let mut row = vec![
            scored.model.clone(),
            kind(kitchen, &scored.model).to_owned(),
            category.to_owned(),
            scored.examples.to_string(),
        ];
        for metric in metrics {
            let found = score(&scored.metrics, metric);
            let interval = found.and_then(|s| s.interval);
            let cells = [
                found.map(|s| s.value),
                interval.map(|i| i.0),
                interval.map(|i| i.1),
            ];
            row.extend(cells.map(|cell| cell.map_or(String::new(), |v| v.to_string())));
        }
        row
    };
    std::iter::once(header)
        .chain(kitchen.scores.iter().map(row))
        .collect()
}

fn verdicts(kitchen: &Kitchen) -> Vec<Vec<String>> {
    let counts = [
        "pairs",
        "wins",
        "ties",
        "losses",
        "disagreements",
        "unparsed",
        "p_value",
    ];
    let intervals = ["win_rate", "position_consistency"];
    let mut header: Vec<String> = std::iter::once("model")
        .chain(counts)
        .map(str::to_owned)
        .collect();
    for name in intervals {
        header.extend([
            name.to_owned(),
            format!("{name}_low"),
            format!("{name}_high"),
        ]);
    }
    let cell = |value: &Value| match value {
        Value::Null => String::new(),
        other => other.to_string(),
    };
    let rows = kitchen.verdicts.iter().map(|(model, verdict)| {
        let report = &verdict["report"];
        let mut row = vec![model.clone()];
        row.extend(counts.iter().map(|key| cell(&report[*key])));
        for name in intervals {
            row.extend(["estimate", "low", "high"].map(|part| cell(&report[name][part])));
        }
        row
    });
    std::iter::once(header).chain(rows).collect()
}

fn write_csv(kitchen: &Kitchen, name: &str, rows: &[Vec<String>]) -> Result<()> {
    let mut out = csv::Writer::from_writer(Vec::new());
    rows.iter().try_for_each(|row| out.write_record(row))?;
    atomic::write_file(&kitchen.path(name), &out.into_inner()?)
}
