//! Classifiers: class probabilities of every example.

use qloom_core::data::{BatchOptions, BatchPlan, CollateOptions, Example, class_names};
use qloom_core::evaluation::{ClassMetric, Measured, Predictions, Statistics, metric_names};
use qloom_core::models::Architecture;
use qloom_core::models::bert::BertClassifier;
use qloom_core::train::{ClassLosses, TrainSet, classify};
use serde_json::{Map, Value};

use super::super::Surroundings;
use super::super::classify::class_count;
use super::super::failure::Ended;
use super::super::state::State;
use super::super::task::Task;
use super::data::Data;
use super::report::{Scored, finish};
use crate::protocol::{Column, EvalOptions, EvalRow, Event, Failure};

/// What is measured.
const METRICS: [&str; 6] = [
    "accuracy",
    "macro_f1",
    "macro_recall",
    "ece",
    "brier",
    "loss",
];

/// What the classes of the columns are called, raw label to word: as an adapter says, else the base.
///
/// # Errors
/// An adapter that is not there.
pub(super) fn known_labels(
    state: &State,
    columns: &[Column],
) -> Result<Option<Map<String, Value>>, Failure> {
    for name in columns.iter().flat_map(|c| &c.adapters) {
        let receipt = state.adapter(name)?.source.receipt.as_ref();
        if let Some(names) = receipt.and_then(|r| r.label_names()) {
            return Ok(Some(names.clone()));
        }
    }
    Ok(match &state.base()?.architecture {
        Architecture::Bert(config) => Some(class_names(&config.labels)),
        Architecture::Llama(_) => None,
    })
}

pub(super) async fn evaluate<S: Surroundings>(
    task: &Task<'_, S>,
    state: &State,
    columns: &[Column],
    options: &EvalOptions,
    mut data: Data,
) -> Result<(), Ended> {
    let models = state.classifiers(columns)?;
    let metrics = match options.metrics.is_empty() {
        true => METRICS.map(str::to_owned).to_vec(),
        false => {
            metric_names(&options.metrics, &METRICS).map_err(|e| Failure::request(e.to_string()))?
        }
    };
    let classes = class_count(&models)?;
    if classes != data.labels.len() {
        return Err(Failure::request(format!(
            "the head has {classes} classes and the data {:?}; name the labels in the order they were trained",
            data.labels
        ))
        .into());
    }
    let base = state.base()?;
    let total = data.examples.len();
    let mut found: Vec<ClassLosses> = models.iter().map(|_| ClassLosses::default()).collect();
    for first in (0..total).step_by(options.batch_size) {
        let last = (first + options.batch_size).min(total);
        let batch = &data.examples[first..last];
        for (column, (model, found)) in models.iter().zip(&mut found).enumerate() {
            if model.head.parts().is_ok() {
                let set = TrainSet {
                    examples: batch,
                    plan: BatchPlan::new(batch, BatchOptions::sequential(options.batch_size))?,
                    collate: CollateOptions::new(base.tokenizer.pad_id()),
                };
                extend(found, classify(model, &set).await?);
            }
            task.emit(Event::EvalProgress {
                column,
                done: last,
                total,
            });
            task.breathe().await?;
        }
        let rows = (first..last).map(|i| -> Result<EvalRow, Failure> {
            let example = &data.examples[i];
            let prompt = base.tokenizer.decode(&example.input_ids, true)?;
            Ok(row(example, prompt.trim(), &found, &data.labels, i))
        });
        let rows = rows.collect::<Result<_, _>>()?;
        task.emit(Event::EvalRows { rows });
        task.pause().await?;
    }
    let statistics = Statistics::default();
    let mut scored = Vec::with_capacity(found.len());
    for (column, (found, model)) in found.into_iter().zip(&models).enumerate() {
        if model.head.parts().is_err() {
            data.notes.push(format!(
                "column {} has no classification head and was not scored",
                column + 1
            ));
        }
        scored.push(measure(found, model, &data.labels, &metrics, &statistics)?);
        task.pause().await?;
    }
    finish(task, scored, total, &statistics, data.notes).await
}

fn extend(all: &mut ClassLosses, more: ClassLosses) {
    all.probabilities.extend(more.probabilities);
    all.gold.extend(more.gold);
    all.nll.extend(more.nll);
}

fn row(
    example: &Example,
    prompt: &str,
    columns: &[ClassLosses],
    labels: &[String],
    i: usize,
) -> EvalRow {
    let chosen = |c: &ClassLosses| -> Option<usize> {
        let row = c.probabilities.get(i)?;
        let wide: Vec<f64> = row.iter().map(|&p| f64::from(p)).collect();
        qloom_core::evaluation::likeliest(&wide)
    };
    let label = |class: usize| labels.get(class).cloned();
    let values = |c: &ClassLosses| {
        let Some(&loss) = c.nll.get(i) else {
            return Vec::new();
        };
        let (class, right) = (chosen(c), example.class);
        let of = |class: Option<usize>| -> f64 {
            let p = class.and_then(|k| c.probabilities.get(i)?.get(k).copied());
            f64::from(p.unwrap_or_default())
        };
        vec![
            ("loss".to_owned(), loss),
            (
                "correct".to_owned(),
                f64::from(u8::from(class.is_some() && class == right)),
            ),
            ("probability".to_owned(), of(class)),
        ]
    };
    EvalRow {
        line: example.source.line,
        prompt: prompt.to_owned(),
        reference: example.class.and_then(label).unwrap_or_default(),
        answers: columns.iter().map(|c| chosen(c).and_then(label)).collect(),
        values: columns.iter().map(values).collect(),
    }
}

fn measure(
    found: ClassLosses,
    model: &BertClassifier,
    labels: &[String],
    metrics: &[String],
    statistics: &Statistics,
) -> Result<Scored, Failure> {
    if model.head.parts().is_err() {
        return Ok(Scored::default());
    }
    let wide = |row: &Vec<f32>| row.iter().copied().map(f64::from).collect();
    let probabilities = found.probabilities.iter().map(wide).collect();
    let classes = Predictions::from_probabilities(labels.to_vec(), found.gold, probabilities)?;
    let mut measured = Vec::new();
    for name in metrics {
        measured.push(match ClassMetric::from_name(name) {
            Some(metric) => Measured::classes("", metric, &classes, statistics)?,
            None => Measured::mean("loss", &found.nll, true, statistics)?,
        });
    }
    Ok(Scored {
        measured,
        classes: Some(classes),
        tokens: 0,
    })
}
