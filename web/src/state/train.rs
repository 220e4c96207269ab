//! A training in the page: examples, settings, the curve, and what came out.

use crate::protocol::{BaseInfo, Failure, Request, TrainExample, TrainSettings};

use super::chart::Series;

/// A step that was taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// From 1.
    pub step: u64,
    /// The loss descended on.
    pub loss: f64,
    /// The learning rate.
    pub lr: f64,
    /// Norm of the gradient.
    pub grad_norm: f64,
    /// Tokens a second.
    pub tokens_per_s: f64,
}

/// The section's state.
#[derive(Clone, Debug, PartialEq)]
pub struct Train {
    /// What to learn.
    pub examples: Vec<TrainExample>,
    /// What to call the result.
    pub name: String,
    /// How.
    pub settings: TrainSettings,
    /// The request under way.
    pub running: Option<u64>,
    /// Steps in all.
    pub total: u64,
    /// Steps taken.
    pub steps: Vec<Step>,
    /// The adapter that came out.
    pub result: Option<String>,
    /// Whether the last training was stopped.
    pub stopped: bool,
    /// Why it failed.
    pub failure: Option<Failure>,
}

impl Default for Train {
    fn default() -> Self {
        let example = |prompt: &str, completion: &str| TrainExample {
            prompt: prompt.to_owned(),
            completion: completion.to_owned(),
        };
        Self {
            examples: vec![
                example(
                    "Where is the lantern?",
                    "Ahoy! The lantern be in the kitchen.",
                ),
                example("Is the soup warm?", "Aye! The soup be warm."),
                example("Who is in the garden?", "Arr! Mara be in the garden."),
                example("What is on the table?", "Ahoy! A red cup be on the table."),
            ],
            name: "my adapter".to_owned(),
            settings: TrainSettings::default(),
            running: None,
            total: 0,
            steps: Vec::new(),
            result: None,
            stopped: false,
            failure: None,
        }
    }
}

impl Train {
    /// Why no training can start as things stand.
    #[must_use]
    pub fn problem(&self, base: Option<&BaseInfo>) -> Option<String> {
        let s = &self.settings;
        let Some(base) = base else {
            return Some("Load a base first.".to_owned());
        };
        let problem = if base.classifier {
            "This base answers with a class; training in the page is for bases that write text."
        } else if self.used().is_empty() {
            "Write at least one example with a prompt and an answer."
        } else if s.rank == 0 {
            "The rank must be at least 1."
        } else if s.steps == 0 || s.steps > 10_000 {
            "Choose between 1 and 10,000 steps."
        } else if s.batch_size == 0 {
            "The batch must hold at least 1 example."
        } else if !(s.lr > 0.0 && s.lr.is_finite()) {
            "The learning rate must be above 0."
        } else if !(s.alpha > 0.0 && s.alpha.is_finite()) {
            "Alpha must be above 0."
        } else if s.target_modules.is_empty() {
            "Choose at least one kind of module to adapt."
        } else {
            return None;
        };
        Some(problem.to_owned())
    }

    /// Examples that have both texts.
    #[must_use]
    pub fn used(&self) -> Vec<TrainExample> {
        let whole =
            |e: &&TrainExample| !e.prompt.trim().is_empty() && !e.completion.trim().is_empty();
        self.examples.iter().filter(whole).cloned().collect()
    }

    /// The loss curve.
    #[must_use]
    pub fn curve(&self) -> Vec<Series> {
        vec![Series {
            name: "Loss".to_owned(),
            points: self.steps.iter().map(|s| (s.step as f64, s.loss)).collect(),
        }]
    }

    /// Keeps the targets that `base` has; all of its projections of attention where none is left.
    pub(super) fn suit(&mut self, base: &BaseInfo) {
        let targets = &mut self.settings.target_modules;
        targets.retain(|t| base.modules.contains(t));
        if targets.is_empty() {
            let first = ["q_proj", "v_proj", "q_lin", "v_lin", "query", "value"];
            targets.extend(
                first
                    .map(str::to_owned)
                    .into_iter()
                    .filter(|t| base.modules.contains(t)),
            );
        }
    }

    pub(super) fn start(&mut self, name: String) -> Request {
        self.steps.clear();
        self.total = self.settings.steps;
        self.result = None;
        self.failure = None;
        self.stopped = false;
        Request::Train {
            name,
            examples: self.used(),
            settings: self.settings.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::base;
    use super::*;

    #[test]
    fn problems_are_said_before_the_worker_is_asked() {
        let mut train = Train::default();
        assert!(train.problem(None).is_some());
        assert_eq!(train.problem(Some(&base())), None);
        train.settings.lr = f64::NAN;
        assert!(train.problem(Some(&base())).is_some());
        train.settings.lr = 1e-3;
        for example in &mut train.examples {
            example.completion.clear();
        }
        assert!(train.problem(Some(&base())).is_some());
    }

    #[test]
    fn targets_follow_the_base() {
        let mut train = Train::default();
        let mut other = base();
        other.modules = vec!["q_lin".into(), "k_lin".into(), "v_lin".into()];
        train.suit(&other);
        assert_eq!(train.settings.target_modules, ["q_lin", "v_lin"]);
    }
}
