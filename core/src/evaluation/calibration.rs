//! Does a confidence of 0.8 mean right in 8 of 10 cases? Expected calibration error and Brier score.
//!
//! Confidence is the largest class probability. ECE (Guo et al. 2017) sorts examples into bins of equal width by it and
//! averages the gap between mean confidence and accuracy, weighted by examples; it depends on the bins, so their number
//! is part of the result. The Brier score (1950) is the squared distance between the probabilities and the truth, summed
//! over classes: 0 to 2, for two classes twice what scikit-learn reports by default.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::bootstrap::{BootstrapConfig, BootstrapError, Interval, bootstrap, bootstrap_mean};

/// Bins of the usual reliability diagram.
pub const CALIBRATION_BINS: usize = 15;
/// How far probabilities may be from summing to 1: a softmax in f16 over many classes is off by this much.
const SUM_TOLERANCE: f64 = 1e-2;

/// Probabilities that are none.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum CalibrationError {
    /// Not one row for every gold class.
    #[error(
        "{probabilities} rows of probabilities stand against {gold} gold classes, expected one each"
    )]
    Lengths {
        /// Rows given.
        probabilities: usize,
        /// Gold classes given.
        gold: usize,
    },
    /// A row that is no distribution.
    #[error(
        "example {example} has the probabilities {found:?}, expected {classes} numbers from 0 to 1 that sum to 1; \
         apply a softmax to logits first"
    )]
    Row {
        /// Its index, from 0.
        example: usize,
        /// What it has.
        found: Vec<f64>,
        /// Number of classes.
        classes: usize,
    },
    /// A gold class beyond the probabilities.
    #[error(
        "example {example} is of class {found}, but there are only {classes} classes, counted from 0"
    )]
    Class {
        /// Its index, from 0.
        example: usize,
        /// Its class.
        found: usize,
        /// Number of classes.
        classes: usize,
    },
    /// No bins.
    #[error("0 bins, expected at least 1; {CALIBRATION_BINS} are usual")]
    NoBins,
    /// No interval.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
}

/// Examples of like confidence.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CalibrationBin {
    /// Lower end, not included but for 0.
    pub low: f64,
    /// Upper end, included.
    pub high: f64,
    /// Examples in it.
    pub examples: u64,
    /// Their mean confidence; 0 without examples.
    pub confidence: f64,
    /// Share of them that is right; 0 without examples.
    pub accuracy: f64,
}

/// How well probabilities mean what they say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CalibrationReport {
    /// Expected calibration error, 0 to 1.
    pub ece: Interval,
    /// Brier score, 0 to 2.
    pub brier: Interval,
    /// The reliability diagram.
    pub bins: Vec<CalibrationBin>,
}

/// Confidence, whether right, and squared distance of one example.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Judged {
    confidence: f64,
    right: bool,
    pub(super) distance: f64,
}

/// ECE over `bins` bins and Brier score of class probabilities, one row per example.
///
/// # Errors
/// Lists of different lengths, rows that are no distributions, classes out of range, no examples or bins.
pub fn calibration(
    gold: &[usize],
    probabilities: &[Vec<f64>],
    bins: usize,
    config: &BootstrapConfig,
) -> Result<CalibrationReport, CalibrationError> {
    if bins == 0 {
        return Err(CalibrationError::NoBins);
    }
    report(&judge(gold, probabilities)?, bins, config)
}

/// The same for examples that are judged already.
pub(super) fn report(
    judged: &[Judged],
    bins: usize,
    config: &BootstrapConfig,
) -> Result<CalibrationReport, CalibrationError> {
    let distances: Vec<f64> = judged.iter().map(|j| j.distance).collect();
    let all: Vec<usize> = (0..judged.len()).collect();
    Ok(CalibrationReport {
        ece: bootstrap(judged.len(), |i| expected_error(judged, i, bins), config)?,
        brier: bootstrap_mean(&distances, config)?,
        bins: binned(judged, &all, bins),
    })
}

/// The likeliest class; the first of equals, `None` of none.
pub fn likeliest(probabilities: &[f64]) -> Option<usize> {
    let indexed = probabilities.iter().enumerate();
    indexed
        .rev()
        .max_by(|a, b| a.1.total_cmp(b.1))
        .map(|(class, _)| class)
}

/// Checks the rows and sets each against its gold class.
pub(super) fn judge(
    gold: &[usize],
    probabilities: &[Vec<f64>],
) -> Result<Vec<Judged>, CalibrationError> {
    if gold.len() != probabilities.len() {
        return Err(CalibrationError::Lengths {
            probabilities: probabilities.len(),
            gold: gold.len(),
        });
    }
    let classes = probabilities.first().map_or(0, Vec::len);
    let rows = gold.iter().zip(probabilities).enumerate();
    rows.map(|(example, (&class, row))| {
        let share = |p: &f64| (-1e-6..=1.0 + 1e-6).contains(p);
        let sums = (row.iter().sum::<f64>() - 1.0).abs() <= SUM_TOLERANCE;
        if row.len() != classes || !row.iter().all(share) || !sums {
            return Err(CalibrationError::Row {
                example,
                found: row.clone(),
                classes,
            });
        }
        if class >= classes {
            return Err(CalibrationError::Class {
                example,
                found: class,
                classes,
            });
        }
        let best = likeliest(row).unwrap_or(0);
        let truth = |k: usize| f64::from(u8::from(k == class));
        Ok(Judged {
            confidence: row[best].min(1.0),
            right: best == class,
            distance: row
                .iter()
                .enumerate()
                .map(|(k, p)| (p - truth(k)).powi(2))
                .sum(),
        })
    })
    .collect()
}

