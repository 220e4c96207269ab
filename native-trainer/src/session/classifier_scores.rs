//! Scores of a classifier's probabilities (accuracy, F1, recall, calibration, confusion) with intervals, and base against
//! adapted on the same examples.

use anyhow::{Context, Result, ensure};
use qloom_core::data::Example;
use qloom_core::evaluation::{ClassMetric, Predictions, TokenLosses};
use qloom_core::tokenizer::Tokenizer;
use qloom_core::train::ClassLosses;
use serde_json::{Map, Value, json};

use crate::config::EvalConfig;
use crate::report::board::{Board, Compared, Grid};
use crate::scoring::labels;
use crate::scoring::measured::{Measured, Statistics, compare};

/// Scores of one model on examples whose classes are known.
#[derive(Clone, Debug)]
pub(crate) struct ClassifierScores {
    /// Probabilities, right classes and losses.
    pub(crate) losses: ClassLosses,
    classes: Predictions,
    measured: Vec<Measured>,
    facts: Map<String, Value>,
    statistics: Statistics,
}

impl ClassifierScores {
    /// Scores `losses` under the classes' names.
    pub(crate) fn new(
        losses: ClassLosses,
        names: &[String],
        settings: &EvalConfig,
    ) -> Result<Self> {
        let statistics = Statistics {
            bootstrap: settings.bootstrap,
            test: settings.significance,
        };
        let classes = Predictions::from_probabilities(
            names.to_vec(),
            losses.gold.clone(),
            losses.probabilities.clone(),
        )?;
        let mut nll = TokenLosses::default();
        for &loss in &losses.nll {
            nll.push(loss, 1)?;
        }
        // A classifier's loss is a mean over examples; its exponential says nothing.
        let [_, loss] = Measured::losses(nll, &statistics)?;
        let metrics = ClassMetric::OF_CLASSES
            .into_iter()
            .chain(ClassMetric::OF_PROBABILITIES);
        let mut measured = metrics
            .map(|metric| Measured::classes("", metric, &classes, &statistics))
            .collect::<Result<Vec<_>>>()?;
        measured.push(loss);
        let mut facts = labels::class_facts(&classes)?;
        if let Some(report) = classes.calibration(&statistics.bootstrap)? {
            facts.insert("calibration_bins".to_owned(), json!(report.bins));
        }
        facts.insert("examples".to_owned(), json!(losses.gold.len()));
        Ok(Self {
            losses,
            classes,
            measured,
            facts,
            statistics,
        })
    }

    /// The object of `metrics.json`.
    pub(crate) fn to_json(&self) -> Map<String, Value> {
        let mut out = Map::new();
        for measured in &self.measured {
            out.insert(measured.key.clone(), json!(measured.interval.estimate));
            out.insert(
                format!("{}_ci", measured.key),
                json!(measured.interval.bounds()),
            );
        }
        out.extend(self.facts.clone());
        out
    }

    /// Says in `metrics.json` that the head these scores are of was never trained.
    pub(crate) fn mark_untrained(&mut self) {
        self.facts.insert("head".to_owned(), "untrained".into());
    }
}

/// Everything there is to show of a base, an adapted model or both on the same `examples`; a base without a head has no
/// scores.
pub(crate) fn classifier_board(
    title: &str,
    base: Option<&ClassifierScores>,
    adapted: Option<&ClassifierScores>,
    examples: &[Example],
    tokenizer: &Tokenizer,
) -> Result<Board> {
    let models: Vec<(&str, &ClassifierScores)> = [("base", base), ("adapted", adapted)]
        .into_iter()
        .filter_map(|(name, scores)| Some((name, scores?)))
        .collect();
    let rows = match (base, adapted) {
        (Some(base), Some(adapted)) => {
            compare(&base.measured, &adapted.measured, &base.statistics)?
        }
        (Some(only), None) => only.measured.iter().map(Measured::alone).collect(),
        (None, Some(only)) => only.measured.iter().map(moved).collect(),
        (None, None) => Vec::new(),
    };
    let object = |scores: Option<&ClassifierScores>| {
        scores.map_or(Value::Null, |s| Value::Object(s.to_json()))
    };
    Ok(Board {
        title: title.to_owned(),
        models: models.iter().map(|(name, _)| (*name).to_owned()).collect(),
        examples: examples.len(),
        matrices: models
            .iter()
            .map(|(name, s)| labels::matrix_of(name, &s.classes))
            .collect::<Result<_>>()?,
        per_example: per_example(&models, examples, tokenizer)?,
        json: json!({ "base": object(base), "adapted": object(adapted), "examples": examples.len() }),
        rows,
    })
}

/// The metric of an adapted model whose base has none.
fn moved(measured: &Measured) -> Compared {
    let mut row = measured.alone();
    row.adapted = row.base.take();
    row
}

fn per_example(
    models: &[(&str, &ClassifierScores)],
    examples: &[Example],
    tokenizer: &Tokenizer,
) -> Result<Grid> {
    let mut header: Vec<String> = ["source", "text", "label"].map(str::to_owned).to_vec();
    for (name, _) in models {
        header.extend([(*name).to_owned(), format!("{name}_probability")]);
    }
    let row = |(i, example): (usize, &Example)| -> Result<Vec<String>> {
        let text = tokenizer
            .decode(&example.input_ids, true)
            .context("a text")?;
        let mut cells = vec![example.source.to_string(), text.trim().to_owned()];
        let right = models.first().map(|(_, s)| {
            let name = s
                .losses
                .gold
                .get(i)
                .and_then(|&c| s.classes.labels().get(c));
            name.cloned().unwrap_or_default()
        });
        cells.push(right.unwrap_or_default());
        for (_, s) in models {
            ensure!(
                s.losses.probabilities.len() == examples.len(),
                "{} examples, and answers to {}",
                examples.len(),
                s.losses.probabilities.len()
            );
            let (class, p) = likeliest(&s.losses.probabilities[i]);
            let name = s.classes.labels().get(class).cloned().unwrap_or_default();
            cells.extend([name, format!("{p:.4}")]);
        }
        Ok(cells)
    };
    let rows = examples.iter().enumerate().map(row);
    Ok(Grid {
        rows: rows.collect::<Result<_>>()?,
        header,
    })
}

/// The likeliest class, of equal ones the first, and its probability.
fn likeliest(probabilities: &[f64]) -> (usize, f64) {
    let start = (0, f64::NEG_INFINITY);
    let better = |best: (usize, f64), (class, &p): (usize, &f64)| {
        if p > best.1 { (class, p) } else { best }
    };
    probabilities.iter().enumerate().fold(start, better)
}

/// `positive (0.98)`: the likeliest class and its probability.
pub(crate) fn describe_class(probabilities: &[f64], labels: &[String]) -> String {
    let (class, p) = likeliest(probabilities);
    let name = labels
        .get(class)
        .map_or_else(|| class.to_string(), Clone::clone);
    format!("{name} ({p:.2})")
}
