//! The small files of a base: configuration, tokenizer, chat template.

use qloom_core::generation::end_ids;
use qloom_core::models::Architecture;
use qloom_core::tokenizer::{Tokenizer, completed_config};
use serde_json::{Map, Value};

use super::super::{File, Surroundings};
use super::Folder;
use crate::protocol::Failure;

/// What is read of a base before its weights.
pub(super) struct Text {
    pub(super) config_json: Vec<u8>,
    tokenizer_json: Vec<u8>,
    tokenizer_config: Option<Vec<u8>>,
    chat_template: Option<Vec<u8>>,
    generation_config: Map<String, Value>,
}

impl Text {
    /// Reads them.
    pub(super) async fn read<S: Surroundings>(
        around: &S,
        folder: &mut Folder<S::File>,
        read: &mut Vec<String>,
    ) -> Result<Self, Failure>
    where
        S::File: File,
    {
        let needed = ["config.json", "tokenizer.json"];
        let optional = [
            "tokenizer_config.json",
            "special_tokens_map.json",
            "chat_template.jinja",
            "generation_config.json",
        ];
        read.extend(needed.into_iter().chain(optional).map(str::to_owned));
        let config_json = folder.needed(around, needed[0], true).await?;
        let tokenizer_json = folder.needed(around, needed[1], true).await?;
        let tokenizer_config = folder.small(around, optional[0], true).await?;
        let special = folder.small(around, optional[1], true).await?;
        let chat_template = folder.small(around, optional[2], true).await?;
        let generation = folder.small(around, optional[3], true).await?;
        Ok(Self {
            tokenizer_config: completed_config(tokenizer_config.as_deref(), special.as_deref())?,
            generation_config: match generation {
                Some(bytes) => serde_json::from_slice(&bytes)
                    .map_err(|e| Failure::format(format!("{}: {e}", optional[3])))?,
                None => Map::new(),
            },
            config_json,
            tokenizer_json,
            chat_template,
        })
    }

    /// The tokenizer, whose every id the base called `name` has a row for.
    pub(super) fn tokenizer(
        &self,
        architecture: &Architecture,
        name: &str,
    ) -> Result<Tokenizer, Failure> {
        let tokenizer = Tokenizer::from_bytes(
            &self.tokenizer_json,
            self.tokenizer_config.as_deref(),
            self.chat_template.as_deref(),
        )?;
        let (ids, rows) = (tokenizer.vocab_size(), architecture.vocab_size());
        match ids <= rows {
            true => Ok(tokenizer),
            false => Err(Failure::format(format!(
                "the tokenizer of {name} has {ids} ids, but its embedding only {rows} rows (vocab_size in config.json): \
                 they do not belong together; use the tokenizer the base was published with"
            ))),
        }
    }

    /// Ids that end an answer; none where the base writes none.
    pub(super) fn end_ids(&self, architecture: &Architecture, tokenizer: &Tokenizer) -> Vec<u32> {
        match architecture {
            Architecture::Llama(config) => end_ids(config, &self.generation_config, tokenizer),
            Architecture::Bert(_) => Vec::new(),
        }
    }
}
