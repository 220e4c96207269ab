//! ROUGE-1, -2, -L and -Lsum (Lin 2004), number for number as rouge-score 0.1.2 computes them.
//!
//! Texts are lower-cased and cut at everything but `[a-z0-9]`, so letters with accents and other scripts are separators:
//! ROUGE says nothing about Chinese. With the stemmer, tokens longer than three characters are stemmed. ROUGE-Lsum takes
//! lines for sentences. Precision is by the answer's length, recall by the reference's, and F weighs both alike.

mod lcs;
mod porter;

use serde::{Deserialize, Serialize};

use super::bleu::ngrams;

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Rouge {
    /// Words.
    #[serde(rename = "rouge1")]
    Rouge1,
    /// Pairs of neighbouring words.
    #[serde(rename = "rouge2")]
    Rouge2,
    /// The longest common subsequence of both texts.
    #[serde(rename = "rougeL")]
    RougeL,
    /// The same, sentence by sentence, the texts' lines being sentences.
    #[serde(rename = "rougeLsum")]
    RougeLsum,
}

/// Precision, recall and their harmonic mean, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct RougeScore {
    /// Share of the answer that is in the reference.
    pub precision: f64,
    /// Share of the reference that is in the answer.
    pub recall: f64,
    /// Harmonic mean; 0 where both are.
    pub f1: f64,
}

impl RougeScore {
    fn new(hits: usize, answer: usize, reference: usize) -> Self {
        let precision = hits as f64 / answer.max(1) as f64;
        let recall = hits as f64 / reference.max(1) as f64;
        let sum = precision + recall;
        Self {
            precision,
            recall,
            f1: if sum > 0.0 {
                2.0 * precision * recall / sum
            } else {
                0.0
            },
        }
    }
}

impl Rouge {
    /// The four of them.
    pub const ALL: [Self; 4] = [Self::Rouge1, Self::Rouge2, Self::RougeL, Self::RougeLsum];

    /// `rouge1`, `rouge2`, `rougeL`, `rougeLsum`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rouge1 => "rouge1",
            Self::Rouge2 => "rouge2",
            Self::RougeL => "rougeL",
            Self::RougeLsum => "rougeLsum",
        }
    }

    /// Scores an answer against one reference; an empty text scores 0, also against another empty one.
    pub fn score(self, prediction: &str, reference: &str, stemmer: bool) -> RougeScore {
        let cut = |text: &str| tokens(text, stemmer);
        match self {
            Self::Rouge1 => by_ngrams(&cut(prediction), &cut(reference), 1),
            Self::Rouge2 => by_ngrams(&cut(prediction), &cut(reference), 2),
            Self::RougeL => {
                let (p, r) = (cut(prediction), cut(reference));
                RougeScore::new(lcs::length(&r, &p), p.len(), r.len())
            }
            Self::RougeLsum => {
                let lines =
                    |text: &str| -> Vec<Vec<String>> { text.split('\n').map(cut).collect() };
                let (p, r) = (lines(prediction), lines(reference));
                let total = |lines: &[Vec<String>]| lines.iter().map(Vec::len).sum();
                RougeScore::new(lcs::union_hits(&r, &p), total(&p), total(&r))
            }
        }
    }

    /// Against several references: the best by F, the first of equals.
    pub fn score_best(
        self,
        prediction: &str,
        references: &[impl AsRef<str>],
        stemmer: bool,
    ) -> RougeScore {
        let scores = references
            .iter()
            .map(|r| self.score(prediction, r.as_ref(), stemmer));
        scores
            .reduce(|best, next| if next.f1 > best.f1 { next } else { best })
            .unwrap_or_default()
    }
}

/// The words ROUGE counts.
fn tokens(text: &str, stemmer: bool) -> Vec<String> {
    let lower = text.to_lowercase();
    let words = lower
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|w| !w.is_empty());
    let stemmed = words.map(|w| {
        if stemmer && w.len() > 3 {
            porter::stem(w)
        } else {
            w.to_owned()
        }
    });
    stemmed.filter(|w| !w.is_empty()).collect()
}

fn by_ngrams(prediction: &[String], reference: &[String], n: usize) -> RougeScore {
    let (p, r) = (ngrams(prediction, n), ngrams(reference, n));
    let hits: u64 = r
        .iter()
        .map(|(ngram, count)| p.get(ngram).copied().unwrap_or(0).min(*count))
        .sum();
    let total = |words: &[String]| (words.len() + 1).saturating_sub(n);
    RougeScore::new(hits as usize, total(prediction), total(reference))
}

#[cfg(test)]
mod tests;
