//! The corpus as files: JSONL, one object per line, and the tokenizer.

use anyhow::Result;
use serde::Serialize;

use super::heldout::Split;
use super::tokenizer::{tokenizer_config, tokenizer_json, train_tokenizer};
use super::{instructions, pretraining, sentiment};

/// How much to write: rows per file, and the tokenizer's size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Documents to pretrain on.
    pub(crate) pretrain: usize,
    /// Held-out documents.
    pub(crate) pretrain_eval: usize,
    /// Texts with a sentiment to train on.
    pub(crate) sentiment_train: usize,
    /// Held-out texts with a sentiment.
    pub(crate) sentiment_eval: usize,
    /// Instructions to train on.
    pub(crate) instructions_train: usize,
    /// Held-out instructions.
    pub(crate) instructions_eval: usize,
    /// Tokens in the vocabulary, special ones and bytes included.
    pub(crate) vocab_size: usize,
    /// Longest sequence the model is made for, in tokens.
    pub(crate) model_max_length: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            pretrain: 100_000,
            pretrain_eval: 600,
            sentiment_train: 3_000,
            sentiment_eval: 600,
            instructions_train: 3_000,
            instructions_eval: 300,
            vocab_size: 2_048,
            model_max_length: 512,
        }
    }
}

/// Documents the tokenizer learns from: by then every word of the grammar has come up many times.
const TOKENIZER_DOCUMENTS: usize = 20_000;

/// All files of the corpus as (name, content), from nothing but a seed.
///
/// # Errors
/// When the grammar is too narrow for the sizes asked for.
pub(crate) fn write(seed: u64, sizes: &Sizes) -> Result<Vec<(String, Vec<u8>)>> {
    let pretrain = pretraining(seed, Split::Train, sizes.pretrain)?;
    let moods = sentiment(seed, Split::Train, sizes.sentiment_train)?;
    let tasks = instructions(seed, Split::Train, sizes.instructions_train)?;
    let spoken = pretrain.iter().take(TOKENIZER_DOCUMENTS);
    let texts = spoken
        .map(|row| row.text.as_str())
        .chain(moods.iter().map(|row| row.text.as_str()))
        .chain(tasks.iter().flat_map(|row| {
            [row.instruction.as_str(), row.response.as_str()]
                .into_iter()
                .chain(row.context.as_deref())
        }));
    let tokenizer = train_tokenizer(texts, sizes.vocab_size)?;
    let pretrain_eval = pretraining(seed, Split::HeldOut, sizes.pretrain_eval)?;
    let moods_eval = sentiment(seed, Split::HeldOut, sizes.sentiment_eval)?;
    let tasks_eval = instructions(seed, Split::HeldOut, sizes.instructions_eval)?;
    let files = [
        ("pretrain.jsonl", jsonl(&pretrain)?),
        ("pretrain_eval.jsonl", jsonl(&pretrain_eval)?),
        ("sentiment_train.jsonl", jsonl(&moods)?),
        ("sentiment_eval.jsonl", jsonl(&moods_eval)?),
        ("instructions_train.jsonl", jsonl(&tasks)?),
        ("instructions_eval.jsonl", jsonl(&tasks_eval)?),
        ("tokenizer.json", tokenizer_json(&tokenizer)?.into_bytes()),
        (
            "tokenizer_config.json",
            tokenizer_config(sizes.model_max_length).into_bytes(),
        ),
    ];
    Ok(files.map(|(name, bytes)| (name.to_owned(), bytes)).into())
}

/// One JSON object per line.
///
/// # Errors
/// When a row cannot be written as JSON.
pub(crate) fn jsonl<T: Serialize>(rows: &[T]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for row in rows {
        serde_json::to_writer(&mut out, row)?;
        out.push(b'\n');
    }
    Ok(out)
}
