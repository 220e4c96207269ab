//! Labels in text: which ones there are, which one is right, which one an answer names.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use qloom_core::evaluation::{Predictions, parse_label};
use serde_json::{Map, Value, json};

use crate::report::confusion::Matrix;

/// Most distinct answers that still look like a set of labels.
const MOST_LABELS: usize = 32;

/// The labels given, or those that the references name.
///
/// # Errors
/// More distinct references than a label set has.
pub(crate) fn label_set(given: &[String], references: &[String]) -> Result<Vec<String>> {
    if !given.is_empty() {
        return Ok(given.to_vec());
    }
    let found: BTreeSet<String> = references.iter().map(|r| r.trim().to_owned()).collect();
    ensure!(
        found.len() <= MOST_LABELS,
        "scores of labels need one-word label answers, but there are {} different references; \
         leave those metrics out, or list the labels (data.label_names, or --labels of trainer score)",
        found.len()
    );
    Ok(found.into_iter().collect())
}

/// The class of every reference. `place` says where a reference stands.
///
/// # Errors
/// A reference that is none of the labels.
pub(crate) fn gold_classes(
    labels: &[String],
    references: &[String],
    place: impl Fn(usize) -> String,
) -> Result<Vec<usize>> {
    let class = |(index, text): (usize, &String)| {
        parse_label(text, labels).with_context(|| {
            format!(
                "{}: the answer {text:?} is none of the labels {}",
                place(index),
                labels.join(", ")
            )
        })
    };
    references.iter().enumerate().map(class).collect()
}

/// Classes read from generated answers; those that name no label count as wrong.
pub(crate) fn read_answers(
    labels: &[String],
    gold: Vec<usize>,
    answers: &[String],
) -> Result<Predictions> {
    let read = answers.iter().map(|a| parse_label(a, labels)).collect();
    Ok(Predictions::new(labels.to_vec(), gold, read)?)
}

/// What JSON says of predicted classes besides their scores.
pub(crate) fn class_facts(classes: &Predictions) -> Result<Map<String, Value>> {
    let matrix = classes.matrix()?;
    let report = matrix.report();
    let mut facts = Map::new();
    facts.insert("unparsed".to_owned(), json!(report.unparsed));
    facts.insert("mcc".to_owned(), json!(report.mcc));
    facts.insert("weighted_f1".to_owned(), json!(report.weighted_f1));
    facts.insert("macro_precision".to_owned(), json!(report.macro_precision));
    let per_class: Map<String, Value> = report
        .per_class
        .iter()
        .map(|c| {
            let scores = json!({ "precision": c.precision, "recall": c.recall, "f1": c.f1, "support": c.support });
            (c.label.clone(), scores)
        })
        .collect();
    facts.insert("per_class".to_owned(), Value::Object(per_class));
    let rows: Vec<&[u64]> = matrix.rows().collect();
    facts.insert(
        "confusion_matrix".to_owned(),
        json!({ "labels": classes.labels(), "rows": rows }),
    );
    Ok(facts)
}

/// The confusion matrix as a picture's.
pub(crate) fn matrix_of(name: &str, classes: &Predictions) -> Result<Matrix> {
    Ok(Matrix {
        name: name.to_owned(),
        labels: classes.labels().to_vec(),
        rows: classes.matrix()?.rows().map(<[u64]>::to_vec).collect(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|t| (*t).to_owned()).collect()
    }

    #[test]
    fn labels_are_found_or_given() {
        assert_eq!(
            label_set(&[], &texts(&["no", "yes ", "no"])).unwrap(),
            ["no", "yes"]
        );
        assert_eq!(label_set(&texts(&["x"]), &texts(&["y"])).unwrap(), ["x"]);
        let many: Vec<String> = (0..40).map(|i| format!("answer {i}")).collect();
        let error = label_set(&[], &many).unwrap_err().to_string();
        assert!(error.contains("40 different"), "{error}");
    }

    #[test]
    fn a_reference_outside_the_labels_is_placed() {
        let labels = texts(&["no", "yes"]);
        let error = gold_classes(&labels, &texts(&["No.", "maybe"]), |i| {
            format!("row {}", i + 1)
        })
        .unwrap_err()
        .to_string();
        assert!(
            error.contains("row 2") && error.contains("maybe") && error.contains("no, yes"),
            "{error}"
        );
        let read =
            read_answers(&labels, vec![0, 1], &texts(&["No, because", "who knows"])).unwrap();
        assert_eq!(read.predicted(), [Some(0), None]);
    }
}
