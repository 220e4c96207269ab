//! Batched decoding: prompts are padded on the left, so that every row's next token is in the same
//! column of the cache.

use burn::tensor::Tensor;
use thiserror::Error;

use super::{SampleError, Sampler, SamplingConfig, SamplingConfigError, StopMatcher};
use crate::host::to_vec;
use crate::models::llama::{LayerCache, Llama, index_tensor};
use crate::tokenizer::{StreamDecoder, Tokenizer};

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model wrote an end token.
    EndToken,
    /// A stop string appeared.
    StopString,
    /// `max_new_tokens`, or the model's context, was used up.
    Length,
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
    /// A prompt of no tokens.
    #[error("prompt {index} is empty; give at least one token")]
    EmptyPrompt {
        /// Index in the batch.
        index: usize,
    },
}

/// Generates from one model with one set of settings.
#[derive(Debug)]
pub struct Generator<'a> {
    model: &'a Llama,
    tokenizer: &'a Tokenizer,
    config: SamplingConfig,
    end_ids: Vec<u32>,
}

/// A sequence in flight.
struct Row {
    index: usize,
    hidden_prefix: usize,
    history: Vec<u32>,
    ids: Vec<u32>,
    text: String,
    sampler: Sampler,
    stop: StopMatcher,
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

    /// Continues every prompt. Results do not depend on which prompts share a batch: each has its
    /// own random stream, numbered `first_stream` on. `on_text(index, piece)` gets text as it comes.
    pub fn generate(
        &self,
        prompts: &[Vec<u32>],
        first_stream: u64,
        mut on_text: impl FnMut(usize, &str),
    ) -> Result<Vec<Generated>, GenerateError> {
        let context = self.model.rope.len();
        let longest = self.check(prompts, context)?;
        let capacity = (longest + self.config.max_new_tokens).min(context);
        let mut cache = self.model.new_cache(prompts.len(), capacity);
        let mut rows = self.rows(prompts, longest, first_stream)?;
        let mut decoders: Vec<StreamDecoder<'_>> = prompts
            .iter()
            .map(|_| self.tokenizer.stream_decoder(true))
            .collect();
        let mut finished: Vec<Option<Generated>> = vec![None; prompts.len()];

        let mut past = 0;
        let mut next = left_pad(prompts, longest);
        while !rows.is_empty() {
            let prefixes: Vec<usize> = rows.iter().map(|r| r.hidden_prefix).collect();
            let logits = self.model.step(&next, &prefixes, past, &mut cache);
            past += next.len() / rows.len();
            let full = past >= capacity;
            next = self.advance(
                &mut rows,
                logits,
                full,
                &mut decoders,
                &mut finished,
                &mut cache,
                &mut on_text,
            )?;
        }
        Ok(finished.into_iter().flatten().collect())
    }

    fn check(&self, prompts: &[Vec<u32>], context: usize) -> Result<usize, GenerateError> {
        self.config.validate()?;
        for (index, prompt) in prompts.iter().enumerate() {
            if prompt.is_empty() {
                return Err(GenerateError::EmptyPrompt { index });
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

    fn rows(
        &self,
        prompts: &[Vec<u32>],
        longest: usize,
        first_stream: u64,
    ) -> Result<Vec<Row>, GenerateError> {
        let row = |(index, prompt): (usize, &Vec<u32>)| {
            Ok(Row {
                index,
                hidden_prefix: longest - prompt.len(),
                history: prompt.clone(),
                ids: Vec::new(),
                text: String::new(),
                sampler: Sampler::new(&self.config, first_stream + index as u64)?,
                stop: StopMatcher::new(&self.config.stop),
            })
        };
        prompts.iter().enumerate().map(row).collect()
    }

    /// Samples a token for every row, retires the rows that end, and returns the others' tokens.
    #[allow(clippy::too_many_arguments)]
    fn advance(
        &self,
        rows: &mut Vec<Row>,
        logits: Tensor<2>,
        full: bool,
        decoders: &mut [StreamDecoder<'_>],
        finished: &mut [Option<Generated>],
        cache: &mut [LayerCache],
        on_text: &mut impl FnMut(usize, &str),
    ) -> Result<Vec<u32>, GenerateError> {
        let vocab = logits.dims()[1];
        let logits = to_vec(logits);
        let mut kept = Vec::with_capacity(rows.len());
        let mut next = Vec::with_capacity(rows.len());
        for (place, mut row) in std::mem::take(rows).into_iter().enumerate() {
            let id = row
                .sampler
                .sample(&logits[place * vocab..(place + 1) * vocab], &row.history)?;
            let decoder = &mut decoders[row.index];
            match self.take(&mut row, id, full, decoder, on_text) {
                Some(finish) => {
                    finished[row.index] = Some(Generated {
                        ids: row.ids,
                        text: row.text,
                        finish,
                    });
                }
                None => {
                    kept.push(place as u32);
                    next.push(id);
                    rows.push(row);
                }
            }
        }
        if kept.len() * vocab < logits.len() && !kept.is_empty() {
            let places = index_tensor(&kept, &self.model.device());
            cache
                .iter_mut()
                .for_each(|layer| layer.keep_rows(places.clone()));
        }
        Ok(next)
    }

    /// Appends `id` to `row`; says why the row ends, if it does.
    fn take(
        &self,
        row: &mut Row,
        id: u32,
        full: bool,
        decoder: &mut StreamDecoder<'_>,
        on_text: &mut impl FnMut(usize, &str),
    ) -> Option<Finish> {
        let ended = self.end_ids.contains(&id);
        let mut stopped = false;
        if !ended {
            row.ids.push(id);
            row.history.push(id);
            if let Some(piece) = decoder.push(id) {
                let (emit, hit) = row.stop.push(&piece);
                stopped = hit;
                emit_text(row, &emit, on_text);
            }
        }
        let finish = match (ended, stopped) {
            (true, _) => Finish::EndToken,
            (_, true) => Finish::StopString,
            _ if full || row.ids.len() >= self.config.max_new_tokens => Finish::Length,
            _ => return None,
        };
        if !stopped {
            if let Some(rest) = decoder.finish() {
                let (emit, _) = row.stop.push(&rest);
                emit_text(row, &emit, on_text);
            }
            let rest = row.stop.finish();
            emit_text(row, &rest, on_text);
        }
        Some(finish)
    }
}

fn emit_text(row: &mut Row, text: &str, on_text: &mut impl FnMut(usize, &str)) {
    if !text.is_empty() {
        row.text.push_str(text);
        on_text(row.index, text);
    }
}

/// Row-major `[prompts, longest]`, padded on the left. The padding's id does not matter: nobody sees it.
fn left_pad(prompts: &[Vec<u32>], longest: usize) -> Vec<u32> {
    let pad = |prompt: &Vec<u32>| std::iter::repeat_n(0, longest - prompt.len());
    prompts
        .iter()
        .flat_map(|p| pad(p).chain(p.iter().copied()))
        .collect()
}
