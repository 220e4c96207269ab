//! Adapters as they lie in files: PEFT's two files, `adapter_config.json` and `adapter_model.safetensors`, and the receipt
//! `qloom.json` that says on which base and with which chat template an adapter was trained.
//!
//! Reading and writing keep what they do not understand: a re-saved adapter has the same tensors to the byte, and unknown
//! keys of the configuration survive. Source: PEFT 0.21 (`LoraConfig`, `save_and_load.py`, `tuners_utils.py`).

mod adapter;
pub mod gallery;
mod module;
mod peft_config;
mod receipt;
mod targets;

pub use adapter::{Adapter, PREFIX};
pub use module::LoraModule;
pub use peft_config::{OneOrMany, Pattern, PeftConfig};
pub use receipt::{LABELS, RECEIPT, Receipt, ReceiptWarning};
pub use targets::{TargetSpec, resolve_targets, valid_targets};

use crate::host::ReadError;
use crate::weights::WeightError;
use thiserror::Error;

/// What can be wrong with an adapter, or with what it is asked to adapt.
#[derive(Debug, Error)]
pub enum AdapterError {
    /// Unreadable JSON.
    #[error("{file}: {reason}")]
    Json {
        /// `adapter_config.json` or `qloom.json`.
        file: &'static str,
        /// The parser's words.
        reason: String,
    },
    /// A kind of adapter that cannot be applied.
    #[error("adapter_config.json: {key} is {found}; supported: {supported}")]
    Unsupported {
        /// The key.
        key: String,
        /// Its value.
        found: String,
        /// What would do.
        supported: &'static str,
    },
    /// The device with the trained values failed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// An adapter trained on a model of another shape.
    #[error(
        "adapter for another base: tensor {tensor} expected {expected:?}, found {found:?}; it was trained on {base}, \
         load that base instead"
    )]
    Shape {
        /// The adapter's tensor.
        tensor: String,
        /// The shape this base and this configuration ask for.
        expected: Vec<usize>,
        /// The shape it has.
        found: Vec<usize>,
        /// `base_model_name_or_path` of the adapter.
        base: String,
    },
    /// An adapter for a module that the base does not have.
    #[error(
        "adapter for another base: tensor {tensor} adapts a module this base lacks (it has {valid}); it was trained on \
         {base}, load that base instead"
    )]
    UnknownModule {
        /// The adapter's tensor.
        tensor: String,
        /// Names of the modules there are.
        valid: String,
        /// `base_model_name_or_path` of the adapter.
        base: String,
    },
    /// One half of a pair.
    #[error(
        "adapter_model.safetensors: tensor {missing} is missing, its other half is there; the file is damaged"
    )]
    MissingHalf {
        /// The tensor that should be there.
        missing: String,
    },
    /// No adapter at all, or a head that was not saved.
    #[error(
        "adapter_model.safetensors: expected {expected}, found none among {found} tensors; save the adapter again"
    )]
    Nothing {
        /// What was looked for.
        expected: String,
        /// Tensors there are.
        found: usize,
    },
    /// Targets that match nothing.
    #[error("target_modules {targets} matched nothing; this model has {valid}{hint}")]
    NoTarget {
        /// The entry or pattern.
        targets: String,
        /// Names of the modules there are.
        valid: String,
        /// `; did you mean q_proj?`, or empty.
        hint: String,
    },
    /// Everything matched was excluded again.
    #[error("every module that target_modules {targets} matched is excluded again by {by}")]
    AllExcluded {
        /// The targets.
        targets: String,
        /// Keys that exclude.
        by: &'static str,
    },
    /// A pattern that is no regular expression.
    #[error(
        "{pattern:?} in target_modules, exclude_modules, rank_pattern or alpha_pattern is not a usable regular expression: {reason} (look-around is not supported)"
    )]
    Pattern {
        /// The pattern.
        pattern: String,
        /// The engine's words.
        reason: String,
    },
    /// A fresh adapter that cannot start the way it was asked to.
    #[error("module {module}: {reason}")]
    Initialization {
        /// The module's path.
        module: String,
        /// What is in the way, and what to do.
        reason: String,
    },
    /// An adapter used as plain LoRA which is none.
    #[error(
        "this is a {kind} adapter, whose change of a weight is no low-rank matrix: {what} works on plain LoRA only;          merge it into its base instead"
    )]
    NotPlain {
        /// `DoRA` or `HiRA`.
        kind: String,
        /// What was to be done.
        what: &'static str,
    },
    /// A receipt for other weights.
    #[error(
        "adapter for another base: it was trained on {base} with fingerprint {expected}, this base has {found}; \
         load the base it was trained on"
    )]
    Fingerprint {
        /// The base's name in the receipt or configuration.
        base: String,
        /// Fingerprint in the receipt.
        expected: String,
        /// Fingerprint of the base at hand.
        found: String,
    },
    /// Unreadable weights.
    #[error(transparent)]
    Weights(#[from] WeightError),
}

impl AdapterError {
    /// An [`AdapterError::Initialization`] of the module at `path`.
    pub(crate) fn initialization(path: &str, reason: impl ToString) -> Self {
        Self::Initialization {
            module: path.to_owned(),
            reason: reason.to_string(),
        }
    }
}
