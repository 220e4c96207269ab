//! What a run reports while it goes: a record per optimizer step, a record per evaluation, events.
//!
//! The loop knows nothing of files, terminals or pages. It calls observers by name and they decide: a
//! progress bar, `log.jsonl`, TensorBoard, a plot, a message to a page. Step and evaluation records
//! serialize to the rows of `log.jsonl`, whose keys are part of the command line's contract.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One optimizer step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Optimizer step, from 1.
    pub step: u64,
    /// Passes over the training data so far, with fraction.
    pub epoch: f64,
    /// The loss the step descended on, in nats.
    pub loss: f64,
    /// The learning rate the step used.
    pub lr: f64,
    /// Global L2 norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Targets in the step, over all of its micro-batches: tokens with a label, or examples where the model classifies.
    pub tokens: u64,
    /// Tokens read per second of wall clock, padding not counted. This and no other field may differ
    /// between equal runs.
    pub tokens_per_s: f64,
}

/// One evaluation while training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvalRecord {
    /// Optimizer step, from 1, after which it was made; 0 is before training.
    pub step: u64,
    /// Passes over the training data so far, with fraction.
    pub epoch: f64,
    /// Mean negative log-likelihood per target, in nats.
    pub eval_loss: f64,
    /// `exp(eval_loss)`; absent where the targets are classes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub perplexity: Option<f64>,
    /// Targets scored: tokens, or examples where the model classifies.
    pub tokens: u64,
    /// True where it is the best so far.
    pub best: bool,
    /// Further metrics by name (`macro_f1`, ...), written as keys of the same row.
    #[serde(flatten)]
    pub metrics: BTreeMap<String, f64>,
}

/// Why a checkpoint was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckpointKind {
    /// Its turn had come (`save_every`).
    Periodic,
    /// The best evaluation so far.
    Best,
    /// The run ended or was interrupted.
    Last,
}

/// Something worth telling that is neither a step nor an evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The run begins.
    Started {
        /// Optimizer steps it will take.
        total_steps: u64,
        /// Training examples.
        examples: u64,
        /// Parameters that are trained.
        trainable_parameters: u64,
        /// All parameters.
        total_parameters: u64,
    },
    /// The run goes on from a checkpoint.
    Resumed {
        /// Optimizer steps already taken.
        step: u64,
    },
    /// A checkpoint was written.
    CheckpointSaved {
        /// Optimizer steps taken.
        step: u64,
        /// Why.
        kind: CheckpointKind,
    },
    /// Patience is used up.
    EarlyStopped {
        /// Optimizer steps taken.
        step: u64,
        /// Step of the best evaluation.
        best_step: u64,
        /// Its value.
        best_value: f64,
    },
    /// The user asked to stop; the step was finished first.
    Interrupted {
        /// Optimizer steps taken.
        step: u64,
    },
    /// Something the user should know that does not stop the run.
    Warning {
        /// What, why it matters, and what to do.
        message: String,
    },
    /// The run is over.
    Finished {
        /// Optimizer steps taken in all.
        step: u64,
        /// Target tokens trained on in all.
        tokens: u64,
    },
}

/// Receives what a run reports. All methods default to doing nothing.
pub trait Observer {
    /// After every optimizer step.
    fn on_step(&mut self, record: &StepRecord) {
        let _ = record;
    }

    /// After every evaluation.
    fn on_eval(&mut self, record: &EvalRecord) {
        let _ = record;
    }

    /// At every event.
    fn on_event(&mut self, event: &Event) {
        let _ = event;
    }
}

/// Nobody watches.
impl Observer for () {}

/// Several observers, told in order.
impl Observer for Vec<Box<dyn Observer + '_>> {
    fn on_step(&mut self, record: &StepRecord) {
        self.iter_mut().for_each(|o| o.on_step(record));
    }

    fn on_eval(&mut self, record: &EvalRecord) {
        self.iter_mut().for_each(|o| o.on_eval(record));
    }

    fn on_event(&mut self, event: &Event) {
        self.iter_mut().for_each(|o| o.on_event(event));
    }
}

impl<T: Observer + ?Sized> Observer for &mut T {
    fn on_step(&mut self, record: &StepRecord) {
        (**self).on_step(record);
    }

    fn on_eval(&mut self, record: &EvalRecord) {
        (**self).on_eval(record);
    }

    fn on_event(&mut self, event: &Event) {
        (**self).on_event(event);
    }
}

/// Keeps everything in memory, for summaries, plots and tests.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// Every step, in order.
    pub steps: Vec<StepRecord>,
    /// Every evaluation, in order.
    pub evals: Vec<EvalRecord>,
    /// Every event, in order.
    pub events: Vec<Event>,
}

impl Observer for History {
    fn on_step(&mut self, record: &StepRecord) {
        self.steps.push(*record);
    }

    fn on_eval(&mut self, record: &EvalRecord) {
        self.evals.push(record.clone());
    }

    fn on_event(&mut self, event: &Event) {
        self.events.push(event.clone());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn step() -> StepRecord {
        StepRecord {
            step: 1,
            epoch: 0.25,
            loss: 2.5,
            lr: 2e-4,
            grad_norm: 0.75,
            tokens: 128,
            tokens_per_s: 512.5,
        }
    }

    fn eval() -> EvalRecord {
        EvalRecord {
            step: 4,
            epoch: 1.0,
            eval_loss: 0.5,
            perplexity: Some(0.5f64.exp()),
            tokens: 99,
            best: true,
            metrics: BTreeMap::from([("macro_f1".to_owned(), 0.875)]),
        }
    }

    fn keys(json: &serde_json::Value) -> Vec<&str> {
        let mut keys: Vec<&str> = json
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        keys.sort_unstable();
        keys
    }

    #[test]
    fn rows_have_the_promised_keys() {
        let row = serde_json::to_value(step()).unwrap();
        assert_eq!(
            keys(&row),
            [
                "epoch",
                "grad_norm",
                "loss",
                "lr",
                "step",
                "tokens",
                "tokens_per_s"
            ]
        );
        let row = serde_json::to_value(eval()).unwrap();
        assert_eq!(
            keys(&row),
            [
                "best",
                "epoch",
                "eval_loss",
                "macro_f1",
                "perplexity",
                "step",
                "tokens"
            ]
        );
        let row = serde_json::to_string(&step()).unwrap();
        assert!(
            row.starts_with(r#"{"step":1,"epoch":0.25,"loss":2.5,"#),
            "{row}"
        );
    }

    #[test]
    fn records_come_back() {
        let row = serde_json::to_string(&eval()).unwrap();
        assert_eq!(serde_json::from_str::<EvalRecord>(&row).unwrap(), eval());
        let event = Event::CheckpointSaved {
            step: 3,
            kind: CheckpointKind::Best,
        };
        let row = serde_json::to_string(&event).unwrap();
        assert_eq!(
            row,
            r#"{"event":"checkpoint_saved","step":3,"kind":"best"}"#
        );
        assert_eq!(serde_json::from_str::<Event>(&row).unwrap(), event);
    }

    #[test]
    fn every_observer_hears_everything_once() {
        let mut first = History::default();
        let mut second = History::default();
        {
            let mut all: Vec<Box<dyn Observer + '_>> =
                vec![Box::new(&mut first), Box::new(()), Box::new(&mut second)];
            all.on_step(&step());
            all.on_eval(&eval());
            all.on_event(&Event::Interrupted { step: 1 });
        }
        assert_eq!(first.steps, [step()]);
        assert_eq!(first.evals, [eval()]);
        assert_eq!(first.events, [Event::Interrupted { step: 1 }]);
        assert_eq!(first, second);
    }
}
