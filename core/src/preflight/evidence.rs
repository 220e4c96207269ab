//! What the checks look at, and what several of them derive from it.

use std::collections::BTreeMap;

use crate::data::{DataConfig, DataReport, Example, Format, IGNORE, PromptStyle};
use crate::tokenizer::{ChatTemplate, Tokenizer};

/// Most different answers that still look like a set of labels.
const MOST_LABELS: usize = 32;
/// Examples whose text is looked at.
pub(super) const TEXTS: usize = 200;

/// What is about to be trained.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// The base's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// The `[data]` table.
    pub data: &'a DataConfig,
    /// Training examples.
    pub train: &'a [Example],
    /// Held-out examples.
    pub held_out: &'a [Example],
    /// What encoding the training examples found.
    pub report: &'a DataReport,
    /// And the held-out ones.
    pub held_out_report: Option<&'a DataReport>,
    /// Whether text is generated (`false`: an encoder with a classifier head).
    pub generates: bool,
    /// Ids at which generation stops.
    pub end_ids: &'a [u32],
    /// The chat template recorded with the adapter the run starts from.
    pub adapter_template: Option<&'a str>,
    /// Settings of the learning rate.
    pub learning_rate: LearningRate,
}

/// What decides whether a learning rate is usual.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LearningRate {
    /// Peak learning rate.
    pub lr: f64,
    /// Width of the model.
    pub hidden_size: usize,
    /// Whether whole weights are trained rather than low-rank factors.
    pub full: bool,
}

impl Evidence<'_> {
    /// The rows' format.
    pub(super) fn format(&self) -> Format {
        self.report.format
    }

    /// The chat template rows are rendered with; `None` where they become plain text.
    pub(super) fn template(&self) -> Option<ChatTemplate> {
        let conversation = matches!(self.format(), Format::Messages | Format::Sharegpt);
        let single = !matches!(self.format(), Format::Text | Format::Tokens);
        let chat = matches!(
            self.data.prompt_style,
            PromptStyle::Auto | PromptStyle::Chat
        );
        if !self.generates || !(conversation || single && chat) {
            return None;
        }
        match &self.data.chat_template {
            Some(source) => ChatTemplate::new(
                source,
                self.tokenizer.bos_token(),
                self.tokenizer.eos_token(),
            )
            .ok(),
            None => self.tokenizer.chat_template().ok().flatten(),
        }
    }

    /// The answers as labels: text, its ids without the end token, and how many examples have it. Empty where the
    /// answers are not a set of labels.
    pub(super) fn answers(&self, examples: &[Example]) -> Vec<Answer> {
        if !self.generates || self.format() == Format::Tokens {
            return Vec::new();
        }
        let mut counts: BTreeMap<Vec<u32>, usize> = BTreeMap::new();
        for example in examples {
            *counts.entry(self.answer_ids(example)).or_default() += 1;
            if counts.len() > MOST_LABELS {
                return Vec::new();
            }
        }
        let few = counts.len() * 4 <= examples.len();
        if counts.len() < 2 && self.format() != Format::Classification || !few {
            return Vec::new();
        }
        let text = |ids: &[u32]| self.tokenizer.decode(ids, true).unwrap_or_default();
        counts
            .into_iter()
            .map(|(ids, count)| Answer {
                text: text(&ids).trim().to_owned(),
                ids,
                count,
            })
            .collect()
    }

    /// Trained ids up to the first end token.
    fn answer_ids(&self, example: &Example) -> Vec<u32> {
        let trained = example.labels.iter().filter(|&&label| label != IGNORE);
        trained
            .map(|&label| label as u32)
            .take_while(|id| !self.end_ids.contains(id) && !self.tokenizer.is_special(*id))
            .collect()
    }
}

/// A label as it is trained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) ids: Vec<u32>,
    pub(super) count: usize,
}

/// `"a", "b" and 3 more`.
pub(super) fn listed(texts: &[String]) -> String {
    const SHOWN: usize = 6;
    let quoted: Vec<String> = texts.iter().take(SHOWN).map(|t| format!("{t:?}")).collect();
    match texts.len().saturating_sub(SHOWN) {
        0 => quoted.join(", "),
        more => format!("{} and {more} more", quoted.join(", ")),
    }
}

/// `12.5 %`.
pub(super) fn percent(part: usize, whole: usize) -> String {
    format!("{:.1} %", 100.0 * part as f64 / whole.max(1) as f64)
}
