//! What the visitor does, as requests. Each method changes the state and returns what is to be sent.

use crate::protocol::{AdapterSource, BaseSource, Message, Request};

use super::adapters::{GalleryState, MERGE_NAME};
use super::evaluate::Scored;
use super::pending::{Effect, ExportFor, Purpose, files_of};
use super::plan::Wanted;
use super::{Plan, State};
use crate::protocol::Prompt;

impl State {
    /// An effect that sends `request`, and its id.
    pub(super) fn send(&mut self, request: Request, purpose: Purpose) -> (u64, Effect) {
        let id = self.pending.open(purpose);
        let files = files_of(&request);
        let message = Box::new(Message { id, body: request });
        (id, Effect::Send { message, files })
    }

    /// Opens a device and follows `plan` from there.
    pub fn start(&mut self, plan: Plan) -> Vec<Effect> {
        self.plan = plan;
        let request = Request::Start {
            prefer: self.prefer,
            compute: None,
        };
        vec![self.send(request, Purpose::Start).1]
    }

    /// Loads a base in place of the present one.
    pub fn load_base(&mut self, source: BaseSource) -> Vec<Effect> {
        let mut effects = Vec::new();
        if let Some(id) = self.session.loading.take() {
            effects.extend(self.stop(id));
        }
        self.session.failure = None;
        self.session.progress = None;
        self.session.source = Some(source.clone());
        let (id, effect) = self.send(
            Request::LoadBase {
                source,
                options: Default::default(),
            },
            Purpose::Base,
        );
        self.session.loading = Some(id);
        effects.push(effect);
        effects
    }

    /// Adds an adapter under `name`, or a like name where that is taken.
    pub fn add_adapter(&mut self, name: &str, source: AdapterSource) -> Vec<Effect> {
        let name = self.adapters.free_name(name);
        self.adapters.failure = None;
        let request = Request::AddAdapter {
            name: name.clone(),
            source: source.clone(),
        };
        let (id, effect) = self.send(request, Purpose::Adapter { source });
        self.adapters.adding.push((id, name));
        vec![effect]
    }

    /// Forgets an adapter.
    pub fn remove_adapter(&mut self, name: &str) -> Vec<Effect> {
        let request = Request::RemoveAdapter {
            name: name.to_owned(),
        };
        vec![self.send(request, Purpose::Remove).1]
    }

    /// Takes what the site says of its gallery.
    pub fn set_gallery(&mut self, gallery: GalleryState) -> Vec<Effect> {
        self.adapters.gallery = gallery;
        self.advance()
    }

    /// Takes prompts to try; the first one fills an empty field.
    pub fn set_examples(&mut self, prompts: Vec<String>) -> Vec<Effect> {
        for prompt in prompts {
            if !self.compare.examples.contains(&prompt) {
                self.compare.examples.push(prompt);
            }
        }
        if let (true, Some(first)) = (
            self.compare.prompt.is_empty(),
            self.compare.examples.first(),
        ) {
            self.compare.prompt = first.clone();
        }
        self.advance()
    }

    /// Asks every model what stands in the prompt's field.
    pub fn ask(&mut self) -> Vec<Effect> {
        let Some(base) = self.session.base.as_ref().filter(|_| self.session.ready()) else {
            return Vec::new();
        };
        let Some((request, run)) = self.compare.ask(&self.adapters, base.classifier, base.chat)
        else {
            return Vec::new();
        };
        let (id, effect) = self.send(request, Purpose::Answers(run));
        self.plan.ask = false;
        self.compare.running = Some(id);
        vec![effect]
    }

    /// Asks the merge again what was asked last, since it has changed.
    pub(super) fn ask_merge_again(&mut self) -> Vec<Effect> {
        self.follow = false;
        let Some((classifier, chat)) = self.session.base.as_ref().map(|b| (b.classifier, b.chat))
        else {
            return Vec::new();
        };
        let run = match self.compare.merge {
            true => self.compare.again_for_merge(&self.adapters),
            false => None,
        };
        let Some((request, run)) =
            run.and_then(|r| Some((self.compare.request(&r, classifier, chat)?, r)))
        else {
            return Vec::new();
        };
        let (id, effect) = self.send(request, Purpose::Answers(run));
        self.compare.running = Some(id);
        vec![effect]
    }

    /// Ends a request at its next token, example or step.
    pub fn stop(&mut self, id: u64) -> Vec<Effect> {
        if self.pending.get(id).is_none() {
            return Vec::new();
        }
        // It has no answer of its own, so nothing is kept for it.
        let (own, effect) = self.send(Request::Stop { id }, Purpose::Other);
        self.pending.close(own);
        vec![effect]
    }

