//! Classes predicted for examples whose class is known: everything that is said about a classifier, whichever way it
//! answers (generated text, label likelihoods, a classification head).
//!
//! ```
//! # use qloom_core::evaluation::{BootstrapConfig, Predictions};
//! let labels = ["negative", "positive"];
//! let from_text = Predictions::new(labels, vec![0, 1, 1], vec![Some(0), None, Some(1)])?;
//! assert_eq!(from_text.matrix()?.unparsed(), 1);
//! let from_head = Predictions::from_probabilities(labels, vec![0, 1], vec![vec![0.9, 0.1], vec![0.2, 0.8]])?;
//! assert_eq!(from_head.report(&BootstrapConfig::default())?.accuracy.estimate, 1.0);
//! # Ok::<(), qloom_core::evaluation::PredictionError>(())
//! ```

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::bootstrap::{
    BootstrapConfig, BootstrapError, Interval, PairedDifference, bootstrap, paired_bootstrap,
};
use super::calibration::{
    self, CALIBRATION_BINS, CalibrationError, CalibrationReport, Judged, likeliest,
};
use super::classification::{
    ClassificationError, ClassificationReport, ConfusionMatrix, McNemar, mcnemar_exact,
};

/// Predictions that cannot be scored.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum PredictionError {
    /// Not one prediction for every gold class.
    #[error("{predicted} predictions stand against {gold} gold classes, expected one each")]
    Lengths {
        /// Predictions given.
        predicted: usize,
        /// Gold classes given.
        gold: usize,
    },
    /// Labels or classes that do not fit.
    #[error(transparent)]
    Classes(#[from] ClassificationError),
    /// Probabilities that are none.
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    /// A metric of probabilities, asked of bare classes.
    #[error("{metric} needs class probabilities, and these predictions are classes only")]
    NoProbabilities {
        /// The metric's name.
        metric: &'static str,
    },
    /// No interval.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
}

/// Gold and predicted class of every example.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Predictions {
    labels: Vec<String>,
    gold: Vec<usize>,
    predicted: Vec<Option<usize>>,
    /// Where there are probabilities.
    judged: Option<Vec<Judged>>,
}

/// A score of the examples drawn.
type Statistic<'a> = Box<dyn FnMut(&[usize]) -> f64 + 'a>;

/// A score over classes that is compared between models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClassMetric {
    /// Share of right answers.
    Accuracy,
    /// Plain mean of the classes' F1.
    MacroF1,
    /// Plain mean of the classes' recall.
    MacroRecall,
    /// Expected calibration error over [`CALIBRATION_BINS`] bins; needs probabilities.
    Ece,
    /// Brier score; needs probabilities.
    Brier,
}

/// Scores with their intervals.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PredictionReport {
    /// Share of right answers.
    pub accuracy: Interval,
    /// Plain mean of the classes' F1.
    pub macro_f1: Interval,
    /// Plain mean of the classes' recall.
    pub macro_recall: Interval,
    /// Per-class scores and everything without an interval.
    pub summary: ClassificationReport,
    /// `classes` rows (gold) of `classes + 1` counts (predicted, then "no label").
    pub confusion_matrix: Vec<Vec<u64>>,
}

impl ClassMetric {
    /// Those of classes.
    pub const OF_CLASSES: [Self; 3] = [Self::Accuracy, Self::MacroF1, Self::MacroRecall];
    /// Those of probabilities.
    pub const OF_PROBABILITIES: [Self; 2] = [Self::Ece, Self::Brier];

    /// The key in `metrics.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::MacroF1 => "macro_f1",
            Self::MacroRecall => "macro_recall",
            Self::Ece => "ece",
            Self::Brier => "brier",
        }
    }

    /// The metric of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        let mut all = Self::OF_CLASSES.into_iter().chain(Self::OF_PROBABILITIES);
        all.find(|m| m.name() == name)
    }

    /// Whether smaller is better.
    pub fn lower_is_better(self) -> bool {
        matches!(self, Self::Ece | Self::Brier)
    }
}

