//! A metric of one model with what pairing it needs, and two models' compared: what the trainer's tables and the page's
//! show, whichever way the model answered.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    BootstrapConfig, BootstrapError, ClassMetric, Interval, PairedDifference, PerplexityError,
    PredictionError, Predictions, SignificanceTest, TextScores, TokenLosses,
};

/// Scores that cannot be had or compared.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum MeasureError {
    /// Losses without a perplexity.
    #[error(transparent)]
    Losses(#[from] PerplexityError),
    /// Predictions without a score.
    #[error(transparent)]
    Classes(#[from] PredictionError),
    /// No interval.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// Two models that were not measured alike.
    #[error("base and adapted were not measured by the same metrics")]
    Unlike,
}

type Result<T> = std::result::Result<T, MeasureError>;

/// One metric of one model, or of base and adapted with what their comparison says.
#[derive(Clone, Debug, PartialEq)]
pub struct Compared {
    /// The key in `metrics.json`.
    pub key: String,
    /// Whether smaller is better.
    pub lower_is_better: bool,
    /// Whether tables and charts show it.
    pub shown: bool,
    /// Of the base, or of the only model.
    pub base: Option<Interval>,
    /// With the adapter.
    pub adapted: Option<Interval>,
    /// Adapted minus base.
    pub difference: Option<Interval>,
    /// Of the difference.
    pub p: Option<f64>,
}

/// How intervals and p-values are found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Statistics {
    /// Draws, level and seed.
    pub bootstrap: BootstrapConfig,
    /// Which test gives the p-value of text metrics; the others have one each.
    pub test: SignificanceTest,
}

/// A metric of one model.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// The key in `metrics.json`.
    pub key: String,
    /// The value with its interval.
    pub interval: Interval,
    /// Whether smaller is better.
    lower_is_better: bool,
    /// Whether tables and charts show it.
    shown: bool,
    of: Of,
}

/// What the value was computed from.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Of {
    /// Nothing that is compared.
    Alone,
    Losses(TokenLosses),
    Classes(ClassMetric, Predictions),
    Text(TextScores),
}

impl Measured {
    /// Perplexity, and the loss it is the exponential of.
    pub fn losses(losses: TokenLosses, statistics: &Statistics) -> Result<[Self; 2]> {
        let report = losses.report(&statistics.bootstrap)?;
        let interval = |estimate, [low, high]: [f64; 2]| Interval {
            estimate,
            low,
            high,
        };
        let measured = |key: &str, interval, of| Self {
            key: key.to_owned(),
            interval,
            lower_is_better: true,
            shown: matches!(of, Of::Losses(_)),
            of,
        };
        let perplexity = interval(report.perplexity, report.perplexity_ci);
        Ok([
            measured("perplexity", perplexity, Of::Losses(losses)),
            measured("loss", interval(report.loss, report.loss_ci), Of::Alone),
        ])
    }

    /// A metric of predicted classes. `prefix` tells several ways of predicting apart.
    pub fn classes(
        prefix: &str,
        metric: ClassMetric,
        predictions: &Predictions,
        statistics: &Statistics,
    ) -> Result<Self> {
        Ok(Self {
            key: format!("{prefix}{}", metric.name()),
            interval: predictions.interval(metric, &statistics.bootstrap)?,
            lower_is_better: metric.lower_is_better(),
            shown: true,
            of: Of::Classes(metric, predictions.clone()),
        })
    }

    /// A metric of text.
    pub fn text(key: &str, scores: TextScores, statistics: &Statistics) -> Result<Self> {
        Ok(Self {
            key: key.to_owned(),
            interval: scores.interval(&statistics.bootstrap)?,
            lower_is_better: false,
            shown: true,
            of: Of::Text(scores),
        })
    }

    /// The mean of one value per example.
    pub fn mean(
        key: &str,
        values: &[f64],
        lower_is_better: bool,
        statistics: &Statistics,
    ) -> Result<Self> {
        let mean = TextScores::mean(values.iter().copied());
        Ok(Self {
            lower_is_better,
            ..Self::text(key, mean, statistics)?
        })
    }

