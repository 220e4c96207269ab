//! Scores of a classifier's probabilities: accuracy, F1, recall and confusion, with intervals; base against adapted.

use anyhow::Result;
use qloom_core::evaluation::{
    BootstrapConfig, ConfusionMatrix, bootstrap, bootstrap_mean, mcnemar_exact, paired_bootstrap,
};
use qloom_core::train::ClassLosses;
use serde_json::{Map, Value, json};

use crate::report::scores::{Metric, Score};

/// Scores of one model on examples whose classes are known.
#[derive(Clone, Debug)]
pub(crate) struct ClassifierScores {
    /// Probabilities, right classes and losses.
    pub(crate) losses: ClassLosses,
    matrix: ConfusionMatrix,
    loss: Score,
    accuracy: Score,
    macro_f1: Score,
    macro_recall: Score,
}

impl ClassifierScores {
    /// Scores `losses` under the classes' names.
    pub(crate) fn new(losses: ClassLosses, labels: &[String]) -> Result<Self> {
        let predicted = losses.predicted();
        let matrix_of = |rows: &mut dyn Iterator<Item = usize>| -> Result<ConfusionMatrix> {
            let mut matrix = ConfusionMatrix::new(labels.to_vec())?;
            for row in rows {
                matrix.add(losses.gold[row], Some(predicted[row]))?;
            }
            Ok(matrix)
        };
        let config = BootstrapConfig::default();
        let matrix = matrix_of(&mut (0..losses.gold.len()))?;
        let interval = |statistic: fn(&ConfusionMatrix) -> f64| -> Result<Score> {
            let resampled = |rows: &[usize]| {
                matrix_of(&mut rows.iter().copied()).map_or(f64::NAN, |m| statistic(&m))
            };
            let found = bootstrap(losses.gold.len(), resampled, &config)?;
            Ok(Score {
                value: statistic(&matrix),
                interval: Some((found.low, found.high)),
            })
        };
        let loss = bootstrap_mean(&losses.nll, &config)?;
        Ok(Self {
            loss: Score {
                value: losses.loss(),
                interval: Some((loss.low, loss.high)),
            },
            accuracy: interval(ConfusionMatrix::accuracy)?,
            macro_f1: interval(ConfusionMatrix::macro_f1)?,
            macro_recall: interval(ConfusionMatrix::macro_recall)?,
            matrix,
            losses,
        })
    }

    /// The object of `metrics.json`.
    pub(crate) fn to_json(&self) -> Map<String, Value> {
        let mut out = Map::new();
        for (key, score) in [
            ("loss", &self.loss),
            ("accuracy", &self.accuracy),
            ("macro_f1", &self.macro_f1),
            ("macro_recall", &self.macro_recall),
        ] {
            out.insert(key.to_owned(), json!(score.value));
            let bounds = score.interval.map(|(low, high)| [low, high]);
            out.insert(format!("{key}_ci"), json!(bounds));
        }
        let report = self.matrix.report();
        out.insert("weighted_f1".to_owned(), json!(report.weighted_f1));
        out.insert("examples".to_owned(), json!(report.examples));
        let per_class: Map<String, Value> = report
            .per_class
            .iter()
            .map(|c| {
                let scores = json!({ "precision": c.precision, "recall": c.recall, "f1": c.f1, "support": c.support });
                (c.label.clone(), scores)
            })
            .collect();
        out.insert("per_class".to_owned(), Value::Object(per_class));
        let matrix = json!({ "labels": self.matrix.labels(), "rows": self.matrix.rows().collect::<Vec<_>>() });
        out.insert("confusion_matrix".to_owned(), matrix);
        out
    }

    fn correct(&self) -> Vec<bool> {
        let pairs = self.losses.gold.iter().zip(self.losses.predicted());
        pairs.map(|(gold, predicted)| *gold == predicted).collect()
    }

    /// Rows of a table for this model alone.
    pub(crate) fn metrics(&self) -> Vec<Metric> {
        let row = |name: &str, lower_is_better, score| Metric {
            name: name.into(),
            lower_is_better,
            base: Some(score),
            adapted: None,
            p: None,
        };
        vec![
            row("accuracy", false, self.accuracy),
            row("macro F1", false, self.macro_f1),
            row("macro recall", false, self.macro_recall),
            row("loss", true, self.loss),
        ]
    }
}

/// Rows of the summary table, with paired tests: McNemar's on accuracy, the paired bootstrap on the loss.
pub(crate) fn compare_classifiers(
    base: &ClassifierScores,
    adapted: &ClassifierScores,
) -> Result<Vec<Metric>> {
    let accuracy = mcnemar_exact(&base.correct(), &adapted.correct())?.p_value;
    let mean =
        |nll: &[f64], rows: &[usize]| rows.iter().map(|&i| nll[i]).sum::<f64>() / rows.len() as f64;
    let loss = paired_bootstrap(
        base.losses.nll.len(),
        |rows| mean(&base.losses.nll, rows),
        |rows| mean(&adapted.losses.nll, rows),
        &BootstrapConfig::default(),
    )?;
    let tests = [Some(accuracy), None, None, Some(loss.p_value)];
    let rows = base.metrics().into_iter().zip(adapted.metrics()).zip(tests);
    Ok(rows
        .map(|((b, a), p)| Metric {
            adapted: a.base,
            p,
            ..b
        })
        .collect())
}

/// `positive (0.98)`: the likeliest class and its probability.
pub(crate) fn describe_class(probabilities: &[f32], labels: &[String]) -> String {
    let best = probabilities
        .iter()
        .enumerate()
        .max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)));
    match best {
        Some((class, p)) => {
            let name = labels
                .get(class)
                .map_or_else(|| class.to_string(), Clone::clone);
            format!("{name} ({p:.2})")
        }
        None => String::new(),
    }
}