impl Predictions {
    /// From classes; `None` where an answer named no label, which counts as wrong.
    ///
    /// # Errors
    /// Lists of different lengths, bad labels, classes beyond them.
    pub fn new<S: Into<String>>(
        labels: impl IntoIterator<Item = S>,
        gold: Vec<usize>,
        predicted: Vec<Option<usize>>,
    ) -> Result<Self, PredictionError> {
        if gold.len() != predicted.len() {
            return Err(PredictionError::Lengths {
                predicted: predicted.len(),
                gold: gold.len(),
            });
        }
        let labels = labels.into_iter().map(Into::into).collect();
        let all = Self {
            labels,
            gold,
            predicted,
            judged: None,
        };
        all.matrix()?;
        Ok(all)
    }

    /// From class probabilities, of which the largest decides.
    ///
    /// # Errors
    /// As [`new`](Self::new), and rows that are no distributions over the labels.
    pub fn from_probabilities<S: Into<String>>(
        labels: impl IntoIterator<Item = S>,
        gold: Vec<usize>,
        probabilities: Vec<Vec<f64>>,
    ) -> Result<Self, PredictionError> {
        let predicted = probabilities.iter().map(|row| likeliest(row)).collect();
        let mut all = Self::new(labels, gold, predicted)?;
        let classes = all.labels.len();
        if let Some(example) = probabilities.iter().position(|row| row.len() != classes) {
            let found = probabilities[example].clone();
            return Err(CalibrationError::Row {
                example,
                found,
                classes,
            }
            .into());
        }
        all.judged = Some(calibration::judge(&all.gold, &probabilities)?);
        Ok(all)
    }

    /// The labels, in class order.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The gold classes.
    pub fn gold(&self) -> &[usize] {
        &self.gold
    }

    /// The predicted classes.
    pub fn predicted(&self) -> &[Option<usize>] {
        &self.predicted
    }

    /// Of each example, whether it was answered rightly.
    pub fn correct(&self) -> Vec<bool> {
        self.gold
            .iter()
            .zip(&self.predicted)
            .map(|(g, p)| Some(*g) == *p)
            .collect()
    }

    /// The confusion matrix.
    ///
    /// # Errors
    /// None for predictions that were accepted.
    pub fn matrix(&self) -> Result<ConfusionMatrix, ClassificationError> {
        let mut matrix = ConfusionMatrix::new(self.labels.clone())?;
        self.fill(&mut matrix, 0..self.gold.len())?;
        Ok(matrix)
    }

    /// Scores with intervals.
    ///
    /// # Errors
    /// No examples; settings out of range.
    pub fn report(&self, config: &BootstrapConfig) -> Result<PredictionReport, PredictionError> {
        let all = self.matrix()?;
        Ok(PredictionReport {
            accuracy: self.interval(ClassMetric::Accuracy, config)?,
            macro_f1: self.interval(ClassMetric::MacroF1, config)?,
            macro_recall: self.interval(ClassMetric::MacroRecall, config)?,
            summary: all.report(),
            confusion_matrix: all.rows().map(<[u64]>::to_vec).collect(),
        })
    }

    /// One score with its interval.
    ///
    /// # Errors
    /// No examples; settings out of range.
    pub fn interval(
        &self,
        metric: ClassMetric,
        config: &BootstrapConfig,
    ) -> Result<Interval, PredictionError> {
        let statistic = self.statistic(metric)?;
        Ok(bootstrap(self.gold.len(), statistic, config)?)
    }

    /// Calibration over [`CALIBRATION_BINS`] bins; `None` without probabilities.
    ///
    /// # Errors
    /// No examples; settings out of range.
    pub fn calibration(
        &self,
        config: &BootstrapConfig,
    ) -> Result<Option<CalibrationReport>, PredictionError> {
        let of = |judged: &Vec<Judged>| calibration::report(judged, CALIBRATION_BINS, config);
        Ok(self.judged.as_ref().map(of).transpose()?)
    }

