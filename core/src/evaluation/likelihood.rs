//! Classification by likelihood: the label whose tokens the model finds likeliest after the prompt.
//!
//! A causal model that never learned to answer with one word still ranks the words. `sum` takes the label with the
//! largest total log-likelihood, `mean` divides by the label's tokens first, so that a label of three tokens is not at a
//! disadvantage against one of a single token. Unlike an answer that is generated, a ranking cannot fail to parse: it is
//! the fairer question to a base, and says nothing about whether the model would have answered at all.
//!
//! The tokens of a label are those the data set itself has after its prompts ([`label_targets`]), so that template and
//! tokenizer are what training uses. The end-of-turn token is left out, unless one label's tokens begin another's: then
//! it is what tells "C" from "C++".

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How likelihoods of labels of different lengths are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LikelihoodNorm {
    /// Total log-likelihood.
    Sum,
    /// Log-likelihood per token.
    Mean,
}

/// Labels that cannot be put into tokens, or likelihoods that are none.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum LikelihoodError {
    /// A label that stands nowhere in the data and cannot be tokenized like the others.
    #[error(
        "the label {label:?} occurs in no example, and its tokens cannot be told from those of the others; \
         add an example with it, or take it out of data.label_names"
    )]
    Unseen {
        /// The label.
        label: String,
    },
    /// Two labels with the same tokens.
    #[error(
        "the labels {first:?} and {second:?} have the same tokens, so no likelihood tells them apart; rename one"
    )]
    Same {
        /// One of them.
        first: String,
        /// The other.
        second: String,
    },
    /// A loss that cannot be one.
    #[error(
        "example {example} has a log-likelihood of {found} for label {label}; the model's output is broken there"
    )]
    NotFinite {
        /// Index of the example, from 0.
        example: usize,
        /// Index of the label, from 0.
        label: usize,
        /// What was found.
        found: f64,
    },
    /// Not one value per label.
    #[error("example {example} has likelihoods for {found} labels, expected {expected}")]
    Width {
        /// Index of the example, from 0.
        example: usize,
        /// Values found.
        found: usize,
        /// Number of labels.
        expected: usize,
    },
}

/// The tokens of every label, for use after a prompt.
///
/// `seen` holds, of each example, the class and the tokens trained in it; `end_ids` end a turn; `encode` tokenizes text
/// without special tokens.
///
/// # Errors
/// A label without tokens, or two with the same.
pub fn label_targets(
    labels: &[String],
    seen: &[(usize, Vec<u32>)],
    end_ids: &[u32],
    mut encode: impl FnMut(&str) -> Option<Vec<u32>>,
) -> Result<Vec<Vec<u32>>, LikelihoodError> {
    let mut ends: HashMap<&[u32], usize> = HashMap::new();
    let mut counts: Vec<HashMap<&[u32], usize>> = vec![HashMap::new(); labels.len()];
    for (class, tokens) in seen.iter().filter(|(class, _)| *class < labels.len()) {
        let cut = tokens
            .iter()
            .position(|id| end_ids.contains(id))
            .unwrap_or(tokens.len());
        *counts[*class].entry(&tokens[..cut]).or_default() += 1;
        *ends.entry(&tokens[cut..]).or_default() += 1;
    }
    let usual = |counts: &HashMap<&[u32], usize>| {
        let most = counts
            .iter()
            .max_by(|a, b| a.1.cmp(b.1).then_with(|| b.0.cmp(a.0)));
        most.map(|(tokens, _)| tokens.to_vec())
            .filter(|t| !t.is_empty())
    };
    let known: Vec<Option<Vec<u32>>> = counts.iter().map(usual).collect();
    let mut targets = Vec::with_capacity(labels.len());
    for (label, found) in labels.iter().zip(&known) {
        let tokens = found
            .clone()
            .or_else(|| by_analogy(label, labels, &known, &mut encode));
        targets.push(tokens.ok_or_else(|| LikelihoodError::Unseen {
            label: label.clone(),
        })?);
    }
    let begins = |a: usize, b: usize| a != b && targets[b].starts_with(&targets[a]);
    let pairs = || (0..labels.len()).flat_map(|a| (0..labels.len()).map(move |b| (a, b)));
    if let Some((a, b)) =
        pairs().find(|&(a, b)| begins(a, b) && targets[a].len() == targets[b].len())
    {
        return Err(LikelihoodError::Same {
            first: labels[a].clone(),
            second: labels[b].clone(),
        });
    }
    if pairs().any(|(a, b)| begins(a, b)) {
        let end = usual(&ends).and_then(|end| end.first().copied());
        targets.iter_mut().for_each(|t| t.extend(end));
    }
    Ok(targets)
}

/// Tokens of a label that no example holds: written like a label that one does, if that one's tokens are its text's.
fn by_analogy(
    label: &str,
    labels: &[String],
    known: &[Option<Vec<u32>>],
    encode: &mut impl FnMut(&str) -> Option<Vec<u32>>,
) -> Option<Vec<u32>> {
    for (other, tokens) in labels.iter().zip(known) {
        let Some(tokens) = tokens else { continue };
        for lead in ["", " "] {
            let whole = encode(&format!("{lead}{other}"))?;
            let (Some(text), false) = (tokens.strip_suffix(&whole[..]), whole.is_empty()) else {
                continue;
            };
            let own = encode(&format!("{lead}{label}"))?;
            return (!own.is_empty()).then(|| [text, &own].concat());
        }
    }
    None
}

