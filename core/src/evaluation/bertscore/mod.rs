//! BERTScore (Zhang et al. 2020), as bert-score 0.3.13 computes it, over any encoder.
//!
//! ```text
//! P = Σ over answer tokens    w(t) · max over reference tokens cos(t, u)   / Σ w(t)
//! R = Σ over reference tokens w(u) · max over answer tokens    cos(t, u)   / Σ w(u)        F = 2PR / (P + R)
//! ```
//!
//! The tokens an encoder puts around a text (`[CLS]`, `[SEP]`) may be matched but weigh nothing. With idf weights,
//! `w(t) = ln((n + 1) / (number of references with t + 1))`, 0 for a token that all references have. An empty text scores
//! 0, and so does a side whose tokens weigh nothing at all, where bert-score gives "not a number". bert-score pads a batch
//! with zero vectors, whose cosine of 0 beats a negative one; here a score does not depend on its neighbours.
//!
//! Vectors are compared in f32, as there.

mod baseline;

pub use baseline::{Baseline, BaselineError};

use std::collections::{HashMap, HashSet};
use std::error::Error as StdError;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::text_metric::{TextMetricError, check};

/// Pairs whose vectors are held at a time.
const CHUNK: usize = 256;

/// Why an encoder could not embed a text.
pub type EmbedError = Box<dyn StdError + Send + Sync>;

/// The vectors of one text's tokens.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TokenVectors {
    /// Token ids, special ones included.
    pub ids: Vec<u32>,
    /// Row-major `[ids.len(), width]`.
    pub vectors: Vec<f32>,
}

/// An encoder, as far as BERTScore needs it.
pub trait Embedder {
    /// Ids of the tokens that are put around every text and weigh nothing.
    fn special_ids(&self) -> Vec<u32>;

    /// Token ids of each text as [`embed`](Self::embed) would use them, truncated alike.
    ///
    /// # Errors
    /// A text that cannot be tokenized.
    fn tokenize(&self, texts: &[&str]) -> Result<Vec<Vec<u32>>, EmbedError>;

    /// Contextual vectors of each text's tokens.
    ///
    /// # Errors
    /// A text that cannot be tokenized, or a device that fails.
    fn embed(&self, texts: &[&str]) -> Result<Vec<TokenVectors>, EmbedError>;
}

/// Precision, recall and F1 of one pair.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct BertScore {
    /// How well the reference covers the answer.
    pub precision: f32,
    /// How well the answer covers the reference.
    pub recall: f32,
    /// Harmonic mean.
    pub f1: f32,
}

/// How to score.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct BertScoreConfig {
    /// Weigh tokens by how rare they are among the references. Default no.
    pub idf: bool,
    /// What to rescale with. Default nothing.
    pub baseline: Option<Baseline>,
}

/// Why there is no score.
#[derive(Debug, Error)]
pub enum BertScoreError {
    /// Predictions and references do not fit together.
    #[error(transparent)]
    Texts(#[from] TextMetricError),
    /// The encoder failed.
    #[error("the encoder could not embed the texts: {0}")]
    Embed(EmbedError),
    /// The encoder gave something else than a vector per token.
    #[error(
        "the encoder gave {vectors} texts with vectors for {texts} texts, or not one vector per token; it is broken"
    )]
    Shape {
        /// Results.
        vectors: usize,
        /// Texts.
        texts: usize,
    },
}

/// Weights of tokens.
#[derive(Debug, Clone, PartialEq)]
pub enum TokenWeights {
    /// 1, but 0 for these ids.
    Plain(HashSet<u32>),
    /// By how many of the references hold the token.
    Idf {
        /// Weights of the tokens that occur.
        known: HashMap<u32, f32>,
        /// Of all others: ln(n + 1).
        unknown: f32,
    },
}

impl TokenWeights {
    /// Inverse document frequencies over the references' token ids.
    pub fn idf(references: &[Vec<u32>]) -> Self {
        let mut documents: HashMap<u32, usize> = HashMap::new();
        for ids in references {
            for id in ids.iter().collect::<HashSet<_>>() {
                *documents.entry(*id).or_default() += 1;
            }
        }
        let n = (references.len() + 1) as f64;
        let weight = |count: usize| (n / (count + 1) as f64).ln() as f32;
        Self::Idf {
            known: documents
                .into_iter()
                .map(|(id, count)| (id, weight(count)))
                .collect(),
            unknown: weight(0),
        }
    }

    fn of(&self, id: u32) -> f32 {
        match self {
            Self::Plain(special) => f32::from(u8::from(!special.contains(&id))),
            Self::Idf { known, unknown } => known.get(&id).copied().unwrap_or(*unknown),
        }
    }
}