    /// `adapted` minus `self`, the base, on the same examples.
    ///
    /// # Errors
    /// Different examples or labels; no examples; settings out of range.
    pub fn compare(
        &self,
        adapted: &Self,
        metric: ClassMetric,
        config: &BootstrapConfig,
    ) -> Result<PairedDifference, PredictionError> {
        self.same_examples(adapted)?;
        let (base, tuned) = (self.statistic(metric)?, adapted.statistic(metric)?);
        Ok(paired_bootstrap(self.gold.len(), base, tuned, config)?)
    }

    /// The exact test of both accuracies.
    ///
    /// # Errors
    /// Different examples or labels.
    pub fn mcnemar(&self, adapted: &Self) -> Result<McNemar, PredictionError> {
        self.same_examples(adapted)?;
        Ok(mcnemar_exact(&self.correct(), &adapted.correct())?)
    }

    fn same_examples(&self, other: &Self) -> Result<(), PredictionError> {
        let (base, adapted) = (self.gold.len(), other.gold.len());
        match self.gold == other.gold && self.labels == other.labels {
            true => Ok(()),
            false => Err(ClassificationError::Lengths { base, adapted }.into()),
        }
    }

    /// A closure that scores the examples drawn; it counts into one matrix again and again.
    fn statistic(&self, metric: ClassMetric) -> Result<Statistic<'_>, PredictionError> {
        let name = metric.name();
        let judged = || {
            let missing = PredictionError::NoProbabilities { metric: name };
            self.judged.as_ref().ok_or(missing)
        };
        let of: fn(&ConfusionMatrix) -> f64 = match metric {
            ClassMetric::Accuracy => ConfusionMatrix::accuracy,
            ClassMetric::MacroF1 => ConfusionMatrix::macro_f1,
            ClassMetric::MacroRecall => ConfusionMatrix::macro_recall,
            ClassMetric::Ece => {
                let judged = judged()?;
                return Ok(Box::new(|indices| {
                    calibration::expected_error(judged, indices, CALIBRATION_BINS)
                }));
            }
            ClassMetric::Brier => {
                let judged = judged()?;
                return Ok(Box::new(|indices| {
                    let sum: f64 = indices.iter().map(|&i| judged[i].distance).sum();
                    sum / indices.len() as f64
                }));
            }
        };
        let mut matrix = ConfusionMatrix::new(self.labels.clone())?;
        Ok(Box::new(move |indices| {
            matrix.clear();
            match self.fill(&mut matrix, indices.iter().copied()) {
                Ok(()) => of(&matrix),
                Err(_) => f64::NAN,
            }
        }))
    }

    fn fill(
        &self,
        matrix: &mut ConfusionMatrix,
        indices: impl Iterator<Item = usize>,
    ) -> Result<(), ClassificationError> {
        for i in indices {
            matrix.add(self.gold[i], self.predicted[i])?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::float_cmp)]
mod tests {
    use super::*;

    const LABELS: [&str; 3] = ["a", "b", "c"];

    fn predictions(gold: &[usize], predicted: &[Option<usize>]) -> Predictions {
        Predictions::new(LABELS, gold.to_vec(), predicted.to_vec()).unwrap()
    }