    /// The same, left out of tables and charts.
    pub fn hidden(mut self) -> Self {
        self.shown = false;
        self
    }

    /// Value of every example, for text metrics.
    pub fn per_example(&self) -> Option<Vec<f64>> {
        match &self.of {
            Of::Text(scores) => Some(scores.per_example()),
            _ => None,
        }
    }

    /// This metric without another model's.
    pub fn alone(&self) -> Compared {
        Compared {
            key: self.key.clone(),
            lower_is_better: self.lower_is_better,
            shown: self.shown,
            base: Some(self.interval),
            adapted: None,
            difference: None,
            p: None,
        }
    }

    fn paired(&self, adapted: &Self, statistics: &Statistics) -> Result<Option<PairedDifference>> {
        let config = &statistics.bootstrap;
        Ok(match (&self.of, &adapted.of) {
            (Of::Losses(base), Of::Losses(adapted)) => Some(base.compare(adapted, config)?),
            (Of::Classes(metric, base), Of::Classes(_, adapted)) => {
                let mut found = base.compare(adapted, *metric, config)?;
                if *metric == ClassMetric::Accuracy {
                    // Exact, where the bootstrap only samples.
                    found.p_value = base.mcnemar(adapted)?.p_value;
                }
                Some(found)
            }
            (Of::Text(base), Of::Text(adapted)) => {
                Some(base.compare(adapted, statistics.test, config)?)
            }
            _ => None,
        })
    }
}

/// Both models' metrics side by side. Both must have been measured alike.
pub fn compare(
    base: &[Measured],
    adapted: &[Measured],
    statistics: &Statistics,
) -> Result<Vec<Compared>> {
    if !base
        .iter()
        .map(|m| &m.key)
        .eq(adapted.iter().map(|m| &m.key))
    {
        return Err(MeasureError::Unlike);
    }
    let pairs = base.iter().zip(adapted);
    pairs
        .map(|(base, adapted)| {
            let paired = base.paired(adapted, statistics)?;
            Ok(Compared {
                adapted: Some(adapted.interval),
                difference: paired.map(|p| p.difference),
                p: paired.map(|p| p.p_value),
                ..base.alone()
            })
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;

    fn losses(scale: f64) -> TokenLosses {
        let mut losses = TokenLosses::new();
        (0..30).for_each(|i| losses.push(scale * f64::from(10 + i % 5), 8).unwrap());
        losses
    }

    #[test]
    fn every_kind_is_compared_with_its_test() {
        let statistics = Statistics::default();
        let classes = |right: usize| {
            let gold: Vec<usize> = (0..30).map(|i| i % 2).collect();
            let answers = gold
                .iter()
                .enumerate()
                .map(|(i, g)| (i < right).then_some(*g));
            Predictions::new(["no", "yes"], gold.clone(), answers.collect()).unwrap()
        };
        let measure = |scale: f64, right: usize| {
            let mut all = Measured::losses(losses(scale), &statistics)
                .unwrap()
                .to_vec();
            let classes = classes(right);
            all.push(Measured::classes("", ClassMetric::Accuracy, &classes, &statistics).unwrap());
            let text = TextScores::mean((0..30).map(|i| scale * f64::from(i)));
            all.push(Measured::text("rouge1", text, &statistics).unwrap());
            all
        };
        let (base, adapted) = (measure(1.0, 10), measure(0.5, 28));
        let rows = compare(&base, &adapted, &statistics).unwrap();
        let keys: Vec<&str> = rows.iter().map(|r| r.key.as_str()).collect();
        assert_eq!(keys, ["perplexity", "loss", "accuracy", "rouge1"]);
        assert_eq!(
            rows.iter().map(|r| r.p.is_some()).collect::<Vec<_>>(),
            [true, false, true, true]
        );
        assert!(!rows[1].shown && rows[0].difference.unwrap().high < 0.0);
        // McNemar: 18 examples, all in favour of one.
        assert!((rows[2].p.unwrap() - 2.0 * 0.5f64.powi(18)).abs() < 1e-12);
        assert!(compare(&base, &adapted[1..], &statistics).is_err());
    }
}
