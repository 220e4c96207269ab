//! Predictions and references from files.
//!
//! One data file of rows: `prediction, reference`, or `base, adapted, reference` as `trainer generate --out` writes them;
//! a reference may be a list of several. Or two text files, a line each.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use qloom_core::data::{DataConfig, Row};
use serde_json::Value;

use crate::files::read_text;
use crate::session::read_one;

/// What is to be scored.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Pairs {
    /// One list per example.
    pub(crate) references: Vec<Vec<String>>,
    /// Name and predictions of one model, or of two.
    pub(crate) models: Vec<(String, Vec<String>)>,
    /// What was asked, where the file says.
    pub(crate) prompts: Option<Vec<String>>,
    /// Where each example stands.
    pub(crate) places: Vec<String>,
}

/// Columns to read instead of those found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Columns {
    /// One or two columns of predictions.
    pub(crate) predictions: Vec<String>,
    /// The column of references.
    pub(crate) reference: Option<String>,
}

/// Rows of a data file.
///
/// # Errors
/// An unreadable or empty file, a column that no row has, a row that lacks one.
pub(crate) fn read_rows(path: &Path, columns: &Columns) -> Result<Pairs> {
    let rows = read_one(path, &DataConfig::default())?.rows;
    let Some(first) = rows.first() else {
        bail!("{} has no rows to score", path.display());
    };
    let named: Vec<&str> = match columns.predictions.is_empty() {
        false => columns.predictions.iter().map(String::as_str).collect(),
        true => found_columns(first)?,
    };
    let reference = columns.reference.as_deref().unwrap_or("reference");
    let empty = |name: &&str| ((*name).to_owned(), Vec::with_capacity(rows.len()));
    let mut pairs = Pairs {
        models: named.iter().map(empty).collect(),
        ..Pairs::default()
    };
    for row in &rows {
        pairs.references.push(references(row, reference)?);
        for (name, predictions) in &mut pairs.models {
            predictions.push(one(row, name, "prediction")?);
        }
        pairs.places.push(row.source.to_string());
    }
    let prompts: Vec<String> = rows
        .iter()
        .filter_map(|r| text(r.record.get("prompt")?))
        .collect();
    pairs.prompts = (prompts.len() == rows.len()).then_some(prompts);
    Ok(pairs)
}

/// Two text files, a line each.
///
/// # Errors
/// Unreadable or empty files, unequal numbers of lines.
pub(crate) fn read_lines(predictions: &Path, references: &Path) -> Result<Pairs> {
    let lines = |path: &Path| -> Result<Vec<String>> {
        Ok(read_text(path)?.lines().map(str::to_owned).collect())
    };
    let (answers, expected) = (lines(predictions)?, lines(references)?);
    ensure!(
        answers.len() == expected.len(),
        "{} has {} lines and {} has {}: expected one prediction for every reference, in the same order",
        predictions.display(),
        answers.len(),
        references.display(),
        expected.len()
    );
    ensure!(
        !answers.is_empty(),
        "{} is empty: there is nothing to score",
        predictions.display()
    );
    let place = |i| format!("{} line {}", references.display(), i + 1);
    Ok(Pairs {
        places: (0..answers.len()).map(place).collect(),
        references: expected.into_iter().map(|r| vec![r]).collect(),
        models: vec![("prediction".to_owned(), answers)],
        prompts: None,
    })
}

/// The prediction columns of a file, by its first row.
fn found_columns(first: &Row) -> Result<Vec<&'static str>> {
    let filled = |name: &str| first.record.get(name).is_some_and(|v| !v.is_null());
    Ok(match () {
        () if filled("prediction") => vec!["prediction"],
        () if filled("base") && filled("adapted") => vec!["base", "adapted"],
        () if filled("base") => vec!["base"],
        () => bail!(
            "{}: expected a column `prediction`, or `base` and `adapted`, found {}; name it with --prediction-column",
            first.source,
            listed(first)
        ),
    })
}

fn listed(row: &Row) -> String {
    let names: Vec<String> = row.record.keys().map(|k| format!("`{k}`")).collect();
    names.join(", ")
}

