//! What events change.

use crate::protocol::{
    AdapterInfo, AdapterSource, BaseInfo, Event, Failure, FailureKind, FileRef, Message,
};

use super::adapters::MERGE_NAME;
use super::compare::{Run, Standing};
use super::pending::{Effect, ExportFor, Purpose};
use super::session::Progress;
use super::train::Step;
use super::{Outcome, Section, State};

impl State {
    /// Takes an event of the worker. Events of requests that are over are passed over.
    pub fn apply(&mut self, message: Message<Event>) -> Outcome {
        let Message { id, body: event } = message;
        if id == 0 {
            return self.unasked(event);
        }
        if !event.is_final() {
            return match self.pending.get(id).cloned() {
                Some(purpose) => self.going_on(id, &purpose, event),
                None => Outcome::default(),
            };
        }
        match self.pending.close(id) {
            Some(purpose) => self.ended(id, purpose, event),
            None => Outcome::default(),
        }
    }

    fn unasked(&mut self, event: Event) -> Outcome {
        match event {
            Event::Note { text } => self.session.note(&text),
            Event::Failed { failure } if is_fatal(&failure) => return self.fatal(&failure),
            Event::Failed { failure } => self.session.failure = Some(failure),
            _ => return Outcome::default(),
        }
        Outcome::of(Section::Session)
    }

    fn fatal(&mut self, failure: &Failure) -> Outcome {
        Outcome {
            effects: self.worker_failed(failure),
            touched: Section::ALL.to_vec(),
        }
    }

    fn going_on(&mut self, id: u64, purpose: &Purpose, event: Event) -> Outcome {
        match (purpose, event) {
            (_, Event::Note { text }) => {
                self.session.note(&text);
                Outcome::of(Section::Session)
            }
            (
                Purpose::Base,
                Event::Progress {
                    stage,
                    done,
                    total,
                    rate,
                },
            ) => {
                if self.session.loading == Some(id) {
                    self.session.progress = Some(Progress {
                        stage,
                        done,
                        total,
                        rate,
                    });
                }
                Outcome::of(Section::Session)
            }
            (Purpose::Answers(run), event) => {
                self.answering(run, event);
                Outcome::of(Section::Compare)
            }
            (
                Purpose::Evaluate,
                Event::EvalProgress {
                    column,
                    done,
                    total,
                },
            ) => {
                self.evaluate.progress = Some((column, done, total));
                Outcome::of(Section::Evaluate)
            }
            (Purpose::Evaluate, Event::EvalRows { rows }) => {
                self.evaluate.rows.extend(rows);
                Outcome::of(Section::Evaluate)
            }
            (
                Purpose::Train,
                Event::TrainStep {
                    step,
                    total,
                    loss,
                    lr,
                    grad_norm,
                    tokens_per_s,
                },
            ) => {
                self.train.total = total;
                self.train.steps.push(Step {
                    step,
                    loss,
                    lr,
                    grad_norm,
                    tokens_per_s,
                });
                Outcome::of(Section::Train)
            }
            _ => Outcome::default(),
        }
    }

    fn answering(&mut self, run: &Run, event: Event) {
        match event {
            Event::Text { column, text } => {
                if let Some(answer) = self.compare.answer(run, column) {
                    answer.text.push_str(&text);
                    answer.standing = Standing::Streaming;
                }
            }
            Event::ColumnDone {
                column,
                finish,
                tokens,
                first_token_ms,
                tokens_per_s,
                ..
            } => {
                if let Some(answer) = self.compare.answer(run, column) {
                    answer.standing = Standing::Done(finish);
                    answer.tokens = tokens;
                    answer.first_token_ms = first_token_ms;
                    answer.tokens_per_s = tokens_per_s;
                }
            }
            _ => {}
        }
    }

