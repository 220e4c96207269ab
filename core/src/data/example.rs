//! What the pipeline hands to the trainer: tokenized examples and batches, plain vectors on the host.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::tokenizer::{Tokenizer, TokenizerError};

/// The label of a token that is not trained.
pub const IGNORE: i32 = -100;

/// Where a row came from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SourceLine {
    /// The file, as the caller named it.
    pub file: String,
    /// Line from 1 (row from 1 for files without lines).
    pub line: usize,
}

impl fmt::Display for SourceLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} line {}", self.file, self.line)
    }
}

/// One tokenized document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    /// Token ids.
    pub input_ids: Vec<u32>,
    /// Same length: the id itself where trained, [`IGNORE`] elsewhere and always at 0.
    pub labels: Vec<i32>,
    /// Same length, 1 in the second text of a pair; empty where all are 0.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub token_type_ids: Vec<u32>,
    /// Where it came from.
    pub source: SourceLine,
    /// Class id, for classification data.
    pub class: Option<usize>,
    /// Whether tokens were cut off to fit `max_length`.
    pub truncated: bool,
}

impl Example {
    /// Number of tokens.
    #[must_use]
    pub fn len(&self) -> usize {
        self.input_ids.len()
    }

    /// Whether there are no tokens.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.input_ids.is_empty()
    }

    /// Number of trained tokens, that is of targets: labels at position 1 or later that are not [`IGNORE`].
    #[must_use]
    pub fn target_tokens(&self) -> usize {
        self.labels.iter().skip(1).filter(|&&l| l != IGNORE).count()
    }

    /// Number of tokens before the first trained one: the prompt. All tokens where none is trained.
    #[must_use]
    pub fn prompt_len(&self) -> usize {
        self.labels
            .iter()
            .position(|&l| l != IGNORE)
            .unwrap_or(self.len())
    }

    /// The text it trains, without special tokens: what an answer to its prompt is compared with.
    ///
    /// # Errors
    /// [`TokenizerError::Decode`].
    pub fn reference(&self, tokenizer: &Tokenizer) -> Result<String, TokenizerError> {
        let trained = self.labels.iter().filter(|&&l| l != IGNORE);
        let ids: Vec<u32> = trained.filter_map(|&l| u32::try_from(l).ok()).collect();
        Ok(tokenizer.decode(&ids, true)?.trim().to_owned())
    }
}

/// A batch, row-major `[rows, width]`. A row holds one document, or several when packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Number of rows.
    pub rows: usize,
    /// Tokens per row, padding included.
    pub width: usize,
    /// Token ids, padded on the right.
    pub input_ids: Vec<u32>,
    /// Labels, not shifted: position t predicts `labels[t + 1]`. [`IGNORE`] at padding and at every document's start.
    pub labels: Vec<i32>,
    /// Segments of pairs, 0 at padding; empty where all are 0.
    pub token_type_ids: Vec<u32>,
    /// Position within its document, from 0; 0 at padding.
    pub position_ids: Vec<u32>,
    /// Document of the row, from 1; 0 at padding. Tokens attend within their own document only.
    pub segment_ids: Vec<u32>,
    /// Number of labels that are not [`IGNORE`].
    pub target_tokens: usize,
    /// Indices of the examples, row by row, in the order of their documents.
    pub examples: Vec<usize>,
    /// Class id of each entry of `examples`; empty where the data has none.
    pub classes: Vec<usize>,
}

impl Batch {
    /// Sequences of ids, one document a row, nothing to be trained.
    #[must_use]
    pub fn of_sequences(sequences: &[Vec<u32>]) -> Self {
        let (rows, width) = (
            sequences.len(),
            sequences.iter().map(Vec::len).max().unwrap_or(0),
        );
        let padded = |of: &dyn Fn(usize, u32) -> u32| -> Vec<u32> {
            let row = |ids: &Vec<u32>| {
                let own = ids.iter().enumerate().map(|(i, &id)| of(i, id));
                let padding = std::iter::repeat_n(0, width - ids.len());
                own.chain(padding).collect::<Vec<u32>>()
            };
            sequences.iter().flat_map(row).collect()
        };
        Self {
            rows,
            width,
            input_ids: padded(&|_, id| id),
            labels: vec![IGNORE; rows * width],
            token_type_ids: Vec::new(),
            position_ids: padded(&|i, _| i as u32),
            segment_ids: padded(&|_, _| 1),
            target_tokens: 0,
            examples: (0..rows).collect(),
            classes: Vec::new(),
        }
    }
}
