//! Early stopping: end the run when the evaluation no longer improves.
//!
//! Two things are tracked apart, because they answer different questions. The *best* value is the
//! plain best one; its step is the checkpoint to keep. The *reference* is the value that must be
//! beaten by more than `min_delta` for the patience to start again; it moves only when that happens, so
//! many small gains that add up to `min_delta` do count (as in Keras' `EarlyStopping`).
//!
//! The state is part of a checkpoint, and comes back from it bit for bit.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// When to give up on a value that should fall.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EarlyStoppingConfig {
    /// Evaluations in a row without improvement that end the run, at least 1. Default 3.
    pub patience: u32,
    /// Improvements of at most this, in the metric's own unit, do not count. At least 0, default 0.
    pub min_delta: f64,
}

impl Default for EarlyStoppingConfig {
    fn default() -> Self {
        Self {
            patience: 3,
            min_delta: 0.0,
        }
    }
}

/// An early-stopping setting outside its range.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum EarlyStoppingError {
    /// Patience of zero would stop every run at its first evaluation.
    #[error("`patience` is 0, expected at least 1 evaluation; leave early stopping out to run on")]
    NoPatience,
    /// The least improvement is negative or not a number.
    #[error("`min_delta` is {found}, expected a number of at least 0; 0 counts any improvement")]
    MinDelta {
        /// The value given.
        found: f64,
    },
}

/// The best evaluation so far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// The metric's value.
    #[serde(with = "exact")]
    pub value: f64,
    /// The optimizer step, from 1, after which it was measured.
    pub step: u64,
}

/// What a checkpoint keeps of early stopping.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlyStoppingState {
    /// The best evaluation, `None` before the first.
    pub best: Option<Best>,
    /// The evaluation that restarted the patience last.
    pub reference: Option<Best>,
    /// Evaluations since then.
    pub stale: u32,
}

/// What an evaluation meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// It is the best so far: keep this checkpoint.
    pub is_best: bool,
    /// The patience is used up: end the run.
    pub stop: bool,
}

/// Watches one metric of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct EarlyStopping {
    config: EarlyStoppingConfig,
    state: EarlyStoppingState,
}

impl EarlyStopping {
    /// Starts watching.
    ///
    /// # Errors
    /// A setting out of range.
    pub fn new(config: EarlyStoppingConfig) -> Result<Self, EarlyStoppingError> {
        Self::resume(config, EarlyStoppingState::default())
    }

    /// Goes on from a checkpoint.
    ///
    /// # Errors
    /// A setting out of range.
    pub fn resume(
        config: EarlyStoppingConfig,
        state: EarlyStoppingState,
    ) -> Result<Self, EarlyStoppingError> {
        if config.patience == 0 {
            return Err(EarlyStoppingError::NoPatience);
        }
        if !(config.min_delta >= 0.0 && config.min_delta.is_finite()) {
            return Err(EarlyStoppingError::MinDelta {
                found: config.min_delta,
            });
        }
        Ok(Self { config, state })
    }

    /// Takes the metric measured after optimizer step `step` (from 1). A NaN never improves.
    pub fn update(&mut self, step: u64, value: f64) -> Verdict {
        let is_best = self.improves(value, self.state.best, 0.0);
        if is_best {
            self.state.best = Some(Best { value, step });
        }
        if self.improves(value, self.state.reference, self.config.min_delta) {
            self.state.reference = Some(Best { value, step });
            self.state.stale = 0;
        } else {
            self.state.stale = self.state.stale.saturating_add(1);
        }
        Verdict {
            is_best,
            stop: self.state.stale >= self.config.patience,
        }
    }

    /// The best evaluation, `None` before the first.
    pub fn best(&self) -> Option<Best> {
        self.state.best
    }

    /// What to write into a checkpoint.
    pub fn state(&self) -> &EarlyStoppingState {
        &self.state
    }

    fn improves(&self, value: f64, over: Option<Best>, by: f64) -> bool {
        match over {
            None => !value.is_nan(),
            Some(old) => old.value - value > by,
        }
    }
}

