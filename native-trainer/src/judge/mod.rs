//! `trainer judge`: the core's protocol carried out, over an endpoint or with a local base.
//!
//! ```text
//! pairs ─> two questions each ─> those not in the cache ─> judge ─> cache.jsonl ─> verdicts ─> report, judge.csv, judge.json
//! ```
//!
//! A reply is in the cache before it counts, so whatever ends the program, the next run asks only for the rest.
//!
//! - [`pairs`]: rows of a file to pairs;
//! - [`cache`]: replies by the hash of their question;
//! - [`endpoint`]: one question over HTTP; [`pool`]: many, in parallel, paced and retried; [`local`]: many, with a local model;
//! - [`output`]: table, CSV and JSON.

pub(crate) mod cache;
pub(crate) mod endpoint;
pub(crate) mod local;
pub(crate) mod output;
pub(crate) mod pairs;
pub(crate) mod pool;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use qloom_core::evaluation::judge::{
    JudgePair, JudgeParameters, JudgeRequest, Order, PairVerdict, read_choice,
};

use cache::{Cache, Reply};

/// Every question of a judging, with the key its reply is kept under: two per pair, in the order of [`Order::BOTH`].
#[derive(Debug)]
pub(crate) struct Questions {
    all: Vec<(String, JudgeRequest)>,
}

impl Questions {
    /// The questions about `pairs` for the judge called `model`.
    pub(crate) fn new(
        pairs: &[JudgePair],
        model: &str,
        parameters: JudgeParameters,
    ) -> Result<Self> {
        let keyed = |request: JudgeRequest| -> Result<(String, JudgeRequest)> {
            Ok((
                request
                    .key()
                    .context("a question cannot be written as JSON")?,
                request,
            ))
        };
        let both = |pair: &JudgePair| Order::BOTH.map(|o| pair.request(o, model, parameters));
        let all = pairs.iter().flat_map(both).map(keyed);
        Ok(Self {
            all: all.collect::<Result<_>>()?,
        })
    }

    /// How many there are, repeated ones included.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Those without a reply yet, each once, with their place for messages.
    pub(crate) fn open(&self, cache: &Cache) -> Vec<Question<'_>> {
        let mut seen = BTreeSet::new();
        let all = self.all.iter().enumerate();
        all.filter(|(_, (key, _))| cache.get(key).is_none() && seen.insert(key.as_str()))
            .map(|(at, (key, request))| Question {
                pair: at / 2 + 1,
                key,
                request,
            })
            .collect()
    }

    /// The verdicts, and how many replies broke off at their length limit. Every question must have its reply.
    pub(crate) fn verdicts(&self, cache: &Cache) -> Result<(Vec<PairVerdict>, usize)> {
        let reply = |key: &str| -> Result<&Reply> {
            cache
                .get(key)
                .with_context(|| format!("no reply for question {key}: run the command again"))
        };
        let mut cut = 0;
        let mut verdicts = Vec::with_capacity(self.all.len() / 2);
        for both in self.all.chunks_exact(2) {
            let (one, two) = (reply(&both[0].0)?, reply(&both[1].0)?);
            cut += usize::from(one.is_cut()) + usize::from(two.is_cut());
            verdicts.push(PairVerdict {
                base_first: read_choice(&one.text),
                adapted_first: read_choice(&two.text),
            });
        }
        Ok((verdicts, cut))
    }
}

/// A question that is still to be asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    /// The pair it is about, counted from 1.
    pub(crate) pair: usize,
    /// The key of its reply.
    pub(crate) key: &'a str,
    /// What to send.
    pub(crate) request: &'a JudgeRequest,
}
