//! Metrics by name.

use thiserror::Error;

/// What is measured of a language model on held-out examples; `rouge` stands for its four.
pub const METRICS: [&str; 13] = [
    "perplexity",
    "accuracy",
    "macro_f1",
    "macro_recall",
    "label_likelihood",
    "calibration",
    "bleu",
    "rouge1",
    "rouge2",
    "rougeL",
    "rougeLsum",
    "exact_match",
    "token_f1",
];

/// Stands for all four ROUGE variants.
const ROUGE: &str = "rouge";

/// A name that is no metric's.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("there is no metric {name:?}; did you mean {nearest:?}? There are {known}")]
pub struct UnknownMetric {
    /// The name.
    pub name: String,
    /// The metric whose name is nearest.
    pub nearest: String,
    /// All of them.
    pub known: String,
}

/// Metric names as asked for, each once, `rouge` spelt out, checked against what there is.
///
/// # Errors
/// A name that is none of `known`.
pub fn metric_names(asked: &[String], known: &[&str]) -> Result<Vec<String>, UnknownMetric> {
    let mut names: Vec<String> = Vec::new();
    for name in asked.iter().map(|n| n.trim()) {
        let stands_for = |k: &&str| match name {
            ROUGE => k.starts_with(ROUGE),
            _ => *k == name,
        };
        let found: Vec<&str> = known.iter().copied().filter(stands_for).collect();
        if found.is_empty() {
            let near = |k: &&str| (strsim::jaro_winkler(name, k) * 1e6) as u64;
            let nearest = known.iter().copied().max_by_key(near).unwrap_or_default();
            return Err(UnknownMetric {
                name: name.to_owned(),
                nearest: nearest.to_owned(),
                known: known.join(", "),
            });
        }
        for name in found {
            if !names.iter().any(|n| n == name) {
                names.push(name.to_owned());
            }
        }
    }
    Ok(names)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn names_are_spelt_out_and_checked() {
        let known = ["bleu", "rouge1", "rouge2", "rougeL", "rougeLsum"];
        let names = |asked: &[&str]| {
            let asked: Vec<String> = asked.iter().map(|a| (*a).to_owned()).collect();
            metric_names(&asked, &known)
        };
        assert_eq!(
            names(&["rougeL", " rouge", "bleu", "bleu"]).unwrap(),
            ["rougeL", "rouge1", "rouge2", "rougeLsum", "bleu"]
        );
        let error = names(&["rougel"]).unwrap_err().to_string();
        assert!(
            error.contains("rougel") && error.contains("did you mean \"rougeL\""),
            "{error}"
        );
    }
}