fn one(row: &Row, column: &str, what: &str) -> Result<String> {
    let value = row.record.get(column);
    let value = value.with_context(|| {
        format!(
            "{}: no column `{column}` with the {what}, found {}",
            row.source,
            listed(row)
        )
    })?;
    text(value).with_context(|| {
        format!(
            "{}: `{column}` is {value}, expected the text of the {what}",
            row.source
        )
    })
}

fn references(row: &Row, column: &str) -> Result<Vec<String>> {
    let Some(Value::Array(several)) = row.record.get(column) else {
        return Ok(vec![one(row, column, "reference")?]);
    };
    let all: Option<Vec<String>> = several.iter().map(text).collect();
    all.filter(|all| !all.is_empty()).with_context(|| {
        format!(
            "{}: `{column}` should be a text or a list of texts, with at least one",
            row.source
        )
    })
}

/// Text as it is, numbers and booleans as written.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;

    fn read(name: &str, content: &str, columns: &Columns) -> Result<Pairs> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        read_rows(&path, columns)
    }

    fn refused(name: &str, content: &str) -> String {
        format!(
            "{:#}",
            read(name, content, &Columns::default()).unwrap_err()
        )
    }

    #[test]
    fn one_model_two_models_and_several_references() {
        let plain = Columns::default();
        let one = read("a.csv", "prediction,reference\n\"a, b\",c\n,\n", &plain).unwrap();
        assert_eq!(
            one.models,
            [(
                "prediction".to_owned(),
                vec!["a, b".to_owned(), String::new()]
            )]
        );
        assert_eq!(one.references, [vec!["c".to_owned()], vec![String::new()]]);
        let two = read(
            "a.jsonl",
            "{\"prompt\": \"p\", \"reference\": [\"x\", \"y\"], \"base\": 1, \"adapted\": \"2\"}\n",
            &plain,
        )
        .unwrap();
        assert_eq!(
            two.models.iter().map(|m| m.0.as_str()).collect::<Vec<_>>(),
            ["base", "adapted"]
        );
        assert_eq!(
            (two.models[0].1[0].as_str(), two.references[0].len()),
            ("1", 2)
        );
        assert_eq!(two.prompts.unwrap(), ["p"]);
        let base = read(
            "a.jsonl",
            "{\"reference\": \"x\", \"base\": \"b\", \"adapted\": null}\n",
            &plain,
        )
        .unwrap();
        assert_eq!(base.models.len(), 1);
        let named = Columns {
            predictions: vec!["out".into()],
            reference: Some("gold".into()),
        };
        assert_eq!(
            read("a.jsonl", "{\"gold\": \"g\", \"out\": \"o\"}", &named)
                .unwrap()
                .models[0]
                .1,
            ["o"]
        );
    }

    #[test]
    fn bad_files_name_the_line_and_the_columns() {
        assert!(refused("a.jsonl", "").contains("a.jsonl"));
        let absent = refused("a.jsonl", "{\"text\": \"x\", \"reference\": \"y\"}\n");
        assert!(
            absent.contains("`prediction`") && absent.contains("`text`"),
            "{absent}"
        );
        let second = refused(
            "a.jsonl",
            "{\"prediction\": \"x\", \"reference\": \"y\"}\n{\"prediction\": \"x\"}\n",
        );
        assert!(
            second.contains("line 2") && second.contains("`reference`"),
            "{second}"
        );
        let null = refused(
            "a.jsonl",
            "{\"prediction\": \"x\", \"reference\": \"y\"}\n{\"prediction\": null, \"reference\": \"y\"}\n",
        );
        assert!(null.contains("line 2") && null.contains("null"), "{null}");
        let none = refused("a.jsonl", "{\"prediction\": \"x\", \"reference\": []}\n");
        assert!(none.contains("at least one"), "{none}");
    }

    #[test]
    fn unequal_lines_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let (two, three, empty) = (file("p", "a\nb\n"), file("r", "a\nb\n\n"), file("e", ""));
        let error = read_lines(&two, &three).unwrap_err().to_string();
        assert!(
            error.contains("2 lines") && error.contains("has 3"),
            "{error}"
        );
        assert!(
            read_lines(&empty, &empty)
                .unwrap_err()
                .to_string()
                .contains("nothing to score")
        );
        assert_eq!(read_lines(&two, &two).unwrap().models[0].1, ["a", "b"]);
    }
}
