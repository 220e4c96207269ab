//! Text to token ids and back: a thin wrapper over the `tokenizers` crate.
//!
//! Reads the three files a Hugging Face base carries: `tokenizer.json` (both merges formats), `tokenizer_config.json`
//! (special tokens, `add_bos_token`, chat template) and `chat_template.jinja`. Two things are decided here and nowhere
//! else: which ids are special, and how a document gets its beginning-of-sequence token ([`Tokenizer::encode_document`]).

mod chat;
mod config;
mod jinja;
mod sequences;
mod stream;

pub use chat::{ChatTemplate, Message, RenderedChat, SpanMethod, TemplateError};
pub(crate) use jinja::to_value as to_template_value;
pub use sequences::Sequences;
pub use stream::StreamDecoder;

use std::collections::HashMap;
use std::ops::Range;

use config::TokenizerConfig;
pub use config::completed_config;

/// What can go wrong with a tokenizer file or a text.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// `tokenizer.json` is not what the tokenizers library reads.
    #[error(
        "tokenizer.json cannot be read: {reason}. Expected the Hugging Face fast-tokenizer format; a SentencePiece `tokenizer.model` has to be converted first"
    )]
    Json {
        /// The library's own message.
        reason: String,
    },
    /// `tokenizer_config.json` is malformed.
    #[error("tokenizer_config.json cannot be read: {reason}")]
    Config {
        /// What was wrong, with the place where known.
        reason: String,
    },
    /// A special token is named that the vocabulary lacks.
    #[error(
        "tokenizer_config.json names {role} {token:?}, which tokenizer.json does not contain; the two files belong to different models"
    )]
    UnknownSpecial {
        /// `bos_token`, `eos_token` or `pad_token`.
        role: &'static str,
        /// The token's text.
        token: String,
    },
    /// The library refused a text.
    #[error("text of {bytes} bytes cannot be tokenized: {reason}")]
    Encode {
        /// Length of the text.
        bytes: usize,
        /// The library's own message.
        reason: String,
    },
    /// The library refused to decode.
    #[error("{count} token ids cannot be decoded: {reason}")]
    Decode {
        /// Number of ids.
        count: usize,
        /// The library's own message.
        reason: String,
    },
    /// The chat template is unusable.
    #[error(transparent)]
    Template(#[from] TemplateError),
}

/// Token ids with the byte range of the text each came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Token ids.
    pub ids: Vec<u32>,
    /// One byte range of the text per id; empty at 0 for ids that stand for no text (an added bos).
    pub offsets: Vec<Range<usize>>,
}

/// A tokenizer with its special tokens and chat template.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    config: TokenizerConfig,
    bos: Option<u32>,
    eos: Option<u32>,
    pad: Option<u32>,
    unk: Option<u32>,
    special: HashMap<u32, String>,
    adds_bos: bool,
    vocab_size: usize,
}

impl Tokenizer {
    /// Builds from file contents. `chat_template_jinja` wins over the template in `tokenizer_config.json`, as in
    /// transformers. Truncation and padding stored in `tokenizer.json` are switched off: lengths are the data
    /// pipeline's business, and a stored `max_length` would cut texts silently.
    ///
    /// # Errors
    /// [`TokenizerError`] for unreadable files or special tokens that the vocabulary lacks.
    pub fn from_bytes(
        tokenizer_json: &[u8],
        tokenizer_config_json: Option<&[u8]>,
        chat_template_jinja: Option<&[u8]>,
    ) -> Result<Self, TokenizerError> {
        let mut inner = tokenizers::Tokenizer::from_bytes(tokenizer_json).map_err(|e| {
            TokenizerError::Json {
                reason: e.to_string(),
            }
        })?;
        inner
            .with_truncation(None)
            .map_err(|e| TokenizerError::Json {
                reason: e.to_string(),
            })?;
        inner.with_padding(None);
        let config = TokenizerConfig::parse(tokenizer_config_json, chat_template_jinja)?;

        let vocab_size = inner
            .get_vocab(true)
            .values()
            .max()
            .map_or(0, |&id| id as usize + 1);
        let special = inner
            .get_added_tokens_decoder()
            .into_iter()
            .filter(|(_, token)| token.special)
            .map(|(id, token)| (id, token.content))
            .collect();
        let find = |role: &'static str, token: &Option<String>| match token {
            None => Ok(None),
            Some(text) => match inner.token_to_id(text) {
                Some(id) => Ok(Some(id)),
                None => Err(TokenizerError::UnknownSpecial {
                    role,
                    token: text.clone(),
                }),
            },
        };
        let bos = find("bos_token", &config.bos_token)?;
        let eos = find("eos_token", &config.eos_token)?;
        // A pad or unk token that does not exist harms nobody: padding is masked by position.
        let pad = find("pad_token", &config.pad_token).unwrap_or(None);
        let unk = find("unk_token", &config.unk_token).unwrap_or(None);