/// Scores every prediction against its references; of several, the best of each of P, R and F.
///
/// # Errors
/// Lists that do not fit together; an encoder that fails.
pub fn bert_score(
    embedder: &dyn Embedder,
    predictions: &[String],
    references: &[Vec<String>],
    config: &BertScoreConfig,
    mut progress: impl FnMut(usize),
) -> Result<Vec<BertScore>, BertScoreError> {
    check(predictions, references)?;
    let weights = match config.idf {
        true => {
            let all: Vec<&str> = references.iter().flatten().map(String::as_str).collect();
            TokenWeights::idf(&embedder.tokenize(&all).map_err(BertScoreError::Embed)?)
        }
        false => TokenWeights::Plain(embedder.special_ids().into_iter().collect()),
    };
    let mut scores = Vec::with_capacity(predictions.len());
    for (p, r) in predictions.chunks(CHUNK).zip(references.chunks(CHUNK)) {
        let vectors = embed_once(embedder, p.iter().chain(r.iter().flatten()))?;
        for (prediction, references) in p.iter().zip(r) {
            let against = |r: &String| {
                match_tokens(
                    &vectors[prediction.as_str()],
                    &vectors[r.as_str()],
                    &weights,
                )
            };
            let best = references
                .iter()
                .map(against)
                .reduce(best_of)
                .unwrap_or_default();
            scores.push(config.baseline.map_or(best, |b| b.rescale(best)));
        }
        progress(scores.len());
    }
    Ok(scores)
}

/// Embeds every distinct text.
fn embed_once<'t>(
    embedder: &dyn Embedder,
    texts: impl Iterator<Item = &'t String>,
) -> Result<HashMap<&'t str, TokenVectors>, BertScoreError> {
    let mut distinct: Vec<&str> = texts.map(String::as_str).collect();
    // Texts of like length share a batch well.
    distinct.sort_by(|a, b| b.len().cmp(&a.len()).then(a.cmp(b)));
    distinct.dedup();
    let vectors = embedder.embed(&distinct).map_err(BertScoreError::Embed)?;
    let whole = |v: &TokenVectors| match v.ids.len() {
        0 => v.vectors.is_empty(),
        n => v.vectors.len().is_multiple_of(n) && !v.vectors.is_empty(),
    };
    if vectors.len() != distinct.len() || !vectors.iter().all(whole) {
        return Err(BertScoreError::Shape {
            vectors: vectors.len(),
            texts: distinct.len(),
        });
    }
    Ok(distinct
        .into_iter()
        .zip(vectors.into_iter().map(unit))
        .collect())
}

/// With every vector scaled to length 1.
fn unit(mut text: TokenVectors) -> TokenVectors {
    let width = text.vectors.len() / text.ids.len().max(1);
    for vector in text.vectors.chunks_mut(width.max(1)) {
        let norm = vector.iter().map(|v| v * v).sum::<f32>().sqrt();
        if norm > 0.0 {
            vector.iter_mut().for_each(|v| *v /= norm);
        }
    }
    text
}

/// Greedy matching of two texts whose vectors have length 1.
fn match_tokens(
    prediction: &TokenVectors,
    reference: &TokenVectors,
    weights: &TokenWeights,
) -> BertScore {
    // Two special tokens and nothing between them: an empty text.
    if prediction.ids.len() <= 2 || reference.ids.len() <= 2 {
        return BertScore::default();
    }
    let width = prediction.vectors.len() / prediction.ids.len();
    let mut best_p = vec![f32::MIN; prediction.ids.len()];
    let mut best_r = vec![f32::MIN; reference.ids.len()];
    for (p, best_p) in prediction.vectors.chunks(width).zip(&mut best_p) {
        for (r, best_r) in reference.vectors.chunks(width).zip(&mut best_r) {
            let cosine: f32 = p.iter().zip(r).map(|(a, b)| a * b).sum();
            *best_p = best_p.max(cosine);
            *best_r = best_r.max(cosine);
        }
    }
    let precision = weighted(&prediction.ids, &best_p, weights);
    let recall = weighted(&reference.ids, &best_r, weights);
    let f1 = 2.0 * precision * recall / (precision + recall);
    BertScore {
        precision,
        recall,
        f1: if f1.is_nan() { 0.0 } else { f1 },
    }
}

fn weighted(ids: &[u32], best: &[f32], weights: &TokenWeights) -> f32 {
    let total: f32 = ids.iter().map(|&id| weights.of(id)).sum();
    match total > 0.0 {
        true => ids
            .iter()
            .zip(best)
            .map(|(&id, b)| b * (weights.of(id) / total))
            .sum(),
        false => 0.0,
    }
}

fn best_of(a: BertScore, b: BertScore) -> BertScore {
    BertScore {
        precision: a.precision.max(b.precision),
        recall: a.recall.max(b.recall),
        f1: a.f1.max(b.f1),
    }
}

#[cfg(test)]
mod tests;
