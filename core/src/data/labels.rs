//! The label set of a classification data set: raw labels, the words they are answered with, and class ids.

use serde_json::Value;

use super::config::{DataConfig, LabelNames};
use super::error::DataError;
use super::records::Row;

/// Raw labels and their words; a class id is an index into both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    raw: Vec<String>,
    words: Vec<String>,
}

impl Labels {
    /// From `label_names`, or from the labels that occur in `rows` (whole numbers by value, others by name).
    /// Rows without a label are left to the formatter, which names them.
    ///
    /// # Errors
    /// [`DataError::Config`] for fewer than two labels, or words that are not strings or occur twice.
    pub fn collect(rows: &[Row], config: &DataConfig) -> Result<Self, DataError> {
        let bad = |reason: String| DataError::Config {
            key: "label_names".to_owned(),
            reason,
        };
        let (raw, words) = match &config.label_names {
            Some(LabelNames::List(words)) => (
                (0..words.len()).map(|i| i.to_string()).collect(),
                words.clone(),
            ),
            Some(LabelNames::Map(map)) => {
                let mut pairs: Vec<(String, String)> = Vec::new();
                for (raw, word) in map {
                    let word = word.as_str().ok_or_else(|| {
                        bad(format!(
                            "the word for {raw:?} should be a string, found {word}"
                        ))
                    })?;
                    pairs.push((raw.clone(), word.to_owned()));
                }
                if pairs.iter().all(|(raw, _)| raw.parse::<i64>().is_ok()) {
                    pairs.sort_by_key(|(raw, _)| raw.parse::<i64>().unwrap_or(0));
                }
                pairs.into_iter().unzip()
            }
            None => {
                let column = config.fields.get("label").and_then(Value::as_str);
                let mut raw: Vec<String> = rows
                    .iter()
                    .filter_map(|row| label_text(class_field(row, column)?))
                    .collect();
                raw.sort();
                raw.dedup();
                if raw.iter().all(|label| label.parse::<i64>().is_ok()) {
                    raw.sort_by_key(|label| label.parse::<i64>().unwrap_or(0));
                }
                (raw.clone(), raw)
            }
        };
        let labels = Self { raw, words };
        let mut distinct = labels.words.clone();
        distinct.sort();
        distinct.dedup();
        if distinct.len() != labels.words.len() {
            return Err(bad(format!("two labels share a word: {:?}", labels.words)));
        }
        if labels.words.len() < 2 {
            return Err(bad(format!(
                "classification needs at least two labels, found {:?}",
                labels.words
            )));
        }
        Ok(labels)
    }

    /// Number of classes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// Whether there are no classes; never so for a collected set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The words, by class id.
    #[must_use]
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// Raw label to word, in the order of class ids: what `label_names` takes to get this set again.
    #[must_use]
    pub fn to_names(&self) -> serde_json::Map<String, Value> {
        let pairs = self.raw.iter().zip(&self.words);
        pairs
            .map(|(raw, word)| (raw.clone(), Value::from(word.as_str())))
            .collect()
    }

    /// The class id of a raw label or a word.
    #[must_use]
    pub fn class_of(&self, label: &str) -> Option<usize> {
        let find = |list: &[String]| list.iter().position(|l| l == label);
        find(&self.raw).or_else(|| find(&self.words))
    }
}

/// Names by class number, as `label_names` takes them; nameless classes (`LABEL_0`) are called by their number.
#[must_use]
pub fn class_names(labels: &[String]) -> serde_json::Map<String, Value> {
    let named = labels.iter().any(|l| !l.starts_with("LABEL_"));
    let name = |(i, label): (usize, &String)| {
        let name = if named { label.clone() } else { i.to_string() };
        (i.to_string(), Value::from(name))
    };
    labels.iter().enumerate().map(name).collect()
}

/// The value of a row's label: in `column` where one is named, else in `label`, or in `labels` as token data calls it.
fn class_field<'r>(row: &'r Row, column: Option<&str>) -> Option<&'r Value> {
    match column {
        Some(column) => row.record.get(column),
        None => row.record.get("label").or_else(|| row.record.get("labels")),
    }
}

/// A raw label as text: strings trimmed, whole numbers without a fraction. `None` for anything else.
pub(super) fn label_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_owned()).filter(|t| !t.is_empty()),
        Value::Bool(b) => Some(b.to_string()),
        Value::Number(n) => match n.as_f64() {
            Some(f) if n.as_i64().is_none() && f.fract() == 0.0 => Some(format!("{f:.0}")),
            _ => Some(n.to_string()),
        },
        _ => None,
    }
}
