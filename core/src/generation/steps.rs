//! One batch of sequences in flight, a token at a time.
//!
//! Whoever holds a [`Generation`] decides when the next token is made: a loop makes them all; a page makes one for each of
//! several models in turn, and stops between two.

use burn::tensor::Tensor;

use super::{Finish, GenerateError, Generated, Generator, Sampler, StopMatcher};
use crate::host::to_vec;
use crate::models::llama::{LayerCache, index_tensor};
use crate::tokenizer::StreamDecoder;

/// Text that came with one token of one sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The prompt's index.
    pub index: usize,
    /// New text; never empty.
    pub text: String,
}

/// Sequences being continued.
#[derive(Debug)]
pub struct Generation<'a> {
    generator: Generator<'a>,
    cache: Vec<LayerCache>,
    /// Tokens in the cache, and room in it.
    past: usize,
    capacity: usize,
    /// What the next step feeds, row-major.
    next: Vec<u32>,
    rows: Vec<Row<'a>>,
    finished: Vec<Option<Generated>>,
}

/// A sequence in flight.
#[derive(Debug)]
struct Row<'a> {
    index: usize,
    hidden_prefix: usize,
    history: Vec<u32>,
    ids: Vec<u32>,
    text: String,
    sampler: Sampler,
    decoder: StreamDecoder<'a>,
    stop: StopMatcher,
}

impl<'a> Generation<'a> {
    pub(super) fn new(
        generator: Generator<'a>,
        prompts: &[Vec<u32>],
        longest: usize,
        first_stream: u64,
    ) -> Result<Self, GenerateError> {
        let (model, config) = (generator.model, &generator.config);
        let capacity = longest
            .saturating_add(config.max_new_tokens)
            .min(model.rope.len());
        let row = |(index, prompt): (usize, &Vec<u32>)| -> Result<Row<'a>, GenerateError> {
            Ok(Row {
                index,
                hidden_prefix: longest - prompt.len(),
                history: prompt.clone(),
                ids: Vec::new(),
                text: String::new(),
                sampler: Sampler::new(config, first_stream + index as u64)?,
                decoder: generator.tokenizer.stream_decoder(true),
                stop: StopMatcher::new(&config.stop),
            })
        };
        Ok(Self {
            rows: prompts
                .iter()
                .enumerate()
                .map(row)
                .collect::<Result<_, _>>()?,
            cache: model.new_cache(prompts.len(), capacity),
            past: 0,
            capacity,
            next: left_pad(prompts, longest),
            finished: vec![None; prompts.len()],
            generator,
        })
    }

    /// Whether every sequence has ended.
    pub fn done(&self) -> bool {
        self.rows.is_empty()
    }

    /// Makes one token for every sequence that has not ended; the first step reads the prompts. Returns the text that
    /// came with them: a sequence shows nothing while a character or a stop string may be half written.
    ///
    /// # Errors
    /// Logits that cannot be sampled from; the device failed.
    pub async fn step(&mut self) -> Result<Vec<Piece>, GenerateError> {
        if self.done() {
            return Ok(Vec::new());
        }
        let prefixes: Vec<usize> = self.rows.iter().map(|r| r.hidden_prefix).collect();
        let model = self.generator.model;
        let logits = model.step(&self.next, &prefixes, self.past, &mut self.cache);
        self.past += self.next.len() / self.rows.len();
        self.advance(logits).await
    }

    /// Every sequence, in the prompts' order; those still in flight end here ([`Finish::Stopped`]).
    pub fn finish(mut self) -> Vec<Generated> {
        for mut row in std::mem::take(&mut self.rows) {
            row.flush(&mut String::new());
            let index = row.index;
            self.finished[index] = Some(row.end(Finish::Stopped));
        }
        self.finished.into_iter().flatten().collect()
    }

    /// Samples a token for every row, retires the rows that end, and notes the others' tokens.
    async fn advance(&mut self, logits: Tensor<2>) -> Result<Vec<Piece>, GenerateError> {
        let vocab = logits.dims()[1];
        let logits = to_vec(logits).await?;
        let full = self.past >= self.capacity;
        let mut kept = Vec::with_capacity(self.rows.len());
        let mut pieces = Vec::new();
        self.next.clear();
        for (place, mut row) in std::mem::take(&mut self.rows).into_iter().enumerate() {
            let logits = &logits[place * vocab..(place + 1) * vocab];
            let id = row.sampler.sample(logits, &row.history)?;
            let (finish, text) = row.take(id, full, &self.generator);
            let index = row.index;
            if !text.is_empty() {
                pieces.push(Piece { index, text });
            }
            match finish {
                Some(finish) => self.finished[index] = Some(row.end(finish)),
                None => {
                    kept.push(place as u32);
                    self.next.push(id);
                    self.rows.push(row);
                }
            }
        }
        if kept.len() * vocab < logits.len() && !kept.is_empty() {
            let places = index_tensor(&kept, &self.generator.model.device());
            self.cache
                .iter_mut()
                .for_each(|layer| layer.keep_rows(places.clone()));
        }
        Ok(pieces)
    }
}

impl Row<'_> {
    /// Appends `id`; says why the row ends, if it does, and what text came.
    fn take(&mut self, id: u32, full: bool, generator: &Generator<'_>) -> (Option<Finish>, String) {
        let ended = generator.end_ids.contains(&id);
        let mut stopped = false;
        let mut new = String::new();
        if !ended {
            self.ids.push(id);
            self.history.push(id);
            if let Some(piece) = self.decoder.push(id) {
                let (emit, hit) = self.stop.push(&piece);
                stopped = hit;
                self.emit(&emit, &mut new);
            }
        }
        let finish = match (ended, stopped) {
            (true, _) => Finish::EndToken,
            (_, true) => Finish::StopString,
            _ if full || self.ids.len() >= generator.config.max_new_tokens => Finish::Length,
            _ => return (None, new),
        };
        if !stopped {
            self.flush(&mut new);
        }
        (Some(finish), new)
    }

    /// Emits the text that was held back.
    fn flush(&mut self, new: &mut String) {
        if let Some(rest) = self.decoder.finish() {
            let (emit, _) = self.stop.push(&rest);
            self.emit(&emit, new);
        }
        let rest = self.stop.finish();
        self.emit(&rest, new);
    }

    fn emit(&mut self, text: &str, new: &mut String) {
        self.text.push_str(text);
        new.push_str(text);
    }

    fn end(self, finish: Finish) -> Generated {
        Generated {
            ids: self.ids,
            text: self.text,
            finish,
        }
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