    fn ended(&mut self, id: u64, purpose: Purpose, event: Event) -> Outcome {
        match (purpose, event) {
            (_, Event::Failed { failure }) if is_fatal(&failure) => self.fatal(&failure),
            (purpose, Event::Failed { failure }) => self.ended_badly(id, purpose, Some(failure)),
            (purpose, Event::Stopped) => self.ended_badly(id, purpose, None),
            (purpose, event) => {
                // Something was finished: the worker works.
                if !matches!(purpose, Purpose::Start) {
                    self.session.restarts = 0;
                }
                self.answered(id, purpose, event)
            }
        }
    }

    fn ended_badly(&mut self, id: u64, purpose: Purpose, failure: Option<Failure>) -> Outcome {
        let adding = matches!(purpose, Purpose::Adapter { .. });
        let section = self.end(id, purpose, failure);
        let mut outcome = Outcome::of(section);
        match section {
            Section::Merge if self.merge.stale => outcome.effects = self.merge_now(),
            Section::Compare if self.follow => outcome.effects = self.ask_merge_again(),
            Section::Adapters if adding => {
                outcome.effects = self.advance();
                outcome.touched.extend([Section::Compare, Section::Merge]);
            }
            _ => {}
        }
        outcome
    }

    fn answered(&mut self, id: u64, purpose: Purpose, event: Event) -> Outcome {
        match (purpose, event) {
            (_, Event::Ready { device }) => {
                self.session.device = Some(device);
                self.session.restarting = None;
                self.session.broken = false;
                Outcome::of(Section::Session).and(self.advance())
            }
            (_, Event::BaseLoaded { base, dropped }) => self.base_loaded(id, base, &dropped),
            (Purpose::Adapter { source }, Event::AdapterAdded { adapter }) => {
                self.adapters.finished(id);
                self.added(adapter, Some(source))
            }
            (Purpose::Train, Event::AdapterAdded { adapter }) => {
                self.train.running = None;
                self.train.result = Some(adapter.name.clone());
                let name = adapter.name.clone();
                let keep = self.export_for(&name, ExportFor::Keep);
                self.added(adapter, None).with(Section::Train).and(keep)
            }
            (_, Event::AdapterRemoved { name }) => self.removed(&name),
            (_, Event::Merged { adapter, merge }) => {
                self.merge.running = None;
                self.merge.failure = None;
                self.merge.result = Some(merge);
                self.adapters.insert(adapter, None);
                self.after_merge()
            }
            (Purpose::Export { name, to }, Event::Exported { file }) => {
                self.exported(&name, to, file)
            }
            (Purpose::Answers(run), event) => self.answers_done(&run, event),
            (_, Event::TokenLosses { columns }) => {
                self.losses.running = None;
                self.losses.tokens = columns;
                Outcome::of(Section::Losses)
            }
            (
                _,
                Event::Evaluated {
                    columns,
                    paired,
                    notes,
                },
            ) => {
                self.evaluate.running = None;
                self.evaluate.progress = None;
                self.evaluate.scores = columns;
                self.evaluate.paired = paired;
                self.evaluate.notes = notes;
                Outcome::of(Section::Evaluate)
            }
            (_, Event::Cleared { bytes }) => {
                let freed = super::numbers::bytes(bytes);
                self.session
                    .note(&format!("Stored bases were removed: {freed} freed."));
                Outcome::of(Section::Session)
            }
            _ => Outcome::default(),
        }
    }

    fn base_loaded(&mut self, id: u64, base: BaseInfo, dropped: &[String]) -> Outcome {
        if self.session.loading == Some(id) {
            self.session.loading = None;
            self.session.progress = None;
        }
        for name in dropped {
            self.forget(name);
        }
        if !dropped.is_empty() {
            let names = dropped.join(", ");
            self.session.note(&format!(
                "These adapters are for another base and were dropped: {names}."
            ));
        }
        // Answers of the same base stay, as when a worker was started again.
        if self.compare.of.as_ref() != Some(&(base.name.clone(), base.fingerprint.clone())) {
            self.compare.exchanges.clear();
            self.compare.of = Some((base.name.clone(), base.fingerprint.clone()));
        }
        self.train.suit(&base);
        self.session.base = Some(base);
        let effects = self.advance();
        Outcome {
            touched: Section::ALL.to_vec(),
            effects,
        }
    }

