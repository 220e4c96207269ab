//! How requests end that did not get their answer: stopped, failed, or lost with the worker.

use crate::protocol::{Failure, FailureKind};

use super::pending::{Effect, Purpose};
use super::session::MOST_RESTARTS;
use super::{Section, State};

impl State {
    /// Ends one request, stopped where there is no failure. Says which section it belonged to.
    pub(super) fn end(&mut self, id: u64, purpose: Purpose, failure: Option<Failure>) -> Section {
        match purpose {
            Purpose::Start | Purpose::Clear | Purpose::Remove | Purpose::Other => {
                self.session.failure = failure.or(self.session.failure.take());
                Section::Session
            }
            Purpose::Base => {
                self.end_base(id, failure);
                Section::Session
            }
            Purpose::Adapter { .. } => {
                let name = self.adapters.finished(id);
                if let (Some(name), Some(failure)) = (name, failure) {
                    self.adapters.failure = Some((name, failure));
                }
                Section::Adapters
            }
            Purpose::Merge => {
                self.merge.running = None;
                self.merge.failure = failure;
                Section::Merge
            }
            Purpose::Export { name, .. } => {
                self.adapters.failure = failure.map(|f| (name, f)).or(self.adapters.failure.take());
                Section::Adapters
            }
            Purpose::Answers(run) => {
                self.compare.end(&run, failure);
                Section::Compare
            }
            Purpose::Losses => {
                self.losses.running = None;
                self.losses.failure = failure;
                Section::Losses
            }
            Purpose::Evaluate => {
                self.evaluate.running = None;
                self.evaluate.stopped = failure.is_none();
                self.evaluate.failure = failure;
                Section::Evaluate
            }
            Purpose::Train => {
                self.train.running = None;
                self.train.stopped = failure.is_none();
                self.train.failure = failure;
                Section::Train
            }
        }
    }

    /// A base that was replaced by another while it was loading says nothing any more.
    fn end_base(&mut self, id: u64, failure: Option<Failure>) {
        if self.session.loading != Some(id) {
            return;
        }
        self.session.loading = None;
        self.session.progress = None;
        self.session.failure = failure;
    }

    /// Ends everything, since the worker is gone.
    pub(super) fn end_all(&mut self, why: &str) {
        for (id, purpose) in self.pending.close_all() {
            let failure = Failure {
                kind: FailureKind::Device,
                message: format!("This was interrupted: {why}."),
            };
            let waits = matches!(
                purpose,
                Purpose::Start | Purpose::Base | Purpose::Adapter { .. }
            );
            self.end(id, purpose, (!waits).then_some(failure));
        }
        self.merge.stale = false;
        self.follow = false;
    }

    /// Restarts the worker, unless that has been tried too often without anything coming of it.
    pub(super) fn worker_failed(&mut self, failure: &Failure) -> Vec<Effect> {
        let wanted: Vec<super::Wanted> = self.adding();
        self.end_all("the worker had to be started again");
        self.session.restarts += 1;
        if self.session.restarts > MOST_RESTARTS {
            self.session.broken = true;
            self.session.restarting = None;
            self.session.failure = Some(failure.clone());
            return Vec::new();
        }
        self.plan.adapters.extend(wanted);
        let said = failure.message.trim_end_matches('.');
        self.session.restarting = Some(format!(
            "{said}. The worker is started again with its base and adapters."
        ));
        vec![Effect::Restart]
    }

    /// Adapters that were being added, to be added by the next worker.
    fn adding(&self) -> Vec<super::Wanted> {
        let wanted = |(id, name): &(u64, String)| match self.pending.get(*id) {
            Some(Purpose::Adapter { source }) => Some(super::Wanted::Source {
                name: name.clone(),
                source: source.clone(),
            }),
            _ => None,
        };
        self.adapters.adding.iter().filter_map(wanted).collect()
    }
}