    #[test]
    fn answers_without_a_label_count_as_wrong() {
        let found = predictions(&[0, 0, 1, 2], &[Some(0), None, Some(1), Some(0)]);
        let report = found.report(&BootstrapConfig::default()).unwrap();
        assert_eq!(report.accuracy.estimate, 0.5);
        assert_eq!((report.summary.examples, report.summary.unparsed), (4, 1));
        assert_eq!(
            report.confusion_matrix,
            [vec![1, 0, 0, 1], vec![0, 1, 0, 0], vec![1, 0, 0, 0]]
        );
        assert_eq!(found.correct(), [true, false, true, false]);
        assert_eq!(report.macro_recall.estimate, (0.5 + 1.0 + 0.0) / 3.0);
        assert!(report.accuracy.low < 0.5 && report.accuracy.high > 0.5);
        assert!(
            found
                .calibration(&BootstrapConfig::default())
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn probabilities_decide_by_the_largest() {
        let p = vec![vec![0.2, 0.5, 0.3], vec![0.4, 0.2, 0.4]];
        let found = Predictions::from_probabilities(LABELS, vec![1, 2], p).unwrap();
        assert_eq!(found.predicted(), [Some(1), Some(0)]);
        let calibration = found
            .calibration(&BootstrapConfig::default())
            .unwrap()
            .unwrap();
        assert!(calibration.brier.estimate > 0.0);
        let short =
            Predictions::from_probabilities(LABELS, vec![0], vec![vec![0.5, 0.5]]).unwrap_err();
        assert!(short.to_string().contains("expected 3 numbers"), "{short}");
        assert!(
            Predictions::from_probabilities(LABELS, vec![0], vec![vec![3.0, 1.0, -2.0]]).is_err()
        );
        assert!(Predictions::from_probabilities(LABELS, vec![0], vec![vec![]]).is_err());
    }

    #[test]
    fn models_are_compared_on_the_same_examples() {
        let gold: Vec<usize> = (0..60).map(|i| i % 3).collect();
        let guess: Vec<Option<usize>> = (0..60).map(|_| Some(0)).collect();
        let right: Vec<Option<usize>> = gold.iter().map(|&g| Some(g)).collect();
        let (base, tuned) = (predictions(&gold, &guess), predictions(&gold, &right));
        for metric in ClassMetric::OF_CLASSES {
            let found = base
                .compare(&tuned, metric, &BootstrapConfig::default())
                .unwrap();
            assert!(
                found.difference.low > 0.0 && found.p_value < 0.01,
                "{} {found:?}",
                metric.name()
            );
        }
        assert!(base.mcnemar(&tuned).unwrap().p_value < 1e-6);
        let other = predictions(&gold[1..], &guess[1..]);
        assert!(
            base.compare(&other, ClassMetric::Accuracy, &BootstrapConfig::default())
                .is_err()
        );
        assert!(base.mcnemar(&other).is_err());
    }

    #[test]
    fn probabilities_are_compared_too() {
        let gold: Vec<usize> = (0..90).map(|i| i % 3).collect();
        let row = |g: usize, right: f64| {
            let mut row = vec![(1.0 - right) / 2.0; 3];
            row[g] = right;
            row
        };
        let make = |right: f64| {
            let rows = gold.iter().map(|&g| row(g, right)).collect();
            Predictions::from_probabilities(LABELS, gold.clone(), rows).unwrap()
        };
        let (vague, sure) = (make(0.5), make(0.98));
        for metric in ClassMetric::OF_PROBABILITIES {
            assert!(metric.lower_is_better());
            let one = vague.interval(metric, &BootstrapConfig::default()).unwrap();
            let report = vague
                .calibration(&BootstrapConfig::default())
                .unwrap()
                .unwrap();
            assert!(one == report.ece || one == report.brier);
            let found = vague
                .compare(&sure, metric, &BootstrapConfig::default())
                .unwrap();
            assert!(found.difference.high < 0.0 && found.p_value < 0.01);
        }
        let bare = predictions(&[0], &[Some(0)]);
        let error = bare
            .interval(ClassMetric::Ece, &BootstrapConfig::default())
            .unwrap_err();
        assert!(error.to_string().contains("ece needs"), "{error}");
        for name in ["accuracy", "macro_f1", "macro_recall", "ece", "brier"] {
            assert_eq!(ClassMetric::from_name(name).unwrap().name(), name);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let make = |gold: Vec<usize>, p: Vec<Option<usize>>| {
            Predictions::new(LABELS, gold, p).unwrap_err()
        };
        assert!(matches!(
            make(vec![0], vec![]),
            PredictionError::Lengths { .. }
        ));
        assert!(make(vec![3], vec![None]).to_string().contains("0 to 2"));
        assert!(make(vec![0], vec![Some(7)]).to_string().contains("class 7"));
        let none = predictions(&[], &[])
            .report(&BootstrapConfig::default())
            .unwrap_err();
        assert!(matches!(
            none,
            PredictionError::Bootstrap(BootstrapError::Empty)
        ));
    }
}
