//! What a run writes while it goes: `log.jsonl`, TensorBoard events, and the progress bar.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use qloom_core::train::{EvalRecord, Event, Observer, StepRecord};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::files::jsonl::JsonlWriter;
use crate::progress::Mode;
use crate::progress::training::{StepView, TrainingBar};
use crate::report::numbers;
use crate::report::tensorboard::EventWriter;

/// The observers of one run. The first failure ends the run after its step and is what the run reports: a full disk must
/// neither be silent nor panic inside the loop.
pub(crate) struct RunObserver {
    log: JsonlWriter,
    events: Option<EventWriter>,
    bar: Option<TrainingBar>,
    failure: Option<anyhow::Error>,
    /// Whether there is a failure, for the loop's host.
    failed: Arc<AtomicBool>,
}

impl RunObserver {
    /// Opens the logs of the run in `folder`; with `resumed_at`, later rows are cut off first.
    pub(crate) fn open(
        log: &Path,
        folder: &Path,
        tensorboard: bool,
        resumed_at: Option<u64>,
        total_steps: u64,
    ) -> Result<Self> {
        let (log, events) = match resumed_at {
            Some(step) => (
                JsonlWriter::resume(log, step)?,
                tensorboard
                    .then(|| EventWriter::resume(folder, step))
                    .transpose()?,
            ),
            None => (
                JsonlWriter::create(log)?,
                tensorboard
                    .then(|| EventWriter::create(folder))
                    .transpose()?,
            ),
        };
        let bar = TrainingBar::start(Mode::detect(false), resumed_at.unwrap_or(0), total_steps);
        Ok(Self {
            log,
            events,
            bar: Some(bar),
            failure: None,
            failed: Arc::default(),
        })
    }

    /// Becomes true when a row could not be written.
    pub(crate) fn failed(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.failed)
    }

    /// Closes the bar and the log.
    ///
    /// # Errors
    /// The first write that failed.
    pub(crate) fn finish(mut self) -> Result<()> {
        if let Some(bar) = self.bar.take() {
            bar.finish();
        }
        match self.failure.take() {
            Some(error) => Err(error),
            None => self.log.sync(),
        }
    }

    fn write(&mut self, row: &impl Serialize, step: u64, scalars: &[(&str, f64)]) {
        if self.failure.is_some() {
            return;
        }
        let written = to_map(row)
            .and_then(|row| self.log.append(&row))
            .and_then(|()| match &mut self.events {
                Some(events) => events.scalars(step, scalars),
                None => Ok(()),
            });
        if let Err(error) = written {
            self.failure = Some(error);
            self.failed.store(true, Ordering::SeqCst);
        }
    }

    fn note(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.note(text);
        }
    }
}

impl Observer for RunObserver {
    fn on_step(&mut self, r: &StepRecord) {
        let scalars = [
            ("train/loss", r.loss),
            ("train/lr", r.lr),
            ("train/grad_norm", r.grad_norm),
            ("train/tokens_per_s", r.tokens_per_s),
        ];
        self.write(r, r.step, &scalars);
        if let Some(bar) = &mut self.bar {
            bar.step(StepView {
                step: r.step,
                loss: r.loss,
                lr: r.lr,
                tokens_per_s: r.tokens_per_s,
            });
        }
    }

    fn on_eval(&mut self, r: &EvalRecord) {
        let perplexity = r.perplexity.map(|p| ("perplexity", p));
        let further = r
            .metrics
            .iter()
            .map(|(name, &value)| (name.as_str(), value));
        let named: Vec<(&str, f64)> = perplexity.into_iter().chain(further).collect();
        let tags: Vec<(String, f64)> = std::iter::once(("loss", r.eval_loss))
            .chain(named.iter().copied())
            .map(|(name, value)| (format!("eval/{name}"), value))
            .collect();
        let scalars: Vec<(&str, f64)> = tags.iter().map(|(tag, v)| (tag.as_str(), *v)).collect();
        self.write(r, r.step, &scalars);
        let best = if r.best { ", best so far" } else { "" };
        let rest: String = named
            .iter()
            .map(|(name, value)| format!(", {name} {}", numbers::score(*value)))
            .collect();
        self.note(&format!(
            "step {}: held-out loss {}{rest}{best}",
            r.step,
            numbers::score(r.eval_loss)
        ));
    }

    fn on_event(&mut self, event: &Event) {
        match event {
            Event::EarlyStopped { step, best_step, best_value } => self.note(&format!(
                "stopped early at step {step}: the held-out loss has not improved on {} (step {best_step})",
                numbers::score(*best_value)
            )),
            Event::Warning { message } => self.note(message),
            _ => {}
        }
    }
}

fn to_map(row: &impl Serialize) -> Result<Map<String, Value>> {
    match serde_json::to_value(row)? {
        Value::Object(map) => Ok(map),
        other => anyhow::bail!("a log row must be an object, found {other}"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_cannot_be_written_is_the_run_s_failure() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log.jsonl");
        let mut observer = RunObserver::open(&log, dir.path(), false, None, 2).unwrap();
        let failed = observer.failed();
        observer.write(&serde_json::json!({"step": 1}), 1, &[]);
        assert!(!failed.load(Ordering::SeqCst));
        // No object, so no row: what a full disk does, without one.
        observer.write(&serde_json::json!([1]), 2, &[]);
        assert!(failed.load(Ordering::SeqCst));
        observer.write(&serde_json::json!({"step": 3}), 3, &[]);
        assert!(observer.finish().is_err());
        assert_eq!(std::fs::read_to_string(&log).unwrap().lines().count(), 1);
    }
}
