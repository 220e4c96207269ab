//! The comparison: which models, what was asked, what each answered.

use qloom_core::generation::SamplingConfig;

use crate::protocol::{Column, Failure, Finish, Prompt, Request, Turn};

use super::adapters::{Adapters, MERGE_NAME};

/// A place for a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    /// The base alone.
    Base,
    /// The base with the first adapter.
    A,
    /// The base with the second adapter.
    B,
    /// The base with both.
    Stacked,
    /// The base with the merge.
    Merge,
}

/// A model that is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// Its place.
    pub slot: Slot,
    /// What it is called.
    pub label: String,
    /// Its adapters.
    pub column: Column,
}

/// How an answer stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Standing {
    /// Nothing has come.
    #[default]
    Waiting,
    /// It is being written.
    Streaming,
    /// It is complete.
    Done(Finish),
    /// The visitor stopped it.
    Stopped,
    /// It failed; the exchange says why.
    Failed,
}

/// What a model answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Which model.
    pub model: Model,
    /// Its text so far.
    pub text: String,
    /// Its class probabilities, for classifiers.
    pub probabilities: Vec<f64>,
    /// How it stands.
    pub standing: Standing,
    /// New tokens.
    pub tokens: usize,
    /// Until the first token.
    pub first_token_ms: f64,
    /// After it.
    pub tokens_per_s: f64,
}

/// A question and its answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exchange {
    /// What was asked.
    pub prompt: String,
    /// The second of a pair.
    pub pair: Option<String>,
    /// One per model.
    pub answers: Vec<Answer>,
    /// The classes, for classifiers.
    pub labels: Vec<String>,
    /// Why it failed.
    pub failure: Option<Failure>,
}

/// Which answers a request is for: its column `i` is answer `answers[i]` of `exchange`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Index of the exchange.
    pub exchange: usize,
    /// Indices of its answers.
    pub answers: Vec<usize>,
}

/// The section's state.
#[derive(Clone, Debug, PartialEq)]
pub struct Compare {
    /// Whether the base is shown.
    pub base: bool,
    /// The first adapter.
    pub a: Option<String>,
    /// The second adapter.
    pub b: Option<String>,
    /// Whether both are also shown stacked.
    pub stacked: bool,
    /// Whether the merge is shown, where there is one.
    pub merge: bool,
    /// What is asked next.
    pub prompt: String,
    /// The second text of a pair.
    pub pair: String,
    /// A system turn before everything.
    pub system: String,
    /// Whether the base's chat template is used, where it has one.
    pub chat: bool,
    /// How to sample.
    pub sampling: SamplingConfig,
    /// What was asked and answered, oldest first.
    pub exchanges: Vec<Exchange>,
    /// Name and fingerprint of the base that answered.
    pub of: Option<(String, Option<String>)>,
    /// The request that is under way.
    pub running: Option<u64>,
    /// Prompts to try.
    pub examples: Vec<String>,
}

impl Default for Compare {
    fn default() -> Self {
        Self {
            base: true,
            a: None,
            b: None,
            stacked: false,
            merge: true,
            prompt: String::new(),
            pair: String::new(),
            system: String::new(),
            chat: true,
            sampling: SamplingConfig {
                max_new_tokens: 64,
                ..SamplingConfig::default()
            },
            exchanges: Vec::new(),
            of: None,
            running: None,
            examples: Vec::new(),
        }
    }
}

impl Answer {
    /// An answer of which nothing has come.
    #[must_use]
    pub fn of(model: Model) -> Self {
        Self {
            model,
            text: String::new(),
            probabilities: Vec::new(),
            standing: Standing::Waiting,
            tokens: 0,
            first_token_ms: 0.0,
            tokens_per_s: 0.0,
        }
    }

    /// Whether nothing more will come.
    #[must_use]
    pub fn over(&self) -> bool {
        !matches!(self.standing, Standing::Waiting | Standing::Streaming)
    }
}

impl Compare {
    /// The models to ask, in the order of their columns.
    #[must_use]
    pub fn models(&self, adapters: &Adapters) -> Vec<Model> {
        let there = |name: &Option<String>| name.clone().filter(|n| adapters.get(n).is_some());
        let (a, b) = (there(&self.a), there(&self.b));
        let model = |slot, label: &str, names: &[&String]| Model {
            slot,
            label: label.to_owned(),
            column: Column {
                adapters: names.iter().map(|n| (*n).clone()).collect(),
            },
        };
        let mut models = Vec::new();
        if self.base {
            models.push(model(Slot::Base, "Base", &[]));
        }
        if let Some(a) = &a {
            models.push(model(Slot::A, a, &[a]));
        }
        if let Some(b) = &b {
            models.push(model(Slot::B, b, &[b]));
        }
        if let (true, Some(a), Some(b)) = (self.stacked && a != b, &a, &b) {
            models.push(model(Slot::Stacked, &format!("{a} + {b}"), &[a, b]));
        }
        if self.merge && adapters.merged() {
            models.push(model(Slot::Merge, "Merge", &[&MERGE_NAME.to_owned()]));
        }
        models
    }

