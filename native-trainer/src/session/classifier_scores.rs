//! Scores of a classifier's probabilities, with intervals; base against adapted.

use anyhow::Result;
use qloom_core::data::Example;
use qloom_core::evaluation::{ClassMetric, Measured, Predictions, Statistics, compare};
use qloom_core::tokenizer::Tokenizer;
use qloom_core::train::ClassLosses;
use serde_json::{Map, Value, json};

use crate::commands::UsageError;
use crate::config::EvalConfig;
use crate::report::board::{Board, Compared, Grid, comparison_json};
use crate::scoring::labels;

/// Scores of one model on examples whose classes are known.
#[derive(Clone, Debug)]
pub(crate) struct ClassifierScores {
    /// Probabilities, right classes and losses.
    pub(crate) losses: ClassLosses,
    classes: Predictions,
    measured: Vec<Measured>,
    statistics: Statistics,
}

/// The metrics of `[eval] metrics` that a classifier has, and what it says besides: `perplexity` is a run's default and
/// stands for the loss.
fn wanted(eval: &EvalConfig) -> Result<Vec<ClassMetric>> {
    let of_classes: Vec<ClassMetric> = ClassMetric::OF_CLASSES
        .into_iter()
        .chain(ClassMetric::OF_PROBABILITIES)
        .collect();
    let mut chosen = Vec::new();
    for name in &eval.metrics {
        match name.as_str() {
            "perplexity" => {}
            "label_likelihood" => chosen.extend(ClassMetric::OF_CLASSES),
            "calibration" => chosen.extend(ClassMetric::OF_PROBABILITIES),
            name => match of_classes.iter().find(|m| m.name() == name) {
                Some(metric) => chosen.push(*metric),
                None => {
                    return Err(UsageError::new(format!(
                        "eval.metrics: {name} compares texts and this base gives classes; expected some of {}, calibration",
                        ClassMetric::OF_CLASSES.map(ClassMetric::name).join(", ")
                    ))
                    .into());
                }
            },
        }
    }
    if chosen.is_empty() {
        return Ok(of_classes);
    }
    Ok(of_classes
        .into_iter()
        .filter(|m| chosen.contains(m))
        .collect())
}

/// Refuses metrics that a classifier cannot have, ahead of slow work.
pub(crate) fn check_class_metrics(eval: &EvalConfig) -> Result<()> {
    wanted(eval).map(drop)
}

impl ClassifierScores {
    /// Scores `losses` under the classes' names, as `eval` says.
    pub(crate) fn new(losses: ClassLosses, labels: &[String], eval: &EvalConfig) -> Result<Self> {
        let statistics = Statistics {
            bootstrap: eval.bootstrap,
            test: eval.significance,
        };
        let wide = |row: &Vec<f32>| row.iter().copied().map(f64::from).collect();
        let probabilities = losses.probabilities.iter().map(wide).collect();
        let gold = losses.gold.clone();
        let classes = Predictions::from_probabilities(labels.to_vec(), gold, probabilities)?;
        let mut measured: Vec<Measured> = wanted(eval)?
            .into_iter()
            .map(|metric| Measured::classes("", metric, &classes, &statistics))
            .collect::<Result<_, _>>()?;
        measured.push(Measured::mean("loss", &losses.nll, true, &statistics)?);
        Ok(Self {
            losses,
            classes,
            measured,
            statistics,
        })
    }

    /// The object of `metrics.json`.
    pub(crate) fn to_json(&self) -> Result<Map<String, Value>> {
        let mut out = Map::new();
        for measured in &self.measured {
            out.insert(measured.key.clone(), json!(measured.interval.estimate));
            let bounds = json!(measured.interval.bounds());
            out.insert(format!("{}_ci", measured.key), bounds);
        }
        out.extend(labels::class_facts(&self.classes)?);
        if let Some(report) = self.classes.calibration(&self.statistics.bootstrap)? {
            out.insert("calibration_bins".to_owned(), json!(report.bins));
        }
        out.insert("examples".to_owned(), json!(self.losses.gold.len()));
        Ok(out)
    }
}

/// Everything there is to show of a base and its adapted model, or of one of them where the other cannot be scored.
pub(crate) fn classifier_board(
    title: &str,
    examples: &[Example],
    tokenizer: &Tokenizer,
    base: Option<&ClassifierScores>,
    adapted: Option<&ClassifierScores>,
) -> Result<Board> {
    let alone = |s: &ClassifierScores| s.measured.iter().map(Measured::alone).collect();
    let rows: Vec<Compared> = match (base, adapted) {
        (Some(base), Some(adapted)) => {
            compare(&base.measured, &adapted.measured, &adapted.statistics)?
        }
        (one, other) => one.or(other).map(alone).unwrap_or_default(),
    };
    let models: Vec<(&str, &ClassifierScores)> = [("base", base), ("adapted", adapted)]
        .into_iter()
        .filter_map(|(name, scores)| Some((name, scores?)))
        .collect();
    let side = |scores: Option<&ClassifierScores>| -> Result<Value> {
        scores.map_or(Ok(Value::Null), |s| Ok(Value::Object(s.to_json()?)))
    };
    Ok(Board {
        title: title.to_owned(),
        models: models.iter().map(|(name, _)| (*name).to_owned()).collect(),
        examples: examples.len(),
        matrices: models
            .iter()
            .map(|(name, scores)| labels::matrix_of(name, &scores.classes))
            .collect::<Result<_>>()?,
        per_example: per_example(examples, tokenizer, &models)?,
        json: json!({
            "base": side(base)?,
            "adapted": side(adapted)?,
            "comparison": comparison_json(&rows),
            "examples": examples.len(),
        }),
        rows,
    })
}

fn per_example(
    examples: &[Example],
    tokenizer: &Tokenizer,
    models: &[(&str, &ClassifierScores)],
) -> Result<Grid> {
    let mut header: Vec<String> = ["source", "prompt", "reference"]
        .map(str::to_owned)
        .to_vec();
    for (name, _) in models {
        let titles = ["", "_probability", "_correct", "_loss"];
        header.extend(titles.map(|title| format!("{name}{title}")));
    }
    let row = |(i, example): (usize, &Example)| -> Result<Vec<String>> {
        let text = tokenizer.decode(&example.input_ids, true)?;
        let name = |class: Option<usize>, scores: &ClassifierScores| {
            let label = class.and_then(|k| scores.classes.labels().get(k));
            label.cloned().unwrap_or_default()
        };
        let right = models.first().map(|(_, s)| name(example.class, s));
        let mut cells = vec![
            example.source.to_string(),
            text.trim().to_owned(),
            right.unwrap_or_default(),
        ];
        for (_, scores) in models {
            let predicted = scores.classes.predicted()[i];
            let row = &scores.losses.probabilities[i];
            let probability = predicted.and_then(|k| row.get(k)).copied();
            cells.extend([
                name(predicted, scores),
                probability.unwrap_or_default().to_string(),
                (predicted == example.class).to_string(),
                scores.losses.nll[i].to_string(),
            ]);
        }
        Ok(cells)
    };
    Ok(Grid {
        rows: examples
            .iter()
            .enumerate()
            .map(row)
            .collect::<Result<_>>()?,
        header,
    })
}

/// Every class by its name with its probability.
pub(crate) fn class_probabilities(probabilities: &[f32], labels: &[String]) -> Map<String, Value> {
    let pairs = labels.iter().zip(probabilities);
    pairs.map(|(l, p)| (l.clone(), json!(p))).collect()
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
