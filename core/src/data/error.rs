//! Everything that can be wrong with training data, said so that the row can be found and put right.

use super::example::SourceLine;
use crate::tokenizer::{TemplateError, TokenizerError};

/// An error of the data pipeline.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A line or element is not a record.
    #[error(
        "{at}: {reason}. Fix the line, or set skip_bad = true (--skip-bad) to leave such lines out and count them"
    )]
    Malformed {
        /// File and line.
        at: SourceLine,
        /// What was found.
        reason: String,
    },
    /// A whole file is unusable.
    #[error("{file}: {reason}")]
    File {
        /// The file.
        file: String,
        /// What was expected and found.
        reason: String,
    },
    /// A row lacks a field of its format.
    #[error("{at}: the {format} format needs the field {field:?}; this row has {found:?}. {hint}")]
    MissingField {
        /// File and line.
        at: SourceLine,
        /// Name of the format.
        format: &'static str,
        /// The column that was looked for.
        field: String,
        /// The fields that the row has.
        found: Vec<String>,
        /// What to change.
        hint: Box<str>,
    },
    /// A field holds something else than its format says.
    #[error("{at}: field {field:?} should be {expected}, found {found}")]
    BadField {
        /// File and line.
        at: SourceLine,
        /// The field.
        field: String,
        /// What was expected.
        expected: String,
        /// What is there, shortened.
        found: String,
    },
    /// The chat template failed on a row.
    #[error("{at}: {error}")]
    Chat {
        /// File and line.
        at: SourceLine,
        /// The template's own error.
        error: TemplateError,
    },
    /// Tokenizing a row failed.
    #[error("{at}: {error}")]
    Tokenize {
        /// File and line.
        at: SourceLine,
        /// The tokenizer's own error.
        error: TokenizerError,
    },
    /// A conversation format, and neither base nor configuration has a template.
    #[error(
        "{what} needs a chat template and this base has none. Use a chat base, set data.chat_template to a Jinja template, or set prompt_style = \"alpaca\" or \"plain\" with a format of single prompts"
    )]
    NoChatTemplate {
        /// The setting or format that needs it.
        what: String,
    },
    /// A key of the configuration has an unusable value.
    #[error("data.{key}: {reason}")]
    Config {
        /// The key.
        key: String,
        /// What is wrong and what to write instead.
        reason: String,
    },
    /// A label that the label set does not contain.
    #[error(
        "{at}: label {label:?} is not one of {known:?}. Add it to data.label_names, or correct the row"
    )]
    UnknownLabel {
        /// File and line.
        at: SourceLine,
        /// The label found.
        label: String,
        /// The labels known.
        known: Vec<String>,
    },
    /// An example exceeds `max_length` and truncation is switched off.
    #[error(
        "{at}: {length} tokens exceed max_length = {max_length}. Raise max_length, or set truncation = \"right\", \"left\" or \"drop\""
    )]
    TooLong {
        /// File and line.
        at: SourceLine,
        /// Tokens of the example.
        length: usize,
        /// The limit.
        max_length: usize,
    },
    /// Truncation left nothing to learn.
    #[error(
        "{at}: max_length = {max_length} leaves no trained token: the first one is token {first_trained} of {length}; so it is in {rows} rows. Raise max_length above {first_trained}, shorten the prompt, or set truncation = \"drop\" to leave rows that are too long out and count them"
    )]
    Emptied {
        /// File and line.
        at: SourceLine,
        /// Tokens of the example.
        length: usize,
        /// Position of the first trained token, from 0.
        first_trained: usize,
        /// How many rows of the set are like this one, the first.
        rows: usize,
        /// The limit.
        max_length: usize,
    },
    /// There are no rows.
    #[error("{what} has no rows. Expected at least one record")]
    Empty {
        /// The data set.
        what: String,
    },
    /// There are rows, and nothing in them is trained.
    #[error(
        "none of the {rows} rows of {what} has a trained token ({untrained} without assistant text, {dropped} dropped for length). Check format, template and max_length with `trainer data`"
    )]
    NothingTrained {
        /// The data set.
        what: String,
        /// Rows read.
        rows: usize,
        /// Rows without text to train.
        untrained: usize,
        /// Rows dropped for length.
        dropped: usize,
    },
    /// An example does not fit in a packed row.
    #[error(
        "example {index} has {length} tokens and a packed row holds {width}. Packing never splits an example: raise max_length or truncate first"
    )]
    PackTooLong {
        /// Index of the example.
        index: usize,
        /// Its tokens.
        length: usize,
        /// Width of a row.
        width: usize,
    },
}
