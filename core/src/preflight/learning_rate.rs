//! A learning rate at which the loss grows: by rule of thumb before anything runs, and measured by a short probe.
//!
//! The rule: rates that work for low-rank adapters fall with the width of the model (about 2e-4 at 2,048 in the QLoRA
//! paper, arXiv 2305.14314), as the transfer of learning rates across widths has it for Adam
//! (arXiv 2203.03466); whole weights take a tenth. Ten times that is suspicious.
//!
//! The probe, after the range test of Smith (arXiv 1506.01186): a few steps on the real base and data from the same
//! start at the configured rate and at multiples of it. Each step's loss is held against the loss of the *same batch*
//! before training, so that hard batches do not look like divergence.

use serde::Serialize;

use super::{Cause, Evidence, Finding, LearningRate, Severity};

/// Usual rate times width, for adapters.
const RATE_TIMES_WIDTH: f64 = 0.4;
/// How far above the usual a rate is suspicious without measurement.
const SUSPICIOUS: f64 = 10.0;
/// Growth of the loss, as a share of it, that counts as divergence.
const GROWTH: f64 = 0.1;
/// Multiples of the configured rate that are probed, in order.
const LADDER: [f64; 4] = [1.0, 4.0, 16.0, 64.0];

/// The rate a run of this kind usually takes.
#[must_use]
pub fn usual_learning_rate(hidden_size: usize, full: bool) -> f64 {
    let adapters = RATE_TIMES_WIDTH / hidden_size.max(1) as f64;
    if full { adapters / 10.0 } else { adapters }
}

/// Some steps at one rate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProbePoint {
    /// The rate.
    pub lr: f64,
    /// Mean loss of the later half of the steps.
    pub loss: f64,
    /// Mean loss of the same batches before training.
    pub loss_before: f64,
    /// Largest gradient norm met.
    pub grad_norm: f64,
    /// Whether the loss grew, or stopped being a number.
    pub diverged: bool,
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Probe {
    /// In order of rising rates; ends with the first that diverged.
    pub points: Vec<ProbePoint>,
    /// Optimizer steps taken for all of it.
    pub steps: usize,
}

impl Probe {
    /// The lowest rate at which the loss grew.
    #[must_use]
    pub fn divergence(&self) -> Option<f64> {
        self.points.iter().find(|p| p.diverged).map(|p| p.lr)
    }
}

/// Climbs from the configured rate until the loss grows. `run` takes some steps at a rate from the same start and
/// returns `(loss, gradient norm)` of each; it returns fewer where the loss stopped being a number.
///
/// # Errors
/// Those of `run`.
pub fn ladder<E>(
    lr: f64,
    steps: usize,
    mut run: impl FnMut(f64) -> Result<Vec<(f64, f64)>, E>,
) -> Result<Probe, E> {
    // A rate this small moves nothing: the losses are those of the batches before training.
    let before = run(lr * 1e-9)?;
    let later = steps / 2;
    let mean = |losses: &[(f64, f64)]| {
        losses.iter().skip(later).map(|(loss, _)| loss).sum::<f64>()
            / losses.len().saturating_sub(later).max(1) as f64
    };
    let mut probe = Probe {
        points: Vec::new(),
        steps: before.len(),
    };
    for multiple in LADDER {
        let taken = run(lr * multiple)?;
        probe.steps += taken.len();
        let whole = taken.len() == before.len();
        let (loss, loss_before) = (mean(&taken), mean(&before));
        let finite = whole
            && taken
                .iter()
                .all(|(loss, norm)| loss.is_finite() && norm.is_finite());
        let diverged = !finite || loss > loss_before * (1.0 + GROWTH);
        probe.points.push(ProbePoint {
            lr: lr * multiple,
            loss: if finite { loss } else { f64::INFINITY },
            loss_before,
            grad_norm: taken.iter().map(|(_, norm)| *norm).fold(0.0, f64::max),
            diverged,
        });
        if diverged {
            break;
        }
    }
    Ok(probe)
}