    /// A new exchange for the prompt in the field, and the request for it; `None` where there is nothing to ask or to ask.
    pub(super) fn ask(
        &mut self,
        adapters: &Adapters,
        classifier: bool,
        chat: bool,
    ) -> Option<(Request, Run)> {
        let models = self.models(adapters);
        if models.is_empty() || self.prompt.trim().is_empty() || self.running.is_some() {
            return None;
        }
        let pair = (classifier && !self.pair.is_empty()).then(|| self.pair.clone());
        if classifier || !(chat && self.chat) {
            self.exchanges.clear();
        }
        self.exchanges.push(Exchange {
            prompt: self.prompt.clone(),
            pair,
            answers: models.into_iter().map(Answer::of).collect(),
            ..Exchange::default()
        });
        let exchange = self.exchanges.len() - 1;
        let answers = (0..self.exchanges[exchange].answers.len()).collect();
        let run = Run { exchange, answers };
        Some((self.request(&run, classifier, chat)?, run))
    }

    /// The request for some answers of an exchange that is there.
    pub(super) fn request(&self, run: &Run, classifier: bool, chat: bool) -> Option<Request> {
        let exchange = self.exchanges.get(run.exchange)?;
        let answers: Vec<&Answer> = run
            .answers
            .iter()
            .filter_map(|i| exchange.answers.get(*i))
            .collect();
        let columns = answers.iter().map(|a| a.model.column.clone()).collect();
        if classifier {
            return Some(Request::Classify {
                text: exchange.prompt.clone(),
                pair: exchange.pair.clone(),
                columns,
            });
        }
        let chat = chat && self.chat;
        Some(Request::Generate {
            prompt: match chat {
                true => Prompt::Chat {
                    turns: vec![turn("user", &exchange.prompt)],
                },
                false => Prompt::Text {
                    text: exchange.prompt.clone(),
                },
            },
            columns,
            sampling: self.sampling.clone(),
            histories: match chat {
                true => self.histories(run.exchange, &answers),
                false => Vec::new(),
            },
        })
    }

    /// What each model was asked and answered before `exchange`; a model that joined later has only what it saw. Empty
    /// where no model has a history.
    fn histories(&self, exchange: usize, answers: &[&Answer]) -> Vec<Vec<Turn>> {
        let of = |answer: &&Answer| {
            let mut turns = Vec::new();
            if !self.system.trim().is_empty() {
                turns.push(turn("system", self.system.trim()));
            }
            for earlier in &self.exchanges[..exchange] {
                let said = earlier.answers.iter().find(|a| a.model == answer.model);
                if let Some(said) =
                    said.filter(|a| matches!(a.standing, Standing::Done(_) | Standing::Stopped))
                {
                    turns.push(turn("user", &earlier.prompt));
                    turns.push(turn("assistant", &said.text));
                }
            }
            turns
        };
        let histories: Vec<Vec<Turn>> = answers.iter().map(of).collect();
        match histories.iter().all(Vec::is_empty) {
            true => Vec::new(),
            false => histories,
        }
    }

    /// Empties the merge's answer to the last question, or gives it a place, so that it can be asked again.
    pub(super) fn again_for_merge(&mut self, adapters: &Adapters) -> Option<Run> {
        let model = self
            .models(adapters)
            .into_iter()
            .find(|m| m.slot == Slot::Merge)?;
        let exchange = self.exchanges.len().checked_sub(1)?;
        let answers = &mut self.exchanges[exchange].answers;
        // A question that failed for the others is asked again as a whole, by the visitor.
        if answers
            .iter()
            .any(|a| a.model.slot != Slot::Merge && a.standing == Standing::Failed)
        {
            return None;
        }
        let at = match answers.iter().position(|a| a.model.slot == Slot::Merge) {
            Some(at) => at,
            None => {
                answers.push(Answer::of(model.clone()));
                answers.len() - 1
            }
        };
        answers[at] = Answer::of(model);
        self.exchanges[exchange].failure = None;
        Some(Run {
            exchange,
            answers: vec![at],
        })
    }

    pub(super) fn answer(&mut self, run: &Run, column: usize) -> Option<&mut Answer> {
        let at = *run.answers.get(column)?;
        self.exchanges.get_mut(run.exchange)?.answers.get_mut(at)
    }

    /// Ends what is still open of `run`.
    pub(super) fn end(&mut self, run: &Run, failure: Option<Failure>) {
        let standing = if failure.is_some() {
            Standing::Failed
        } else {
            Standing::Stopped
        };
        for column in 0..run.answers.len() {
            if let Some(answer) = self.answer(run, column).filter(|a| !a.over()) {
                answer.standing = standing.clone();
            }
        }
        if let Some(exchange) = self.exchanges.get_mut(run.exchange) {
            exchange.failure = failure.or(exchange.failure.take());
        }
        self.running = None;
    }

    /// Forgets adapters that are gone.
    pub(super) fn forget(&mut self, name: &str) {
        for slot in [&mut self.a, &mut self.b] {
            if slot.as_deref() == Some(name) {
                *slot = None;
            }
        }
    }

    /// Puts a new adapter into the first free place.
    pub(super) fn place(&mut self, name: &str) {
        if name == MERGE_NAME
            || [&self.a, &self.b]
                .into_iter()
                .any(|s| s.as_deref() == Some(name))
        {
            return;
        }
        let free = [&mut self.a, &mut self.b]
            .into_iter()
            .find(|slot| slot.is_none());
        if let Some(slot) = free {
            *slot = Some(name.to_owned());
        }
    }
}

fn turn(role: &str, content: &str) -> Turn {
    Turn {
        role: role.to_owned(),
        content: content.to_owned(),
    }
}
