//! Which architecture a `config.json` describes, and what a program needs to know of either.

use serde_json::Value;
use thiserror::Error;

use super::bert::{BertConfig, BertError};
use super::llama::{ConfigError, LlamaConfig};
use crate::adapters::Adapter;
use crate::data::Task;

/// A base's configuration, by architecture.
#[derive(Clone, Debug)]
pub enum Architecture {
    /// A language model.
    Llama(Box<LlamaConfig>),
    /// An encoder, used as a sequence classifier.
    Bert(Box<BertConfig>),
}

/// Why a `config.json` describes nothing that can be run.
#[derive(Debug, Error)]
pub enum ArchitectureError {
    /// A language model that cannot be run, or no known model at all.
    #[error("{0} (an encoder would be bert or distilbert)")]
    Llama(#[from] ConfigError),
    /// An encoder that cannot be run.
    #[error(transparent)]
    Bert(#[from] BertError),
}

impl Architecture {
    /// Reads the bytes of a `config.json`: `model_type` decides.
    ///
    /// # Errors
    /// A model of another kind, or a configuration that cannot be run.
    pub fn from_json(config_json: &[u8]) -> Result<Self, ArchitectureError> {
        let value: Option<Value> = serde_json::from_slice(config_json).ok();
        let kind = value.as_ref().and_then(|v| v.get("model_type")?.as_str());
        Ok(match kind {
            Some("bert" | "distilbert") => {
                Self::Bert(Box::new(BertConfig::from_json(config_json)?))
            }
            _ => Self::Llama(Box::new(LlamaConfig::from_json(config_json)?)),
        })
    }

    /// What it is trained for.
    pub fn task(&self) -> Task {
        match self {
            Self::Llama(_) => Task::Causal,
            Self::Bert(_) => Task::SequenceClassification,
        }
    }

    /// Rows of the word embedding.
    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Llama(c) => c.vocab_size,
            Self::Bert(c) => c.vocab_size,
        }
    }

    /// The longest sequence in tokens.
    pub fn context(&self) -> usize {
        match self {
            Self::Llama(c) => c.max_position_embeddings,
            Self::Bert(c) => c.max_position_embeddings,
        }
    }

    /// Path and `[out, in]` of every linear that can be adapted.
    pub fn linear_modules(&self) -> Vec<(String, [usize; 2])> {
        match self {
            Self::Llama(c) => c.linear_modules(),
            Self::Bert(c) => c.linear_modules(),
        }
    }

    /// Every tensor `adapter` may hold in full.
    pub fn adaptable_tensors(&self, adapter: &Adapter) -> Vec<(String, Vec<usize>)> {
        match self {
            Self::Llama(c) => c.adaptable_tensors(),
            Self::Bert(c) => c.adaptable_tensors(adapter),
        }
    }
}