    fn added(&mut self, adapter: AdapterInfo, source: Option<AdapterSource>) -> Outcome {
        let name = adapter.name.clone();
        self.adapters.insert(adapter, source);
        self.compare.place(&name);
        let touched = vec![
            Section::Adapters,
            Section::Compare,
            Section::Merge,
            Section::Evaluate,
        ];
        let effects = self.advance();
        Outcome { touched, effects }
    }

    fn removed(&mut self, name: &str) -> Outcome {
        self.forget(name);
        let effects = match self.merge.stale && self.merge.result.is_some() {
            true => self.merge_now(),
            false => Vec::new(),
        };
        Outcome {
            touched: Section::ALL.to_vec(),
            effects,
        }
    }

    fn forget(&mut self, name: &str) {
        self.adapters.remove(name);
        self.compare.forget(name);
        self.merge.forget(name);
        if name == MERGE_NAME {
            self.merge.result = None;
        }
    }

    /// The merge is there: made again where something changed meanwhile, else its answer follows.
    fn after_merge(&mut self) -> Outcome {
        let mut outcome = Outcome::of(Section::Merge)
            .with(Section::Adapters)
            .with(Section::Compare)
            .with(Section::Evaluate);
        if self.merge.stale {
            outcome.effects = self.merge_now();
            return outcome;
        }
        outcome.effects = match self.compare.running {
            None => self.ask_merge_again(),
            Some(id) => {
                self.follow = true;
                // Only an answer of the merge alone is stale; a whole comparison is let through first.
                match self.pending.get(id) {
                    Some(Purpose::Answers(run)) if run.answers.len() == 1 => self.stop(id),
                    _ => Vec::new(),
                }
            }
        };
        outcome
    }

    fn exported(&mut self, name: &str, to: ExportFor, file: String) -> Outcome {
        let mut outcome = Outcome::of(Section::Adapters);
        outcome.effects = match to {
            ExportFor::Download => vec![Effect::Save { file }],
            ExportFor::Keep => {
                let kept = self
                    .adapters
                    .resident
                    .iter_mut()
                    .find(|r| r.info.name == name);
                if let Some(kept) = kept {
                    let files = vec![FileRef {
                        name: file,
                        attachment: 0,
                    }];
                    kept.source = Some(AdapterSource::Files { files });
                }
                vec![Effect::Keep {
                    name: name.to_owned(),
                }]
            }
        };
        outcome
    }

    fn answers_done(&mut self, run: &Run, event: Event) -> Outcome {
        if let Event::Classified {
            labels,
            probabilities,
        } = event
        {
            for (column, probabilities) in probabilities.into_iter().enumerate() {
                if let Some(answer) = self.compare.answer(run, column) {
                    answer.probabilities = probabilities;
                    answer.standing = Standing::Done(crate::protocol::Finish::EndToken);
                }
            }
            if let Some(exchange) = self.compare.exchanges.get_mut(run.exchange) {
                exchange.labels = labels;
            }
        }
        self.compare.running = None;
        let effects = match self.follow {
            true => self.ask_merge_again(),
            false => Vec::new(),
        };
        Outcome::of(Section::Compare).and(effects)
    }
}

fn is_fatal(failure: &Failure) -> bool {
    matches!(failure.kind, FailureKind::Device | FailureKind::Internal)
}

impl Outcome {
    fn of(section: Section) -> Self {
        Self {
            touched: vec![section],
            effects: Vec::new(),
        }
    }

    fn with(mut self, section: Section) -> Self {
        self.touched.push(section);
        self
    }

    /// Effects may have started things in any section.
    fn and(mut self, effects: Vec<Effect>) -> Self {
        if !effects.is_empty() {
            self.touched = Section::ALL.to_vec();
        }
        self.effects.extend(effects);
        self
    }
}
