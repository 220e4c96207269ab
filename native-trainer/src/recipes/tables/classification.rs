//! Sentiment and its like: macro-F1 on the test split, every class, and what a constant answer would score.

use anyhow::{Context, Result};
use qloom_core::preflight::majority_macro_f1;
use serde_json::{Map, Value};

use super::super::kitchen::Kitchen;
use crate::report::{markdown, numbers};
use crate::runs::record::score;

/// The tables as markdown; `classes.csv` and the run's tables beside them.
pub(super) fn table(kitchen: &Kitchen) -> Result<String> {
    let experiments = kitchen
        .experiments
        .as_ref()
        .context("this table needs a run before it")?;
    experiments.write(&kitchen.site.out, "experiments")?;
    let record = experiments.records().first().context("no run was made")?;
    let models = [("base", &record.base), ("adapted", &record.adapted)];
    let mut text = String::from("## Test split\n\n");
    let header = [
        "model",
        "macro-F1",
        "accuracy",
        "answers that name no label",
    ]
    .map(str::to_owned);
    let mut rows: Vec<Vec<String>> = models
        .iter()
        .map(|(name, scores)| summary(name, scores))
        .collect();
    rows.extend(constant(&record.adapted));
    text.push_str(&markdown::table(&header, &rows));

    let classes: Vec<Class> = models
        .iter()
        .flat_map(|(name, scores)| classes(name, scores))
        .collect();
    let header = ["model", "class", "precision", "recall", "F1", "examples"].map(str::to_owned);
    let cells: Vec<Vec<String>> = classes.iter().map(Class::cells).collect();
    text.push_str(&format!(
        "\n## Classes\n\n{}",
        markdown::table(&header, &cells)
    ));
    let mut csv = csv::Writer::from_writer(Vec::new());
    csv.write_record(&header)?;
    cells.iter().try_for_each(|row| csv.write_record(row))?;
    crate::files::atomic::write_file(&kitchen.path("classes.csv"), &csv.into_inner()?)?;
    text.push_str(&format!("\n{}", experiments.sections()));
    Ok(text)
}

fn summary(name: &str, scores: &Map<String, Value>) -> Vec<String> {
    let shown = |metric: &str| match score(scores, metric) {
        Some(found) => numbers::with_interval(found.value, found.interval),
        None => "-".to_owned(),
    };
    let unparsed = scores.get("unparsed").and_then(Value::as_u64);
    vec![
        name.to_owned(),
        shown("macro_f1"),
        shown("accuracy"),
        unparsed.map_or("-".to_owned(), numbers::count),
    ]
}

/// What the most frequent label scores when it is always given.
fn constant(scores: &Map<String, Value>) -> Option<Vec<String>> {
    let (labels, counts) = matrix(scores)?;
    let sums: Vec<u64> = counts.iter().map(|row| row.iter().sum()).collect();
    let (at, most) = sums.iter().enumerate().max_by_key(|(_, n)| **n)?;
    let share = *most as f64 / sums.iter().sum::<u64>().max(1) as f64;
    Some(vec![
        format!("always {:?}", labels[at]),
        numbers::score(majority_macro_f1(share, labels.len())),
        numbers::score(share),
        "0".to_owned(),
    ])
}

/// Labels and rows of counts, gold by predicted, the last column for answers that name none.
fn matrix(scores: &Map<String, Value>) -> Option<(Vec<String>, Vec<Vec<u64>>)> {
    let matrix = scores.get("confusion_matrix")?;
    let labels = serde_json::from_value(matrix.get("labels")?.clone()).ok()?;
    let rows = serde_json::from_value(matrix.get("rows")?.clone()).ok()?;
    Some((labels, rows))
}

struct Class {
    model: String,
    label: String,
    precision: f64,
    recall: f64,
    f1: f64,
    examples: u64,
}

impl Class {
    fn cells(&self) -> Vec<String> {
        vec![
            self.model.clone(),
            self.label.clone(),
            numbers::score(self.precision),
            numbers::score(self.recall),
            numbers::score(self.f1),
            self.examples.to_string(),
        ]
    }
}

fn classes(model: &str, scores: &Map<String, Value>) -> Vec<Class> {
    let Some((labels, counts)) = matrix(scores) else {
        return Vec::new();
    };
    let share = |part: u64, whole: u64| match whole {
        0 => 0.0,
        _ => part as f64 / whole as f64,
    };
    let of = |(at, label): (usize, String)| {
        let right = counts[at][at];
        let gold: u64 = counts[at].iter().sum();
        let said: u64 = counts.iter().map(|row| row[at]).sum();
        Class {
            model: model.to_owned(),
            label,
            precision: share(right, said),
            recall: share(right, gold),
            f1: share(2 * right, gold + said),
            examples: gold,
        }
    };
    labels
        .into_iter()
        .enumerate()
        .filter(|(at, _)| counts.get(*at).is_some_and(|row| row.len() > *at))
        .map(of)
        .collect()
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::float_cmp
)]
mod tests {
    use super::*;

    #[test]
    fn classes_come_from_the_matrix_and_unnamed_answers_cost_recall() {
        let scores = serde_json::json!({"confusion_matrix": {"labels": ["no", "yes"], "rows": [[3, 1, 0], [0, 2, 2]]}});
        let classes = classes("m", scores.as_object().unwrap());
        assert_eq!((classes[0].precision, classes[0].recall), (1.0, 0.75));
        assert_eq!((classes[1].precision, classes[1].recall), (2.0 / 3.0, 0.5));
        assert_eq!(classes[1].f1, 4.0 / 7.0);
        let always = constant(scores.as_object().unwrap()).unwrap();
        assert_eq!(&always[1..3], ["0.333", "0.500"]);
    }
}
