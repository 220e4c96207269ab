//! Base against adapted on the same held-out examples.
//!
//! | file | asks the model for |
//! |---|---|
//! | `losses` | the loss of every target token, in windows where texts are long |
//! | `answers` | answers, compared as text or read as labels |
//! | `likelihood` | the likelihood of every label after every prompt |
//!
//! What it gives is handed to `scoring`, which compares models, and to `report::board`, which shows it.

mod answers;
mod likelihood;
mod losses;

pub(crate) use answers::answer;
pub(crate) use losses::long_examples;

use anyhow::{Context, Result};
use qloom_core::data::Example;
pub(crate) use qloom_core::evaluation::METRICS;
use qloom_core::evaluation::{
    ClassMetric, Measured, Predictions, Statistics, TextMetric, TextOptions, compare,
};
use qloom_core::models::llama::Llama;
use qloom_core::tokenizer::Tokenizer;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::commands::UsageError;
use crate::config::EvalConfig;
use crate::report::board::{Board, Compared, Grid, comparison_json};
use crate::scoring::{labels, metric_names};

/// The column of answers, whose title in `per_example.csv` is the model's name alone.
const ANSWER: &str = "answer";

/// Scores of one model: the values of `metrics.json`, and what paired tests need.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ModelScores {
    measured: Vec<Measured>,
    /// What `metrics.json` says besides.
    facts: Map<String, Value>,
    /// Example by example: a title and a cell each.
    columns: Vec<(String, Vec<String>)>,
    /// Labels, by answer or else by likelihood.
    classes: Option<Predictions>,
}

/// What to measure, on what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scoring<'a> {
    /// Held-out examples.
    pub(crate) examples: &'a [Example],
    /// The same without truncation, where perplexity is to be taken in windows ([`long_examples`]).
    pub(crate) long: Option<&'a [Example]>,
    /// Tokenizer of the base.
    pub(crate) tokenizer: &'a Tokenizer,
    /// Names out of [`METRICS`].
    pub(crate) metrics: &'a [String],
    /// Label words; found in the examples when empty.
    pub(crate) labels: &'a [String],
    /// Sequences per batch.
    pub(crate) batch_size: usize,
    /// Ids that end an answer.
    pub(crate) end_ids: &'a [u32],
    /// How to answer, and how to resample.
    pub(crate) settings: &'a EvalConfig,
}

impl Scoring<'_> {
    /// Scores one model. `what` names it on the progress bar.
    pub(crate) fn score(&self, model: &Llama, what: &str) -> Result<ModelScores> {
        let metrics =
            metric_names(self.metrics, &METRICS).map_err(|e| UsageError::new(e.to_string()))?;
        let wants = |name: &str| metrics.iter().any(|m| m == name);
        let mut scores = ModelScores::default();
        if wants("perplexity") {
            self.add_losses(model, what, &mut scores)?;
        }
        if ClassMetric::OF_CLASSES.iter().any(|m| wants(m.name())) {
            self.add_labels(model, what, &metrics, &mut scores)?;
        }
        if wants("label_likelihood") || wants("calibration") {
            self.add_likelihood(model, what, &metrics, &mut scores)?;
        }
        let text: Vec<TextMetric> = metrics
            .iter()
            .filter_map(|m| TextMetric::from_name(m))
            .collect();
        if !text.is_empty() {
            self.add_text(model, what, &text, &mut scores)?;
        }
        scores
            .facts
            .insert("examples".to_owned(), json!(self.examples.len()));
        Ok(scores)
    }

    /// Everything there is to show of a base and, where there is one, its adapted model.
    pub(crate) fn board(
        &self,
        title: &str,
        base: &ModelScores,
        adapted: Option<&ModelScores>,
    ) -> Result<Board> {
        let rows: Vec<Compared> = match adapted {
            Some(adapted) => compare(&base.measured, &adapted.measured, &self.statistics())?,
            None => base.measured.iter().map(Measured::alone).collect(),
        };
        let models = [("base", Some(base)), ("adapted", adapted)];
        let models = models
            .into_iter()
            .filter_map(|(name, scores)| Some((name, scores?)));
        let classes = models
            .clone()
            .filter_map(|(name, s)| Some((name, s.classes.as_ref()?)));
        let mut json = Map::new();
        json.insert("base".to_owned(), Value::Object(base.to_json()));
        json.insert(
            "adapted".to_owned(),
            adapted.map_or(Value::Null, |s| Value::Object(s.to_json())),
        );
        json.insert(
            "comparison".to_owned(),
            Value::Object(comparison_json(&rows)),
        );
        json.insert("examples".to_owned(), json!(self.examples.len()));
        Ok(Board {
            title: title.to_owned(),
            models: models.clone().map(|(name, _)| name.to_owned()).collect(),
            examples: self.examples.len(),
            matrices: classes
                .map(|(name, c)| labels::matrix_of(name, c))
                .collect::<Result<_>>()?,
            per_example: self.per_example(&models.collect::<Vec<_>>())?,
            json: Value::Object(json),
            rows,
        })
    }

    fn statistics(&self) -> Statistics {
        Statistics {
            bootstrap: self.settings.bootstrap,
            test: self.settings.significance,
        }
    }

    fn text_options(&self) -> TextOptions {
        TextOptions {
            stemmer: self.settings.stemmer,
            ..TextOptions::default()
        }
    }

    fn references(&self) -> Result<Vec<String>> {
        self.examples
            .iter()
            .map(|e| Ok(e.reference(self.tokenizer)?))
            .collect()
    }

    fn per_example(&self, models: &[(&str, &ModelScores)]) -> Result<Grid> {
        let mut header: Vec<String> = ["source", "prompt", "reference"]
            .map(str::to_owned)
            .to_vec();
        let titles = models
            .first()
            .map_or(&[][..], |(_, scores)| &scores.columns[..]);
        for (title, _) in titles {
            header.extend(models.iter().map(|(name, _)| match title.as_str() {
                ANSWER => (*name).to_owned(),
                other => format!("{name}_{other}"),
            }));
        }
        let row = |(i, example): (usize, &Example)| -> Result<Vec<String>> {
            let prompt = &example.input_ids[..example.prompt_len()];
            let prompt = self.tokenizer.decode(prompt, true).context("a prompt")?;
            let mut cells = vec![
                example.source.to_string(),
                prompt,
                example.reference(self.tokenizer)?,
            ];
            for column in 0..titles.len() {
                let cell = |s: &ModelScores| s.columns.get(column)?.1.get(i).cloned();
                cells.extend(models.iter().map(|(_, s)| cell(s).unwrap_or_default()));
            }
            Ok(cells)
        };
        Ok(Grid {
            rows: self
                .examples
                .iter()
                .enumerate()
                .map(row)
                .collect::<Result<_>>()?,
            header,
        })
    }
}

impl ModelScores {
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

    fn column<T: ToString>(&mut self, title: &str, values: impl IntoIterator<Item = T>) {
        let cells = values.into_iter().map(|v| v.to_string()).collect();
        self.columns.push((title.to_owned(), cells));
    }
}