/// Floating-point numbers as strings: JSON has no infinity, and its readers may be off by the last
/// bit, which would be a different run after a resume.
mod exact {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(value: &f64, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&format!("{value:?}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<f64, D::Error> {
        let text = String::deserialize(input)?;
        text.parse().map_err(|_| {
            D::Error::custom(format!(
                "expected a number written as a string, found {text:?}"
            ))
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn watch(patience: u32, min_delta: f64) -> EarlyStopping {
        EarlyStopping::new(EarlyStoppingConfig {
            patience,
            min_delta,
        })
        .unwrap()
    }

    fn verdicts(watch: &mut EarlyStopping, values: &[f64]) -> Vec<(bool, bool)> {
        values
            .iter()
            .zip(1..)
            .map(|(&v, i)| {
                let verdict = watch.update(i * 10, v);
                (verdict.is_best, verdict.stop)
            })
            .collect()
    }

    #[test]
    fn stops_after_patience_evaluations_without_improvement() {
        let mut w = watch(2, 0.0);
        let found = verdicts(&mut w, &[3.0, 2.0, 2.0, 1.5, 1.6, 1.5]);
        let best = [true, true, false, true, false, false];
        let stop = [false, false, false, false, false, true];
        assert_eq!(found, best.into_iter().zip(stop).collect::<Vec<_>>());
        assert_eq!(
            w.best(),
            Some(Best {
                value: 1.5,
                step: 40
            })
        );
    }

    #[test]
    fn small_gains_keep_the_best_but_spend_patience_until_they_add_up() {
        let mut w = watch(3, 0.1);
        let found = verdicts(&mut w, &[1.0, 0.95, 0.92, 0.89, 0.88, 0.87, 0.86]);
        assert!(found.iter().all(|v| v.0));
        // 0.89 beats the reference 1.0 by more than 0.1, so the count starts again there.
        assert_eq!(
            found.iter().map(|v| v.1).collect::<Vec<_>>(),
            [false, false, false, false, false, false, true]
        );
        assert_eq!(w.best().unwrap().step, 70);
    }

    #[test]
    fn nan_never_improves_and_infinity_is_beaten() {
        let mut w = watch(2, 0.0);
        assert_eq!(
            verdicts(&mut w, &[f64::NAN, f64::INFINITY, 1.0, f64::NAN, f64::NAN]),
            [
                (false, false),
                (true, false),
                (true, false),
                (false, false),
                (false, true)
            ]
        );
        assert_eq!(w.best().unwrap().value.to_bits(), 1.0f64.to_bits());
    }

    #[test]
    fn resuming_anywhere_equals_not_stopping() {
        let values = [
            2.0 / 3.0,
            0.1 + 0.2,
            f64::INFINITY,
            0.299_999_999_999_999_93,
            0.3,
            0.29,
        ];
        let config = EarlyStoppingConfig {
            patience: 3,
            min_delta: 1e-17,
        };
        for cut in 0..values.len() {
            let mut whole = EarlyStopping::new(config).unwrap();
            let mut part = EarlyStopping::new(config).unwrap();
            for (i, &value) in values.iter().enumerate() {
                if i == cut {
                    let json = serde_json::to_string(part.state()).unwrap();
                    part = EarlyStopping::resume(config, serde_json::from_str(&json).unwrap())
                        .unwrap();
                }
                assert_eq!(whole.update(i as u64, value), part.update(i as u64, value));
            }
            assert_eq!(whole, part);
        }
    }

    #[test]
    fn infinite_values_survive_a_checkpoint() {
        let mut w = watch(5, 0.0);
        w.update(1, f64::INFINITY);
        let json = serde_json::to_string(w.state()).unwrap();
        let back: EarlyStoppingState = serde_json::from_str(&json).unwrap();
        assert_eq!(&back, w.state());
        let hostile = json.replace("inf", "much");
        let error = serde_json::from_str::<EarlyStoppingState>(&hostile).unwrap_err();
        assert!(error.to_string().contains("much"), "{error}");
    }

    #[test]
    fn nonsense_is_refused() {
        for (patience, min_delta) in [(0, 0.0), (1, -1.0), (1, f64::NAN)] {
            let config = EarlyStoppingConfig {
                patience,
                min_delta,
            };
            assert!(EarlyStopping::new(config).is_err());
        }
        assert!(serde_json::from_str::<EarlyStoppingConfig>(r#"{"patince": 3}"#).is_err());
    }
}