/// What the probe means for the configured rate.
#[must_use]
pub fn judge_probe(probe: &Probe, setting: LearningRate) -> Option<Finding> {
    let first = probe.points.first()?;
    let at = |severity, what: String, fix: String| {
        Some(Finding::new(
            Cause::LearningRate,
            severity,
            "train.lr",
            what,
            fix,
        ))
    };
    let Some(limit) = probe.divergence() else {
        let highest = probe.points.last().map_or(first.lr, |p| p.lr);
        return at(
            Severity::Info,
            format!(
                "{} probe steps: at lr = {:.1e} the loss went from {:.3} to {:.3}, and up to {highest:.1e} it grew by no more than {:.0} %",
                probe.steps,
                first.lr,
                first.loss_before,
                first.loss,
                GROWTH * 100.0
            ),
            String::new(),
        );
    };
    if first.diverged {
        let usual = usual_learning_rate(setting.hidden_size, setting.full);
        let times = setting.lr / usual;
        return at(
            Severity::Error,
            format!(
                "at lr = {:.1e} the loss of the same batches grows from {:.3} to {:.3} within a few steps (largest gradient \
                 norm {:.1e}); the rate is {times:.0} times what is usual for this width",
                first.lr, first.loss_before, first.loss, first.grad_norm
            ),
            format!("Set train.lr to about {usual:.0e}"),
        );
    }
    at(
        Severity::Info,
        format!(
            "{} probe steps: at lr = {:.1e} the loss went from {:.3} to {:.3}; it grows from lr = {limit:.1e} on",
            probe.steps, first.lr, first.loss_before, first.loss
        ),
        String::new(),
    )
}

pub(super) fn check(evidence: &Evidence<'_>) -> Vec<Finding> {
    let LearningRate {
        lr,
        hidden_size,
        full,
    } = evidence.learning_rate;
    let usual = usual_learning_rate(hidden_size, full);
    if lr <= SUSPICIOUS * usual {
        return Vec::new();
    }
    let what = if full { "whole weights" } else { "adapters" };
    vec![Finding::new(
        Cause::LearningRate,
        Severity::Warning,
        "train.lr",
        format!(
            "lr = {lr:.1e} is {:.0} times what is usual for {what} of a model {hidden_size} wide ({usual:.0e})",
            lr / usual
        ),
        format!(
            "Set train.lr to about {usual:.0e}, or let `trainer check` measure where the loss grows"
        ),
    )]
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::float_cmp)]
mod tests {
    use super::*;

    /// Gradient descent on `x²/2 · c` diverges above `2 / c`.
    fn quadratic(lr: f64) -> Result<Vec<(f64, f64)>, std::convert::Infallible> {
        let mut x = 1.0_f64;
        Ok((0..6)
            .map(|_| {
                let at = (10.0 * x * x / 2.0, (10.0 * x).abs());
                x -= lr * 10.0 * x;
                at
            })
            .collect())
    }

    const SETTING: LearningRate = LearningRate {
        lr: 0.01,
        hidden_size: 40,
        full: false,
    };

    #[test]
    fn the_ladder_finds_where_a_quadratic_diverges() {
        let probe = ladder(0.01, 6, quadratic).unwrap();
        assert_eq!(probe.divergence(), Some(0.64));
        assert_eq!(probe.points.len(), 4);
        assert_eq!(
            judge_probe(&probe, SETTING).unwrap().severity,
            Severity::Info
        );
        let probe = ladder(0.3, 6, quadratic).unwrap();
        assert_eq!((probe.divergence(), probe.points.len()), (Some(0.3), 1));
        assert_eq!(
            judge_probe(&probe, SETTING).unwrap().severity,
            Severity::Error
        );
    }

    #[test]
    fn what_was_not_tested_is_not_said() {
        // The loss grows by 5 % at every rate: no divergence, but no fall either.
        let run = |lr: f64| -> Result<Vec<(f64, f64)>, ()> {
            Ok(vec![(if lr > 1e-6 { 1.05 } else { 1.0 }, 1.0); 6])
        };
        let found = judge_probe(&ladder(0.1, 6, run).unwrap(), SETTING).unwrap();
        assert!(found.what.contains("no more than 10 %") && !found.what.contains("fell"));
    }

    #[test]
    fn a_run_that_stops_being_a_number_has_diverged() {
        let run = |lr: f64| -> Result<Vec<(f64, f64)>, ()> {
            Ok(vec![(1.0, 1.0); if lr > 0.5 { 2 } else { 6 }])
        };
        assert_eq!(ladder(0.1, 6, run).unwrap().divergence(), Some(1.6));
    }

    #[test]
    fn usual_rates_are_those_of_the_papers() {
        assert!((usual_learning_rate(2048, false) - 2e-4).abs() < 1e-5);
        assert!((usual_learning_rate(2048, true) - 2e-5).abs() < 1e-6);
    }
}
