//! Learning-rate schedules: constant, linear and cosine, each after a linear warm-up.
//!
//! The curves are those of Hugging Face's `get_constant_schedule_with_warmup`,
//! `get_linear_schedule_with_warmup` and `get_cosine_schedule_with_warmup`
//! (`transformers/optimization.py`), so runs are comparable step by step. As there, the first
//! optimizer step of a warmed-up run has learning rate 0, and the curve ends at 0 one step after the
//! last:
//!
//! ```text
//! lr |    .--.__               warm-up 3, linear, total 9
//!    |  .'      '--.__
//!    |.'              '--.
//!    +--+--+--+--+--+--+--+--  optimizer step, from 0
//! ```

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Shape of the learning rate after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// Stays at the peak (`constant_with_warmup`).
    Constant,
    /// Falls in a straight line to 0 (the Hugging Face trainer's default).
    #[default]
    Linear,
    /// Falls along half a cosine to 0.
    Cosine,
}

/// A warm-up or a learning rate that no schedule can be made of.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum ScheduleError {
    /// The ratio is not a share of the run.
    #[error("`warmup_ratio` is {found}, expected a number from 0 to 1, such as 0.03 for 3 %")]
    WarmupRatio {
        /// The value given.
        found: f64,
    },
    /// The learning rate is negative or not a number.
    #[error("`lr` is {found}, expected a number of at least 0, such as 2e-4")]
    LearningRate {
        /// The value given.
        found: f64,
    },
}

/// Optimizer steps of warm-up in a run of `total_steps`: `warmup_steps` where given, as in Hugging Face's
/// `TrainingArguments`, else `ceil(warmup_ratio * total_steps)`.
///
/// # Errors
/// A ratio outside 0 to 1.
pub fn resolve_warmup(
    warmup_steps: Option<u64>,
    warmup_ratio: f64,
    total_steps: u64,
) -> Result<u64, ScheduleError> {
    match (warmup_steps, warmup_ratio) {
        (_, ratio) if !(0.0..=1.0).contains(&ratio) => {
            Err(ScheduleError::WarmupRatio { found: ratio })
        }
        (Some(steps), _) => Ok(steps),
        (None, ratio) => Ok((ratio * total_steps as f64).ceil() as u64),
    }
}

/// The learning rate of every optimizer step of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    kind: ScheduleKind,
    peak: f64,
    warmup_steps: u64,
    total_steps: u64,
}

impl Schedule {
    /// A schedule that rises to `peak` (a learning rate) over `warmup_steps` and then takes the
    /// shape `kind` up to `total_steps`, all in optimizer steps. A warm-up longer than the run is
    /// allowed: the run then never reaches the peak.
    ///
    /// # Errors
    /// A negative or non-finite learning rate.
    pub fn new(
        kind: ScheduleKind,
        peak: f64,
        warmup_steps: u64,
        total_steps: u64,
    ) -> Result<Self, ScheduleError> {
        if !(peak >= 0.0 && peak.is_finite()) {
            return Err(ScheduleError::LearningRate { found: peak });
        }
        Ok(Self {
            kind,
            peak,
            warmup_steps,
            total_steps,
        })
    }

    /// Learning rate used by optimizer step `step`, counted **from 0**. (Logs count from 1, so the
    /// row of step `n` holds `lr(n - 1)`.)
    pub fn lr(&self, step: u64) -> f64 {
        self.peak * self.factor(step)
    }

    /// Steps over which the learning rate rises.
    pub fn warmup_steps(&self) -> u64 {
        self.warmup_steps
    }

    /// Length of the run, in optimizer steps.
    pub fn total_steps(&self) -> u64 {
        self.total_steps
    }

