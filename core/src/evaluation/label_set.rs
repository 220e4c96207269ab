//! Which labels there are, and which one is right: read from the references of a set.

use std::collections::BTreeSet;

use thiserror::Error;

use super::parse_label;

/// Most distinct answers that still look like a set of labels.
const MOST_LABELS: usize = 32;

/// References that are no labels.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LabelError {
    /// More distinct references than a label set has.
    #[error(
        "scores of labels need one-word label answers, but there are {found} different references; leave those metrics \
         out, or list the labels (data.label_names, or --labels of trainer score)"
    )]
    TooMany {
        /// Different references.
        found: usize,
    },
    /// A reference that is none of the labels.
    #[error("{place}: the answer {found:?} is none of the labels {labels}")]
    Unknown {
        /// Where the reference stands.
        place: String,
        /// The reference.
        found: String,
        /// The labels.
        labels: String,
    },
}

/// The labels given, or those that the references name.
///
/// # Errors
/// More distinct references than a label set has.
pub fn label_set(given: &[String], references: &[String]) -> Result<Vec<String>, LabelError> {
    if !given.is_empty() {
        return Ok(given.to_vec());
    }
    let found: BTreeSet<String> = references.iter().map(|r| r.trim().to_owned()).collect();
    match found.len() {
        0..=MOST_LABELS => Ok(found.into_iter().collect()),
        found => Err(LabelError::TooMany { found }),
    }
}

/// The class of every reference. `place` says where a reference stands.
///
/// # Errors
/// A reference that is none of the labels.
pub fn gold_classes(
    labels: &[String],
    references: &[String],
    place: impl Fn(usize) -> String,
) -> Result<Vec<usize>, LabelError> {
    let class = |(index, text): (usize, &String)| {
        parse_label(text, labels).ok_or_else(|| LabelError::Unknown {
            place: place(index),
            found: text.clone(),
            labels: labels.join(", "),
        })
    };
    references.iter().enumerate().map(class).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
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
        let place = |i| format!("row {}", i + 1);
        let error = gold_classes(&labels, &texts(&["No.", "maybe"]), place)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("row 2") && error.contains("maybe") && error.contains("no, yes"),
            "{error}"
        );
    }
}