fn binned(judged: &[Judged], indices: &[usize], bins: usize) -> Vec<CalibrationBin> {
    let width = 1.0 / bins as f64;
    let bin = |k: usize| CalibrationBin {
        low: k as f64 * width,
        high: (k + 1) as f64 * width,
        examples: 0,
        confidence: 0.0,
        accuracy: 0.0,
    };
    let mut all: Vec<CalibrationBin> = (0..bins).map(bin).collect();
    for example in indices.iter().map(|&i| judged[i]) {
        let place = ((example.confidence * bins as f64).ceil() as usize).clamp(1, bins) - 1;
        let bin = &mut all[place];
        bin.examples += 1;
        bin.confidence += example.confidence;
        bin.accuracy += f64::from(u8::from(example.right));
    }
    for bin in all.iter_mut().filter(|b| b.examples > 0) {
        bin.confidence /= bin.examples as f64;
        bin.accuracy /= bin.examples as f64;
    }
    all
}

/// ECE of the examples drawn.
pub(super) fn expected_error(judged: &[Judged], indices: &[usize], bins: usize) -> f64 {
    let gaps = binned(judged, indices, bins)
        .into_iter()
        .map(|b| b.examples as f64 * (b.confidence - b.accuracy).abs());
    gaps.sum::<f64>() / indices.len().max(1) as f64
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::float_cmp)]
mod tests {
    use super::*;

    fn report(gold: &[usize], p: &[Vec<f64>], bins: usize) -> CalibrationReport {
        calibration(gold, p, bins, &BootstrapConfig::default()).unwrap()
    }

    #[test]
    fn a_worked_example() {
        // Confidences 0.9 right, 0.7 wrong, 0.6 right, 0.7 right, in two bins of which only the upper holds any.
        let p = [
            vec![0.9, 0.1],
            vec![0.3, 0.7],
            vec![0.6, 0.4],
            vec![0.7, 0.3],
        ];
        let found = report(&[0, 0, 0, 0], &p, 2);
        assert!(
            (found.ece.estimate - (0.75 - 2.9 / 4.0)).abs() < 1e-12,
            "{found:?}"
        );
        // 2 · (1 - p)² for the true class of two.
        let brier = 2.0 * (0.01 + 0.49 + 0.16 + 0.09) / 4.0;
        assert!((found.brier.estimate - brier).abs() < 1e-12);
        assert_eq!([found.bins[0].examples, found.bins[1].examples], [0, 4]);
        // Ten bins: 0.9 alone, 0.6 alone, the two of 0.7 together.
        let fine = report(&[0, 0, 0, 0], &p, 10).ece.estimate;
        assert!(
            (fine - (0.1 + 0.4 + 2.0 * 0.2) / 4.0).abs() < 1e-12,
            "{fine}"
        );
    }

    #[test]
    fn certainty_is_perfect_or_worst() {
        let sure = vec![vec![1.0, 0.0, 0.0]; 5];
        let right = report(&[0; 5], &sure, CALIBRATION_BINS);
        assert_eq!((right.ece.estimate, right.brier.estimate), (0.0, 0.0));
        let wrong = report(&[2; 5], &sure, CALIBRATION_BINS);
        assert_eq!((wrong.ece.estimate, wrong.brier.estimate), (1.0, 2.0));
        assert_eq!(wrong.bins[CALIBRATION_BINS - 1].examples, 5);
    }

    #[test]
    fn ties_take_the_first_class() {
        assert_eq!(likeliest(&[0.2, 0.4, 0.4]), Some(1));
        assert_eq!(likeliest(&[]), None);
    }

    #[test]
    fn what_is_no_distribution_is_refused() {
        let config = BootstrapConfig::default();
        let run =
            |gold: &[usize], p: &[Vec<f64>], bins| calibration(gold, p, bins, &config).unwrap_err();
        for row in [
            vec![0.5, 0.6],
            vec![2.0, -1.0],
            vec![f64::NAN, 1.0],
            vec![1.0],
            vec![],
        ] {
            let p = [vec![0.5, 0.5], row];
            assert!(
                matches!(
                    run(&[0, 0], &p, 5),
                    CalibrationError::Row { example: 1, .. }
                ),
                "{p:?}"
            );
        }
        let fine = [vec![0.5, 0.5]];
        assert!(matches!(
            run(&[2], &fine, 5),
            CalibrationError::Class { found: 2, .. }
        ));
        assert!(matches!(
            run(&[0, 1], &fine, 5),
            CalibrationError::Lengths { .. }
        ));
        assert!(matches!(run(&[0], &fine, 0), CalibrationError::NoBins));
        assert!(matches!(
            run(&[], &[], 5),
            CalibrationError::Bootstrap(BootstrapError::Empty)
        ));
    }
}
