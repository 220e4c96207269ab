//! Scores of one model or two on the same examples, whether the answers come from a model here or from a file.
//!
//! - [`labels`]: labels read from answers;
//! - [`pairs`]: predictions and references from files;
//! - [`encoder`]: the encoder behind BERTScore.

pub(crate) mod encoder;
pub(crate) mod labels;
pub(crate) mod pairs;

use crate::commands::UsageError;

/// Stands for all four ROUGE variants.
const ROUGE: &str = "rouge";

/// Metric names as asked for, each once, `rouge` spelt out, checked against what there is.
///
/// # Errors
/// A name that is none of `known`: the message names the nearest.
pub(crate) fn metric_names(asked: &[String], known: &[&str]) -> Result<Vec<String>, UsageError> {
    let mut names: Vec<String> = Vec::new();
    for name in asked.iter().map(|n| n.trim()) {
        let found: Vec<&str> = match name {
            ROUGE => known
                .iter()
                .copied()
                .filter(|k| k.starts_with(ROUGE))
                .collect(),
            _ => known.iter().copied().filter(|k| *k == name).collect(),
        };
        if found.is_empty() {
            let near = |k: &&str| (strsim::jaro_winkler(name, k) * 1e6) as u64;
            let nearest = known.iter().copied().max_by_key(near).unwrap_or_default();
            return Err(UsageError::new(format!(
                "there is no metric {name:?}; did you mean {nearest:?}? There are {}",
                known.join(", ")
            )));
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
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
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
