//! Batched decoding: prompts are padded on the left, so that every row's next token is in the same
//! column of the cache.

use thiserror::Error;

use super::{Generation, SampleError, SamplingConfig, SamplingConfigError};
use crate::host::ReadError;
use crate::models::llama::Llama;
use crate::tokenizer::Tokenizer;

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model wrote an end token.
    EndToken,
    /// A stop string appeared.
    StopString,
    /// `max_new_tokens`, or the model's context, was used up.
    Length,
    /// Whoever drove the generation took no further step.
    Stopped,
}

/// One finished sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct Generated {
    /// New token ids, without the end token.
    pub ids: Vec<u32>,
    /// Their text, cut at a stop string.
    pub text: String,
    /// Why it ended.
    pub finish: Finish,
}

/// What can go wrong while generating.
#[derive(Debug, Error)]
pub enum GenerateError {
    /// Settings out of range.
    #[error(transparent)]
    Config(#[from] SamplingConfigError),
    /// Logits that cannot be sampled from.
    #[error(transparent)]
    Sample(#[from] SampleError),
    /// The device failed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A prompt without room for an answer.
    #[error(
        "prompt {index} has {tokens} tokens, but the model's context is {context}; shorten the prompt"
    )]
    PromptTooLong {
        /// Index in the batch.
        index: usize,
        /// Its length.
        tokens: usize,
        /// The model's context.
        context: usize,
    },
    /// A token that the model has no embedding for.
    #[error(
        "prompt {index} has token id {id}, but the model's vocabulary has {vocab} entries; use the tokenizer that belongs to \
         this model"
    )]
    Token {
        /// Index in the batch.
        index: usize,
        /// The id.
        id: u32,
        /// Entries of the vocabulary.
        vocab: usize,
    },
    /// A prompt of no tokens.
    #[error("prompt {index} is empty; give at least one token")]
    EmptyPrompt {
        /// Index in the batch.
        index: usize,
    },
}

/// Generates from one model with one set of settings.
#[derive(Clone, Debug)]
pub struct Generator<'a> {
    pub(super) model: &'a Llama,
    pub(super) tokenizer: &'a Tokenizer,
    pub(super) config: SamplingConfig,
    pub(super) end_ids: Vec<u32>,
}

impl<'a> Generator<'a> {
    /// `end_ids` end a sequence (end of text, end of turn).
    pub fn new(
        model: &'a Llama,
        tokenizer: &'a Tokenizer,
        config: SamplingConfig,
        end_ids: Vec<u32>,
    ) -> Self {
        Self {
            model,
            tokenizer,
            config,
            end_ids,
        }
    }

    /// Continues every prompt to its end. `on_text(index, piece)` gets text as it comes.
    ///
    /// # Errors
    /// As [`Generator::begin`] and [`Generation::step`].
    pub async fn generate(
        &self,
        prompts: &[Vec<u32>],
        first_stream: u64,
        mut on_text: impl FnMut(usize, &str),
    ) -> Result<Vec<Generated>, GenerateError> {
        let mut generation = self.begin(prompts, first_stream)?;
        while !generation.done() {
            for piece in generation.step().await? {
                on_text(piece.index, &piece.text);
            }
        }
        Ok(generation.finish())
    }

    /// Prepares to continue every prompt, a token per [`Generation::step`]. Results do not depend on which prompts share
    /// a batch: each has its own random stream, numbered `first_stream` on.
    ///
    /// # Errors
    /// Settings out of range; a prompt that is empty, fills the model's context or has a token outside its vocabulary.
    pub fn begin(
        &self,
        prompts: &[Vec<u32>],
        first_stream: u64,
    ) -> Result<Generation<'a>, GenerateError> {
        let longest = self.check(prompts)?;
        Generation::new(self.clone(), prompts, longest, first_stream)
    }

    /// The longest prompt's length, where every prompt can be continued.
    fn check(&self, prompts: &[Vec<u32>]) -> Result<usize, GenerateError> {
        let context = self.model.rope.len();
        self.config.validate()?;
        for (index, prompt) in prompts.iter().enumerate() {
            if prompt.is_empty() {
                return Err(GenerateError::EmptyPrompt { index });
            }
            let vocab = self.model.config.vocab_size;
            if let Some(&id) = prompt.iter().find(|id| **id as usize >= vocab) {
                return Err(GenerateError::Token { index, id, vocab });
            }
            if prompt.len() >= context {
                return Err(GenerateError::PromptTooLong {
                    index,
                    tokens: prompt.len(),
                    context,
                });
            }
        }
        Ok(prompts.iter().map(Vec::len).max().unwrap_or(0))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;
    use crate::host::block_on;
    use crate::tokenizer::fixtures::bytes;
    use crate::train::guard_tests::llama;

    #[test]
    fn a_token_without_an_embedding_is_refused_and_no_length_overflows() {
        let (model, tokenizer) = (llama(true), bytes(None));
        let config = SamplingConfig {
            max_new_tokens: usize::MAX,
            ..SamplingConfig::default()
        };
        let generator = Generator::new(&model, &tokenizer, config, vec![]);
        let error = generator.begin(&[vec![1], vec![2, 360]], 0).unwrap_err();
        let (index, id, vocab) = (1, 360, 360);
        assert!(
            matches!(error, GenerateError::Token { index: i, id: t, vocab: v } if (i, t, v) == (index, id, vocab)),
            "{error}"
        );
        let mut generation = generator.begin(&[vec![1, 2]], 0).unwrap();
        block_on(generation.step()).unwrap();
        assert!(!generation.done());
    }
}