    /// Share of the peak at `step`: Hugging Face's `lr_lambda`.
    fn factor(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return step as f64 / self.warmup_steps as f64;
        }
        let span = self.total_steps.saturating_sub(self.warmup_steps).max(1) as f64;
        match self.kind {
            ScheduleKind::Constant => 1.0,
            ScheduleKind::Linear => self.total_steps.saturating_sub(step) as f64 / span,
            ScheduleKind::Cosine => {
                let progress = (step - self.warmup_steps) as f64 / span;
                (0.5 * (1.0 + (std::f64::consts::PI * progress).cos())).max(0.0)
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use ScheduleKind::{Constant, Cosine, Linear};

    /// transformers 5.23.0, peak 2e-4, steps 0 to total + 1: (kind, warm-up, total, rates in 1e-4).
    #[rustfmt::skip]
    fn golden() -> Vec<(ScheduleKind, u64, u64, Vec<f64>)> {
        vec![
            (Constant, 0, 3, vec![2.0, 2.0, 2.0, 2.0, 2.0]),
            (Linear, 0, 7, vec![2.0, 1.7142857142857143, 1.4285714285714287, 1.1428571428571428,
                0.8571428571428571, 0.5714285714285714, 0.2857142857142857, 0.0, 0.0]),
            (Cosine, 0, 7, vec![2.0, 1.900968867902419, 1.6234898018587337, 1.2225209339563145,
                0.7774790660436858, 0.3765101981412665, 0.09903113209758096, 0.0, 0.09903113209758086]),
            (Constant, 3, 10, vec![0.0, 0.6666666666666667, 1.3333333333333334, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0,
                2.0, 2.0, 2.0]),
            (Linear, 3, 10, vec![0.0, 0.6666666666666667, 1.3333333333333334, 2.0, 1.7142857142857143,
                1.4285714285714287, 1.1428571428571428, 0.8571428571428571, 0.5714285714285714,
                0.2857142857142857, 0.0, 0.0]),
            (Cosine, 3, 10, vec![0.0, 0.6666666666666667, 1.3333333333333334, 2.0, 1.900968867902419,
                1.6234898018587337, 1.2225209339563145, 0.7774790660436858, 0.3765101981412665,
                0.09903113209758096, 0.0, 0.09903113209758086]),
            (Constant, 10, 10, vec![0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.0]),
            (Linear, 10, 10, vec![0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 0.0, 0.0]),
            (Cosine, 10, 10, vec![0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 0.0]),
            (Constant, 5, 4, vec![0.0, 0.4, 0.8, 1.2, 1.6, 2.0]),
            (Linear, 5, 4, vec![0.0, 0.4, 0.8, 1.2, 1.6, 0.0]),
            (Cosine, 5, 4, vec![0.0, 0.4, 0.8, 1.2, 1.6, 2.0]),
            (Linear, 0, 1, vec![2.0, 0.0, 0.0]),
            (Cosine, 0, 1, vec![2.0, 0.0, 2.0]),
        ]
    }

    #[test]
    fn curves_equal_transformers() {
        for (kind, warmup, total, rates) in golden() {
            let schedule = Schedule::new(kind, 2e-4, warmup, total).unwrap();
            for (step, rate) in rates.iter().enumerate() {
                let found = schedule.lr(step as u64);
                assert!(
                    (found - rate * 1e-4).abs() <= 1e-18,
                    "{kind:?} warm-up {warmup} total {total} step {step}: {found} is not {rate}e-4"
                );
            }
        }
    }

    #[test]
    fn an_empty_run_has_no_division_by_zero() {
        for kind in [Constant, Linear, Cosine] {
            let schedule = Schedule::new(kind, 1.0, 0, 0).unwrap();
            assert!((0..3).all(|s| schedule.lr(s).is_finite()), "{kind:?}");
        }
    }

    #[test]
    fn warmup_resolves_as_ceil_of_the_ratio() {
        assert_eq!(resolve_warmup(None, 0.0, 100), Ok(0));
        assert_eq!(resolve_warmup(Some(7), 0.0, 100), Ok(7));
        assert_eq!(resolve_warmup(Some(7), 0.5, 100), Ok(7));
        assert_eq!(resolve_warmup(None, 0.03, 101), Ok(4));
        assert_eq!(resolve_warmup(None, 0.1, 100), Ok(10));
        assert_eq!(resolve_warmup(None, 1.0, 9), Ok(9));
        assert_eq!(resolve_warmup(None, 0.5, 0), Ok(0));
    }

    #[test]
    fn nonsense_is_refused() {
        for ratio in [-0.1, 1.1, f64::NAN] {
            assert!(matches!(
                resolve_warmup(None, ratio, 10),
                Err(ScheduleError::WarmupRatio { .. })
            ));
        }
        for lr in [-1e-4, f64::NAN, f64::INFINITY] {
            assert!(Schedule::new(Linear, lr, 0, 10).is_err());
        }
    }

    #[test]
    fn names_are_those_of_the_config_file() {
        let kind: ScheduleKind = serde_json::from_str("\"cosine\"").unwrap();
        assert_eq!(kind, Cosine);
        assert!(serde_json::from_str::<ScheduleKind>("\"cosin\"").is_err());
    }
}
