//! The corpus behind the embedded default: seeded, varied, short English, and the two tasks of the demo.
//!
//! Why a generator: the repository then holds everything the embedded base was made from, anyone can rebuild it, and the
//! split is provable (`heldout`). Frames and facts lie in `grammar/*.txt`; `grammar` expands them, `draft` draws sentences
//! until they suit the split, the files named after a kind of text put sentences together, `files` writes JSONL.
//!
//! Pretraining text teaches what sentiments lead to, facts, stories and plain chat turns. It never shows the sentiment
//! question, its labels as moods, or the manner of the instruction responses: those are left to fine-tuning.

mod chats;
mod dice;
mod draft;
mod files;
mod grammar;
pub(crate) mod heldout;
mod instructions;
mod questions;
mod reviews;
#[cfg(test)]
mod tests;
pub(crate) mod tokenizer;

use std::collections::HashSet;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use dice::Dice;
use draft::{Draft, Setback};
use grammar::Grammar;

pub(crate) use files::{Sizes, jsonl, write};
pub(crate) use heldout::Split;
pub(crate) use instructions::Instruction;
pub(crate) use reviews::Sentiment;

/// Fresh starts per text before the grammar is called too narrow.
const TEXT_DRAWS: usize = 500;

/// A kind of pretraining text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// A little story.
    Story,
    /// A review or message with a sentiment and what follows from it.
    Review,
    /// Questions with answers, or a paragraph of facts.
    Question,
    /// A chat of two to six turns in the chat template.
    Chat,
    /// Words and their meanings.
    Glossary,
}

impl Kind {
    /// Every kind with its share of the pretraining text, in percent.
    pub(crate) const SHARES: [(Self, usize); 5] = [
        (Self::Story, 24),
        (Self::Review, 27),
        (Self::Question, 18),
        (Self::Chat, 27),
        (Self::Glossary, 4),
    ];
}

/// A text to pretrain on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Document {
    /// The text; chats hold the markers of the template.
    pub(crate) text: String,
}

/// A text of the sentiment task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Labelled {
    /// One to four sentences.
    pub(crate) text: String,
    /// "negative", "neutral" or "positive".
    pub(crate) label: String,
}

/// `count` different documents of one kind. A shorter draw is the beginning of a longer one.
///
/// # Errors
/// When the grammar is broken or too narrow for so many texts.
pub(crate) fn generate(seed: u64, kind: Kind, split: Split, count: usize) -> Result<Vec<Document>> {
    let mut source = Source::new(seed, kind as u64, split)?;
    let texts = (0..count).map(|_| {
        source.draw(|draft| match kind {
            Kind::Story => story(draft),
            Kind::Review => reviews::review(draft),
            Kind::Question => questions::page(draft),
            Kind::Chat => chats::chat(draft),
            Kind::Glossary => chats::glossary(draft),
        })
    });
    texts.map(|text| Ok(Document { text: text? })).collect()
}

/// `count` documents of all kinds in the shares of [`Kind::SHARES`], shuffled.
///
/// # Errors
/// As [`generate`].
pub(crate) fn pretraining(seed: u64, split: Split, count: usize) -> Result<Vec<Document>> {
    let mut documents = Vec::with_capacity(count);
    let mut percent = 0;
    for (kind, share) in Kind::SHARES {
        percent += share;
        let missing = (count * percent / 100).saturating_sub(documents.len());
        documents.extend(generate(seed, kind, split, missing)?);
    }
    Dice::new(seed, 99).shuffle(&mut documents);
    Ok(documents)
}

/// `count` texts of the sentiment task, the three labels dealt in turn and then shuffled.
///
/// # Errors
/// As [`generate`].
pub(crate) fn sentiment(seed: u64, split: Split, count: usize) -> Result<Vec<Labelled>> {
    let mut source = Source::new(seed, 10, split)?;
    let mut rows = Vec::with_capacity(count);
    for index in 0..count {
        let sentiment = Sentiment::ALL[index % 3];
        let text = source.draw(|draft| reviews::task_text(draft, sentiment))?;
        let label = sentiment.label().to_owned();
        rows.push(Labelled { text, label });
    }
    Dice::new(seed, 98).shuffle(&mut rows);
    Ok(rows)
}

/// `count` instructions with responses, the categories dealt in turn and then shuffled.
///
/// # Errors
/// As [`generate`].
pub(crate) fn instructions(seed: u64, split: Split, count: usize) -> Result<Vec<Instruction>> {
    let mut source = Source::new(seed, 11, split)?;
    let mut rows = Vec::with_capacity(count);
    for index in 0..count {
        let category = instructions::CATEGORIES[index % instructions::CATEGORIES.len()];
        let mut row = None;
        source.draw(|draft| {
            let drawn = instructions::instruction(draft, category)?;
            let text = format!(
                "{}\n{}\n{}",
                drawn.instruction,
                drawn.context.as_deref().unwrap_or_default(),
                drawn.response
            );
            row = Some(drawn);
            Ok(text)
        })?;
        rows.extend(row);
    }
    Dice::new(seed, 97).shuffle(&mut rows);
    Ok(rows)
}

fn story(draft: &mut Draft<'_>) -> Result<String, Setback> {
    draft.fix_cast()?;
    let plot = draft.expand("{plot}")?;
    let mut parts = Vec::new();
    for rule in plot.split(' ') {
        parts.push(draft.sentence(rule)?);
    }
    Ok(parts.join(" "))
}

/// Draws texts of one kind for one split, each only once.
struct Source {
    grammar: Grammar,
    dice: Dice,
    split: Split,
    seen: HashSet<String>,
}

impl Source {
    fn new(seed: u64, stream: u64, split: Split) -> Result<Self> {
        let grammar = Grammar::embedded()?;
        let dice = Dice::new(seed, stream * 2 + u64::from(split == Split::HeldOut));
        let seen = HashSet::new();
        Ok(Self {
            grammar,
            dice,
            split,
            seen,
        })
    }

    /// Starts afresh until a new text comes about whose every sentence suits the split.
    fn draw(
        &mut self,
        mut write: impl FnMut(&mut Draft<'_>) -> Result<String, Setback>,
    ) -> Result<String> {
        let mut dry = String::from("(every text came twice)");
        for _ in 0..TEXT_DRAWS {
            let mut draft = Draft::new(&self.grammar, &mut self.dice, self.split);
            match write(&mut draft) {
                Ok(text) => {
                    if self.split.admits_text(&text) && self.seen.insert(text.clone()) {
                        return Ok(text);
                    }
                }
                Err(Setback::Exhausted { rule }) => dry = rule,
                Err(Setback::Grammar(error)) => return Err(error.into()),
            }
        }
        let drawn = self.seen.len();
        bail!(
            "the grammar gives no further text after {drawn}; widen rule `{dry}` or ask for fewer"
        )
    }
}