    /// Merges as chosen; what is under way is replaced once it is over.
    pub fn merge_now(&mut self) -> Vec<Effect> {
        self.merge.failure = None;
        if let Some(id) = self.merge.running {
            self.merge.stale = true;
            return self.stop(id);
        }
        self.merge.stale = false;
        let Some(request) = self.merge.request().filter(|_| self.session.ready()) else {
            return Vec::new();
        };
        let (id, effect) = self.send(request, Purpose::Merge);
        self.merge.running = Some(id);
        vec![effect]
    }

    /// Asks for an adapter's files, for the visitor.
    pub fn export(&mut self, name: &str) -> Vec<Effect> {
        self.export_for(name, ExportFor::Download)
    }

    pub(super) fn export_for(&mut self, name: &str, to: ExportFor) -> Vec<Effect> {
        let purpose = Purpose::Export {
            name: name.to_owned(),
            to,
        };
        vec![
            self.send(
                Request::Export {
                    name: name.to_owned(),
                },
                purpose,
            )
            .1,
        ]
    }

    /// Scores the planned columns on the chosen file.
    pub fn evaluate_now(&mut self) -> Vec<Effect> {
        if !self.session.ready() {
            return Vec::new();
        }
        let Some(request) = self.evaluate.start(&self.adapters) else {
            return Vec::new();
        };
        let (id, effect) = self.send(request, Purpose::Evaluate);
        self.evaluate.running = Some(id);
        vec![effect]
    }

    /// Scores every token of the text, under the models of the comparison.
    pub fn score_text(&mut self) -> Vec<Effect> {
        let ready = self.session.ready() && self.losses.running.is_none();
        if !ready || self.losses.text.is_empty() {
            return Vec::new();
        }
        let models = self.compare.models(&self.adapters);
        self.losses.columns = models
            .into_iter()
            .map(|m| Scored {
                label: m.label,
                column: m.column,
            })
            .collect();
        self.losses.tokens.clear();
        self.losses.failure = None;
        let request = Request::TokenLosses {
            prompt: Prompt::Text {
                text: self.losses.prompt.clone(),
            },
            text: self.losses.text.clone(),
            columns: self
                .losses
                .columns
                .iter()
                .map(|c| c.column.clone())
                .collect(),
        };
        let (id, effect) = self.send(request, Purpose::Losses);
        self.losses.running = Some(id);
        vec![effect]
    }

    /// Trains on the visitor's examples.
    pub fn train_now(&mut self) -> Vec<Effect> {
        let problem = self.train.problem(self.session.base.as_ref());
        if problem.is_some() || self.train.running.is_some() || !self.session.ready() {
            return Vec::new();
        }
        let name = self.adapters.free_name(&self.train.name);
        let request = self.train.start(name);
        let (id, effect) = self.send(request, Purpose::Train);
        self.train.running = Some(id);
        vec![effect]
    }

    /// Empties the storage of downloaded bases.
    pub fn clear_cache(&mut self) -> Vec<Effect> {
        vec![self.send(Request::ClearCache, Purpose::Clear).1]
    }

    /// What a new worker is to be told: the device, then the base and the adapters there were.
    pub fn replay(&mut self) -> Vec<Effect> {
        let waiting = std::mem::take(&mut self.plan.adapters);
        let mut adapters = Vec::new();
        for resident in std::mem::take(&mut self.adapters.resident) {
            let name = resident.info.name;
            match resident.source {
                Some(source) => adapters.push(Wanted::Source { name, source }),
                None if name == MERGE_NAME => {}
                None => {
                    let text =
                        format!("The adapter {name:?} was lost with the worker; make it again.");
                    self.session.note(&text);
                }
            }
        }
        adapters.extend(waiting);
        let plan = Plan {
            base: self.session.source.clone(),
            adapters,
            merge: self.merge.result.is_some() || self.plan.merge,
            ..self.plan.clone()
        };
        self.session.base = None;
        self.session.device = None;
        self.session.loading = None;
        self.start(plan)
    }

    /// Starts the worker again because the visitor asks for it.
    pub fn restart(&mut self, prefer: Option<crate::protocol::DeviceKind>) -> Vec<Effect> {
        self.prefer = prefer;
        self.session.restarts = 0;
        self.session.broken = false;
        self.session.failure = None;
        self.session.restarting = Some("The worker is started again.".to_owned());
        self.end_all("the worker was started again");
        vec![Effect::Restart]
    }
}