/// Log-likelihoods of every label after every prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelLikelihoods {
    /// Per example, per label: the total, in nats, at most 0.
    totals: Vec<Vec<f64>>,
    /// Tokens of each label.
    lengths: Vec<usize>,
}

impl LabelLikelihoods {
    /// From the totals of every example and the labels' lengths in tokens.
    ///
    /// # Errors
    /// A row of another width, or a value that is not finite.
    pub fn new(totals: Vec<Vec<f64>>, lengths: Vec<usize>) -> Result<Self, LikelihoodError> {
        for (example, row) in totals.iter().enumerate() {
            if row.len() != lengths.len() {
                return Err(LikelihoodError::Width {
                    example,
                    found: row.len(),
                    expected: lengths.len(),
                });
            }
            if let Some(label) = row.iter().position(|v| !v.is_finite()) {
                return Err(LikelihoodError::NotFinite {
                    example,
                    label,
                    found: row[label],
                });
            }
        }
        Ok(Self { totals, lengths })
    }

    /// Probabilities over the labels: the softmax of the totals, or of the means.
    pub fn probabilities(&self, norm: LikelihoodNorm) -> Vec<Vec<f64>> {
        let scaled = |row: &Vec<f64>| -> Vec<f64> {
            let pairs = row.iter().zip(&self.lengths);
            pairs
                .map(|(total, length)| match norm {
                    LikelihoodNorm::Sum => *total,
                    LikelihoodNorm::Mean => total / (*length).max(1) as f64,
                })
                .collect()
        };
        self.totals
            .iter()
            .map(|row| softmax(&scaled(row)))
            .collect()
    }
}

fn softmax(values: &[f64]) -> Vec<f64> {
    let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let shares: Vec<f64> = values.iter().map(|v| (v - largest).exp()).collect();
    let sum: f64 = shares.iter().sum();
    shares.into_iter().map(|s| s / sum).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::float_cmp)]
mod tests {
    use super::*;

    const END: u32 = 99;

    fn labels(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    /// One token per letter, a = 1; a leading space is token 50.
    fn letters(text: &str) -> Option<Vec<u32>> {
        Some(
            text.chars()
                .map(|c| {
                    if c == ' ' {
                        50
                    } else {
                        c as u32 - 'a' as u32 + 1
                    }
                })
                .collect(),
        )
    }

    fn run(names: &[&str], seen: &[(usize, Vec<u32>)]) -> Result<Vec<Vec<u32>>, LikelihoodError> {
        label_targets(&labels(names), seen, &[END], letters)
    }

    #[test]
    fn tokens_are_those_of_the_data_without_the_end() {
        let seen = [
            (0, vec![5, 6, END]),
            (1, vec![7, END, 3]),
            (0, vec![5, 6, END]),
            (0, vec![8, END]),
        ];
        assert_eq!(run(&["yes", "no"], &seen).unwrap(), [vec![5, 6], vec![7]]);
    }

    #[test]
    fn a_label_that_begins_another_is_ended() {
        let seen = [(0, vec![5, END, 3]), (1, vec![5, 6, END, 3])];
        assert_eq!(
            run(&["c", "cpp"], &seen).unwrap(),
            [vec![5, END], vec![5, 6, END]]
        );
    }

    #[test]
    fn unseen_labels_are_written_like_seen_ones() {
        // "ab" is [1, 2] after a piece 77 that the template leads with.
        assert_eq!(
            run(&["ab", "cd"], &[(0, vec![77, 1, 2, END])]).unwrap()[1],
            [77, 3, 4]
        );
        assert_eq!(
            run(&["ab", "cd"], &[(0, vec![50, 1, 2, END])]).unwrap()[1],
            [50, 3, 4]
        );
        let lost = run(&["ab", "cd"], &[(0, vec![9, 9, END])]).unwrap_err();
        assert_eq!(
            lost,
            LikelihoodError::Unseen {
                label: "cd".to_owned()
            }
        );
        assert!(matches!(
            run(&["ab", "cd"], &[]),
            Err(LikelihoodError::Unseen { .. })
        ));
        let same = run(&["a", "b"], &[(0, vec![4]), (1, vec![4])]).unwrap_err();
        assert!(matches!(same, LikelihoodError::Same { .. }));
    }

    #[test]
    fn length_decides_between_sum_and_mean() {
        let found = LabelLikelihoods::new(vec![vec![-2.0, -3.0]], vec![1, 3]).unwrap();
        let (sum, mean) = (
            found.probabilities(LikelihoodNorm::Sum),
            found.probabilities(LikelihoodNorm::Mean),
        );
        assert!(sum[0][0] > sum[0][1] && mean[0][0] < mean[0][1]);
        assert!((sum[0][0] - 1.0 / (1.0 + (-1.0f64).exp())).abs() < 1e-12);
        assert!((mean[0].iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn extreme_and_broken_likelihoods() {
        let far = LabelLikelihoods::new(vec![vec![-1e5, -2e5]], vec![1, 1]).unwrap();
        assert_eq!(far.probabilities(LikelihoodNorm::Sum), [vec![1.0, 0.0]]);
        let nan = LabelLikelihoods::new(vec![vec![0.0, 0.0], vec![-1.0, f64::NAN]], vec![1, 1])
            .unwrap_err();
        assert!(matches!(
            nan,
            LikelihoodError::NotFinite {
                example: 1,
                label: 1,
                ..
            }
        ));
        assert!(LabelLikelihoods::new(vec![vec![0.0]], vec![1, 1]).is_err());
    }
}
