//! `per_example.csv`: `source, prompt, reference`, a column of answers per model, and `MODEL_VALUE` columns.

use crate::protocol::EvalRow;
use crate::state::numbers;
use crate::state::table::View;

use super::{Examples, Grid, Opened};

pub(super) fn open(grid: &Grid) -> Opened {
    let models = models(&grid.header[3..]);
    let rows: Vec<EvalRow> = grid
        .rows
        .iter()
        .enumerate()
        .map(|(at, row)| example(grid, &models, at, row))
        .collect();
    Opened {
        kind: "examples with their answers",
        facts: vec![("Examples".to_owned(), numbers::count(rows.len() as u64))],
        examples: Some(Examples {
            models,
            rows,
            view: View::default(),
        }),
        ..Opened::default()
    }
}

/// A model is a column without a value's name. Where only likelihoods were scored there is none such: then whatever stands
/// before `_loss` or `_correct` is one.
fn models(header: &[String]) -> Vec<String> {
    let is_value = |h: &String| {
        header
            .iter()
            .any(|m| m != h && h.starts_with(&format!("{m}_")))
    };
    let plain = header.iter().filter(|h| !is_value(h));
    let suffixes = ["_loss", "_correct", "_text"];
    let mut found: Vec<String> = Vec::new();
    for name in plain {
        let stem = suffixes
            .iter()
            .find_map(|s| name.strip_suffix(s))
            .unwrap_or(name);
        if !found.iter().any(|m| m == stem) {
            found.push(stem.to_owned());
        }
    }
    found
}

fn example(grid: &Grid, models: &[String], at: usize, row: &[String]) -> EvalRow {
    let cell = |column: &str| {
        let place = grid.header.iter().position(|h| h == column)?;
        row.get(place).cloned()
    };
    let values = |model: &String| {
        let prefix = format!("{model}_");
        // The longest model that a column starts with owns it: `base` and `base_2` may both be models.
        let owner = |h: &str| {
            models
                .iter()
                .filter(|m| h.starts_with(&format!("{m}_")))
                .max_by_key(|m| m.len())
        };
        let columns = grid.header.iter().zip(row).skip(3);
        let own = columns.filter(|(h, _)| owner(h) == Some(model));
        own.filter_map(|(h, v)| Some((h.strip_prefix(&prefix)?.to_owned(), number(v)?)))
            .collect()
    };
    EvalRow {
        line: line_of(&row[0]).unwrap_or(at + 1),
        prompt: row[1].clone(),
        reference: row[2].clone(),
        answers: models
            .iter()
            .map(|m| cell(m).or_else(|| cell(&format!("{m}_text"))))
            .collect(),
        values: models.iter().map(values).collect(),
    }
}

fn number(text: &str) -> Option<f64> {
    match text {
        "true" => Some(1.0),
        "false" => Some(0.0),
        _ => text.parse().ok(),
    }
}

/// `eval.jsonl line 12` -> 12.
fn line_of(source: &str) -> Option<usize> {
    source.rsplit_once(" line ")?.1.trim().parse().ok()
}
