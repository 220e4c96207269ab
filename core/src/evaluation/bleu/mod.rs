//! BLEU (Papineni et al. 2002), number for number as sacreBLEU 2.6 computes it (Post 2018).
//!
//! ```text
//! BLEU = 100 · BP · exp(mean over n = 1..4 of ln p_n)      p_n = clipped n-gram matches / n-grams of the answers
//! BP   = exp(1 - reference words / answer words) where the answers are shorter, else 1
//! ```
//!
//! Matches and totals are summed over the corpus *before* dividing: the score of a corpus is no mean of scores of
//! segments. What a segment adds is a [`BleuStatistics`]; they are computed once, so that resampling only sums.
//!
//! Scores are comparable only under the same tokenizer, case, smoothing and number of references, which is what
//! [`BleuConfig::signature`] states.

mod tokenize;

pub use tokenize::BleuTokenizer;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// The longest n-grams counted unless told otherwise.
pub const MAX_NGRAM_ORDER: usize = 4;
/// The version whose results these are.
const VERSION: &str = "2.6.0";
/// The logarithm of a precision of 0, which makes the score 0 without being infinite.
const LOG_ZERO: f64 = -9_999_999_999.0;

/// What stands in for a precision of 0, whose logarithm would make the score 0 (Chen and Cherry 2014).
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BleuSmoothing {
    /// Half, a quarter, an eighth ... of one match, for each further order without one. The default.
    #[default]
    Exp,
    /// This many matches; 0.1 is usual.
    Floor(f64),
    /// This many more matches and totals from bigrams on; 1 is usual.
    AddK(f64),
    /// Nothing.
    None,
}

/// How to count and score.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BleuConfig {
    /// How segments are cut into words. Default `13a`.
    pub tokenizer: BleuTokenizer,
    /// Compare without regard to case. Default no.
    pub lowercase: bool,
    /// Default `exp`.
    pub smoothing: BleuSmoothing,
    /// Leave out orders longer than the answer; for single sentences. Default no.
    pub effective_order: bool,
    /// The longest n-grams. Default 4.
    pub max_ngram_order: usize,
}

impl Default for BleuConfig {
    fn default() -> Self {
        Self {
            tokenizer: BleuTokenizer::default(),
            lowercase: false,
            smoothing: BleuSmoothing::default(),
            effective_order: false,
            max_ngram_order: MAX_NGRAM_ORDER,
        }
    }
}

/// What one segment, or a sum of them, contributes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BleuStatistics {
    /// Words of the answer.
    pub hypothesis_length: u64,
    /// Words of the reference that is closest in length, the shorter of two equally close.
    pub reference_length: u64,
    /// Matched n-grams per order, each at most as often as in the reference that has most of them.
    pub matches: Vec<u64>,
    /// N-grams of the answer per order.
    pub totals: Vec<u64>,
}

/// A score with the parts it is made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BleuScore {
    /// From 0 to 100.
    pub score: f64,
    /// Per order, in percent, after smoothing.
    pub precisions: Vec<f64>,
    /// At most 1.
    pub brevity_penalty: f64,
    /// The counts behind it.
    pub statistics: BleuStatistics,
}

impl BleuConfig {
    /// For single sentences: as given, with the effective order.
    #[must_use]
    pub fn for_sentences(self) -> Self {
        Self {
            effective_order: true,
            ..self
        }
    }

    /// The counts of one segment. Without a reference nothing matches.
    pub fn statistics(&self, hypothesis: &str, references: &[impl AsRef<str>]) -> BleuStatistics {
        let words = |text: &str| self.tokenizer.words(text, self.lowercase);
        let hypothesis = words(hypothesis);
        let references: Vec<Vec<String>> = references.iter().map(|r| words(r.as_ref())).collect();
        let orders = 1..=self.max_ngram_order;
        let matches = orders.clone().map(|n| {
            let limit = references
                .iter()
                .fold(HashMap::new(), |mut limit, reference| {
                    for (ngram, count) in ngrams(reference, n) {
                        let most: &mut u64 = limit.entry(ngram).or_default();
                        *most = count.max(*most);
                    }
                    limit
                });
            let counted = ngrams(&hypothesis, n).into_iter();
            counted
                .map(|(ngram, count)| count.min(limit.get(ngram).copied().unwrap_or(0)))
                .sum()
        });
        let length = |words: &Vec<String>| words.len() as u64;
        let own = length(&hypothesis);
        BleuStatistics {
            hypothesis_length: own,
            reference_length: references
                .iter()
                .map(length)
                .min_by_key(|&l| (l.abs_diff(own), l))
                .unwrap_or(0),
            matches: matches.collect(),
            totals: orders
                .map(|n| (hypothesis.len() + 1).saturating_sub(n) as u64)
                .collect(),
        }
    }

