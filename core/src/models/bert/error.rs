//! What can be wrong with an encoder or its head.

use thiserror::Error;

use crate::host::ReadError;
use crate::quantization::QuantizationError;
use crate::weights::WeightError;

/// Why an encoder cannot be built or asked.
#[derive(Debug, Error)]
pub enum BertError {
    /// `config.json` that cannot be read.
    #[error("config.json: {reason}")]
    Json {
        /// The parser's words.
        reason: String,
    },
    /// A switch of `config.json` that cannot be honoured.
    #[error("config.json: {key} is {found}; supported: {supported}")]
    Unsupported {
        /// The key.
        key: &'static str,
        /// Its value.
        found: String,
        /// What would do.
        supported: &'static str,
    },
    /// Sizes that do not go together.
    #[error("config.json: {reason}")]
    Contradiction {
        /// What is wrong.
        reason: String,
    },
    /// No classification head anywhere.
    #[error(
        "there is no trained classification head: the base has none ({missing} is missing) and no adapter with one was \
         given. Load an adapter that saved its head (modules_to_save), or a base fine-tuned for classification"
    )]
    NoHead {
        /// The tensor looked for.
        missing: String,
    },
    /// A hidden state that does not exist.
    #[error("hidden state {found}: this encoder has 0 (the embeddings) to {last}")]
    Layer {
        /// The one asked for.
        found: usize,
        /// The last.
        last: usize,
    },
    /// A batch the encoder has no rows for.
    #[error("{what} {found} is out of range: this encoder has {limit}")]
    Input {
        /// `token id`, `position` or `token type`.
        what: &'static str,
        /// The value.
        found: u32,
        /// Values from 0 below this.
        limit: usize,
    },
    /// A tensor missing or of another shape.
    #[error(transparent)]
    Weights(#[from] WeightError),
    /// A weight quantized in another way than NF4.
    #[error(transparent)]
    Quantization(#[from] QuantizationError),
    /// The device failed.
    #[error(transparent)]
    Read(#[from] ReadError),
}
