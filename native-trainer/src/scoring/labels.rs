//! Labels in text: which ones there are, which one is right, which one an answer names.

use anyhow::Result;
use qloom_core::evaluation::{Predictions, parse_label};
pub(crate) use qloom_core::evaluation::{gold_classes, label_set};
use serde_json::{Map, Value, json};

use crate::report::confusion::Matrix;

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
    fn answers_that_name_no_label_count_as_none() {
        let labels = texts(&["no", "yes"]);
        let read =
            read_answers(&labels, vec![0, 1], &texts(&["No, because", "who knows"])).unwrap();
        assert_eq!(read.predicted(), [Some(0), None]);
    }
}