    /// The score of summed counts.
    pub fn score(&self, statistics: BleuStatistics) -> BleuScore {
        let (own, reference) = (
            statistics.hypothesis_length as f64,
            statistics.reference_length as f64,
        );
        let brevity_penalty = match () {
            () if own >= reference => 1.0,
            () if own > 0.0 => (1.0 - reference / own).exp(),
            () => 0.0,
        };
        let mut precisions = vec![0.0; self.max_ngram_order];
        let mut order = self.max_ngram_order;
        let mut halved = 1.0;
        let matched = statistics.matches.iter().any(|&m| m > 0);
        for (n, precision) in precisions.iter_mut().enumerate().filter(|_| matched) {
            let count = |of: &[u64]| of.get(n).copied().unwrap_or(0) as f64;
            let (mut right, mut total) = (count(&statistics.matches), count(&statistics.totals));
            if let BleuSmoothing::AddK(k) = self.smoothing
                && n > 0
            {
                (right, total) = (right + k, total + k);
            }
            if total == 0.0 {
                break;
            }
            if self.effective_order {
                order = n + 1;
            }
            *precision = match self.smoothing {
                _ if right > 0.0 => 100.0 * right / total,
                BleuSmoothing::Exp => {
                    halved *= 2.0;
                    100.0 / (halved * total)
                }
                BleuSmoothing::Floor(floor) => 100.0 * floor / total,
                BleuSmoothing::AddK(_) | BleuSmoothing::None => 0.0,
            };
        }
        let log = |p: &f64| if *p == 0.0 { LOG_ZERO } else { p.ln() };
        let score = match matched && order > 0 {
            true => {
                let mean = precisions[..order].iter().map(log).sum::<f64>() / order as f64;
                brevity_penalty * mean.exp()
            }
            false => 0.0,
        };
        BleuScore {
            score,
            precisions,
            brevity_penalty,
            statistics,
        }
    }

    /// BLEU of one segment, with the effective order.
    pub fn sentence(&self, hypothesis: &str, references: &[impl AsRef<str>]) -> BleuScore {
        let config = self.for_sentences();
        config.score(config.statistics(hypothesis, references))
    }

    /// BLEU of a corpus: one list of references for each answer. Answers beyond the shorter list are left out; callers
    /// that read files refuse unequal counts before.
    pub fn corpus<R: AsRef<str>>(
        &self,
        hypotheses: &[impl AsRef<str>],
        references: &[Vec<R>],
    ) -> BleuScore {
        let segments = hypotheses.iter().zip(references);
        let sum = segments.fold(BleuStatistics::default(), |mut sum, (h, r)| {
            sum.add(&self.statistics(h.as_ref(), r));
            sum
        });
        self.score(sum)
    }

    /// sacreBLEU's signature. `references` per segment: a number, or `None` where it varies.
    pub fn signature(&self, references: Option<usize>) -> String {
        let references = references.map_or_else(|| "var".to_owned(), |n| n.to_string());
        let case = if self.lowercase { "lc" } else { "mixed" };
        let effective = if self.effective_order { "yes" } else { "no" };
        let smoothing = match self.smoothing {
            BleuSmoothing::Exp => "exp".to_owned(),
            BleuSmoothing::Floor(value) => format!("floor[{value:.2}]"),
            BleuSmoothing::AddK(value) => format!("add-k[{value:.2}]"),
            BleuSmoothing::None => "none".to_owned(),
        };
        format!(
            "nrefs:{references}|case:{case}|eff:{effective}|tok:{}|smooth:{smoothing}|version:{VERSION}",
            self.tokenizer.name()
        )
    }
}

impl BleuStatistics {
    /// Adds another segment's counts.
    pub fn add(&mut self, other: &Self) {
        self.hypothesis_length += other.hypothesis_length;
        self.reference_length += other.reference_length;
        for (sum, more) in [
            (&mut self.matches, &other.matches),
            (&mut self.totals, &other.totals),
        ] {
            sum.resize(sum.len().max(more.len()), 0);
            sum.iter_mut().zip(more).for_each(|(s, m)| *s += m);
        }
    }
}

/// How often each n-gram of `words` occurs.
pub(super) fn ngrams<T: std::hash::Hash + Eq>(words: &[T], n: usize) -> HashMap<&[T], u64> {
    let mut counts = HashMap::new();
    if n > 0 {
        words
            .windows(n)
            .for_each(|w| *counts.entry(w).or_default() += 1);
    }
    counts
}

#[cfg(test)]
mod tests;