        let mut tokenizer = Self {
            inner,
            config,
            bos,
            eos,
            pad,
            unk,
            special,
            adds_bos: false,
            vocab_size,
        };
        let writes_bos = bos.is_some() && tokenizer.encode("", true)?.first().copied() == bos;
        tokenizer.adds_bos = bos.is_some() && tokenizer.config.add_bos_token.unwrap_or(writes_bos);
        Ok(tokenizer)
    }

    /// A tokenizer without text, for data that are ids below `vocab_size` already.
    ///
    /// # Errors
    /// None in practice; the definition is parsed like any other.
    pub fn ids_only(vocab_size: usize) -> Result<Self, TokenizerError> {
        const EMPTY: &[u8] = br#"{"version":"1.0","added_tokens":[],"normalizer":null,"pre_tokenizer":null,
            "post_processor":null,"decoder":null,"model":{"type":"WordLevel","vocab":{},"unk_token":""}}"#;
        Ok(Self {
            vocab_size,
            ..Self::from_bytes(EMPTY, None, None)?
        })
    }

    /// Replaces bos, eos and pad, for bases whose files do not name them. Unchanged where `None`.
    #[must_use]
    pub fn with_special_ids(
        mut self,
        bos: Option<u32>,
        eos: Option<u32>,
        pad: Option<u32>,
    ) -> Self {
        self.bos = bos.or(self.bos);
        self.eos = eos.or(self.eos);
        self.pad = pad.or(self.pad);
        self
    }

    /// Token ids of `text`. With `add_special`, whatever the post-processor writes (bos, or `[CLS]` and `[SEP]`).
    /// Special tokens spelled out in the text become single ids, as in transformers.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`].
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self
            .inner
            .encode_fast(text, add_special)
            .map_err(|e| encode_error(text, &e))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// As [`encode`](Self::encode), with the byte range of each token.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`].
    pub fn encode_with_offsets(
        &self,
        text: &str,
        add_special: bool,
    ) -> Result<Encoded, TokenizerError> {
        let encoding = self
            .inner
            .encode(text, add_special)
            .map_err(|e| encode_error(text, &e))?;
        Ok(Encoded {
            ids: encoding.get_ids().to_vec(),
            offsets: encoding.get_offsets().iter().map(|&(a, b)| a..b).collect(),
        })
    }

    /// One document for a causal model: the text's tokens after exactly one bos where this tokenizer uses bos,
    /// whether or not the text (a rendered chat template) already begins with it. Never appends eos.
    /// Training and generation must both come through here, so that they see the same ids.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`].
    pub fn encode_document(&self, text: &str) -> Result<Encoded, TokenizerError> {
        let mut encoded = self.encode_with_offsets(text, false)?;
        if let Some(bos) = self.bos.filter(|_| self.adds_bos)
            && encoded.ids.first() != Some(&bos)
        {
            encoded.ids.insert(0, bos);
            encoded.offsets.insert(0, 0..0);
        }
        Ok(encoded)
    }

    /// Text of `ids`. Ids outside the vocabulary are skipped.
    ///
    /// # Errors
    /// [`TokenizerError::Decode`].
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TokenizerError> {
        self.inner
            .decode(ids, skip_special)
            .map_err(|e| TokenizerError::Decode {
                count: ids.len(),
                reason: e.to_string(),
            })
    }

    /// A decoder that takes ids one at a time.
    #[must_use]
    pub fn stream_decoder(&self, skip_special: bool) -> StreamDecoder<'_> {
        StreamDecoder::new(self, skip_special)
    }

    /// The vocabulary entry of `id`, in the vocabulary's own spelling (`▁the`, `Ġthe`).
    #[must_use]
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of a vocabulary entry.
    #[must_use]
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Highest id + 1, added tokens included: the least number of embedding rows that this tokenizer needs.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Beginning-of-sequence id.
    #[must_use]
    pub fn bos_id(&self) -> Option<u32> {
        self.bos
    }

    /// End-of-sequence id.
    #[must_use]
    pub fn eos_id(&self) -> Option<u32> {
        self.eos
    }

    /// Unknown-token id.
    #[must_use]
    pub fn unk_id(&self) -> Option<u32> {
        self.unk
    }

    /// The id to fill padding with: pad, else eos, else 0. Its value never matters, padding is masked by position.
    #[must_use]
    pub fn pad_id(&self) -> u32 {
        self.pad.or(self.eos).unwrap_or(0)
    }

    /// Text of the bos token.
    #[must_use]
    pub fn bos_token(&self) -> Option<String> {
        self.bos.and_then(|id| self.id_to_token(id))
    }

    /// Text of the eos token.
    #[must_use]
    pub fn eos_token(&self) -> Option<String> {
        self.eos.and_then(|id| self.id_to_token(id))
    }

    /// Whether documents begin with bos.
    #[must_use]
    pub fn adds_bos(&self) -> bool {
        self.adds_bos
    }

    /// Whether `id` is a special token (eos, or an added token marked special).
    #[must_use]
    pub fn is_special(&self, id: u32) -> bool {
        Some(id) == self.eos || Some(id) == self.bos || self.special.contains_key(&id)
    }

    /// Texts of all special tokens, eos included.
    pub fn special_texts(&self) -> impl Iterator<Item = String> + '_ {
        self.special.values().cloned().chain(self.eos_token())
    }

    /// The chat template's source, where the base has one.
    #[must_use]
    pub fn chat_template_source(&self) -> Option<&str> {
        self.config.chat_template.as_deref()
    }

    /// The compiled chat template; `None` for a base without one.
    ///
    /// # Errors
    /// [`TemplateError::Syntax`] when the base's template cannot be compiled.
    pub fn chat_template(&self) -> Result<Option<ChatTemplate>, TemplateError> {
        self.chat_template_source()
            .map(|source| ChatTemplate::new(source, self.bos_token(), self.eos_token()))
            .transpose()
    }

    /// The tokenizer's `model_max_length`, where it states a real one (transformers writes 1e30 for "unknown").
    #[must_use]
    pub fn model_max_length(&self) -> Option<usize> {
        self.config.model_max_length
    }
}

fn encode_error(text: &str, error: &tokenizers::Error) -> TokenizerError {
    TokenizerError::Encode {
        bytes: text.len(),
        reason: error.to_string(),
    }
}

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod tests;
