//! Base against adapted on the same held-out examples: perplexity, and labels read from answers.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use qloom_core::data::{BatchOptions, BatchPlan, CollateOptions, Example, IGNORE};
use qloom_core::evaluation::{
    BootstrapConfig, ConfusionMatrix, PairedDifference, PerplexityReport, TokenLosses, bootstrap,
    mcnemar_exact, parse_label,
};
use qloom_core::generation::{Generated, Generator, SamplingConfig};
use qloom_core::models::llama::Llama;
use qloom_core::tokenizer::Tokenizer;
use qloom_core::train::{TrainSet, evaluate};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::progress::{Mode, task};
use crate::report::scores::{Metric, Score};

/// Most distinct answers that still look like a set of labels.
const MOST_LABELS: usize = 32;

/// Scores of one model: the values of `metrics.json`, and what paired tests need.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ModelScores {
    perplexity: Option<(PerplexityReport, TokenLosses)>,
    labels: Option<LabelScores>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct LabelScores {
    accuracy: Score,
    macro_f1: Score,
    unparsed: u64,
    examples: u64,
    correct: Vec<bool>,
    matrix: Value,
}

/// What to measure, on what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scoring<'a> {
    /// Held-out examples.
    pub(crate) examples: &'a [Example],
    /// Tokenizer of the base.
    pub(crate) tokenizer: &'a Tokenizer,
    /// `perplexity`, `accuracy`, `macro_f1`.
    pub(crate) metrics: &'a [String],
    /// Label words; found in the examples when empty.
    pub(crate) labels: &'a [String],
    /// Sequences per batch.
    pub(crate) batch_size: usize,
    /// Ids that end an answer.
    pub(crate) end_ids: &'a [u32],
}

impl Scoring<'_> {
    /// Scores one model. `what` names it on the progress bar.
    pub(crate) fn score(&self, model: &Llama, what: &str) -> Result<ModelScores> {
        let wants = |name: &str| self.metrics.iter().any(|m| m == name);
        let mut scores = ModelScores::default();
        if wants("perplexity") {
            let losses = self.losses(model)?;
            scores.perplexity = Some((losses.report(&BootstrapConfig::default())?, losses));
        }
        if wants("accuracy") || wants("macro_f1") {
            scores.labels = Some(self.label_scores(model, what)?);
        }
        Ok(scores)
    }

    fn losses(&self, model: &Llama) -> Result<TokenLosses> {
        let set = TrainSet {
            examples: self.examples,
            plan: BatchPlan::new(self.examples, BatchOptions::sequential(self.batch_size))?,
            collate: CollateOptions::new(self.tokenizer.pad_id()),
        };
        Ok(evaluate(model, &set)?)
    }

    fn label_scores(&self, model: &Llama, what: &str) -> Result<LabelScores> {
        let references: Vec<String> = self
            .examples
            .iter()
            .map(|e| reference(e, self.tokenizer))
            .collect::<Result<_>>()?;
        let labels = self.label_set(&references)?;
        let gold: Vec<usize> = references
            .iter()
            .zip(self.examples)
            .map(|(text, example)| {
                parse_label(text, &labels).with_context(|| {
                    format!(
                        "{}: the answer {text:?} is none of the labels {}",
                        example.source,
                        labels.join(", ")
                    )
                })
            })
            .collect::<Result<_>>()?;
        let answers = self.answers(model, &labels, what)?;
        let predicted: Vec<Option<usize>> = answers
            .iter()
            .map(|a| parse_label(&a.text, &labels))
            .collect();

        let matrix_of = |rows: &mut dyn Iterator<Item = usize>| -> Result<ConfusionMatrix> {
            let mut matrix = ConfusionMatrix::new(labels.clone())?;
            for row in rows {
                matrix.add(gold[row], predicted[row])?;
            }
            Ok(matrix)
        };
        let all = matrix_of(&mut (0..gold.len()))?;
        let interval = |statistic: fn(&ConfusionMatrix) -> f64| -> Result<Score> {
            let resampled = |rows: &[usize]| {
                matrix_of(&mut rows.iter().copied()).map_or(f64::NAN, |m| statistic(&m))
            };
            let found = bootstrap(gold.len(), resampled, &BootstrapConfig::default())?;
            Ok(Score {
                value: statistic(&all),
                interval: Some((found.low, found.high)),
            })
        };
        Ok(LabelScores {
            accuracy: interval(ConfusionMatrix::accuracy)?,
            macro_f1: interval(ConfusionMatrix::macro_f1)?,
            unparsed: all.unparsed(),
            examples: all.examples(),
            correct: gold
                .iter()
                .zip(&predicted)
                .map(|(g, p)| Some(*g) == *p)
                .collect(),
            matrix: json!({ "labels": labels, "rows": all.rows().collect::<Vec<_>>() }),
        })
    }

    fn label_set(&self, references: &[String]) -> Result<Vec<String>> {
        if !self.labels.is_empty() {
            return Ok(self.labels.to_vec());
        }
        let found: BTreeSet<String> = references.iter().map(|r| r.trim().to_owned()).collect();
        ensure!(
            found.len() <= MOST_LABELS,
            "accuracy and macro_f1 need one-word label answers, but the held-out set has {} different answers; \
             leave them out of eval.metrics, or list the labels in data.label_names",
            found.len()
        );
        Ok(found.into_iter().collect())
    }

    /// Greedy answers long enough for the longest label.
    fn answers(&self, model: &Llama, labels: &[String], what: &str) -> Result<Vec<Generated>> {
        let mut longest = 1;
        for label in labels {
            longest = longest.max(self.tokenizer.encode(label, false)?.len());
        }
        let config = SamplingConfig {
            max_new_tokens: longest + 2,
            temperature: 0.0,
            ..SamplingConfig::default()
        };
        let label = format!("answers, {what}");
        answer(
            model,
            self.tokenizer,
            self.examples,
            config,
            self.end_ids,
            self.batch_size,
            &label,
        )
    }
}

/// Answers to the prompts of `examples`, in order.
pub(crate) fn answer(
    model: &Llama,
    tokenizer: &Tokenizer,
    examples: &[Example],
    config: SamplingConfig,
    end_ids: &[u32],
    batch_size: usize,
    label: &str,
) -> Result<Vec<Generated>> {
    let generator = Generator::new(model, tokenizer, config, end_ids.to_vec());
    let mut bar = task::Task::start(
        Mode::detect(false),
        label,
        examples.len() as u64,
        task::Unit::Items,
    );
    let mut answers = Vec::with_capacity(examples.len());
    for chunk in examples.chunks(batch_size.max(1)) {
        let prompts: Vec<Vec<u32>> = chunk
            .iter()
            .map(|e| e.input_ids[..e.prompt_len()].to_vec())
            .collect();
        answers.extend(generator.generate(&prompts, answers.len() as u64, |_, _| {})?);
        bar.advance(chunk.len() as u64);
    }
    bar.finish();
    Ok(answers)
}

/// The text an example trains, without special tokens.
pub(crate) fn reference(example: &Example, tokenizer: &Tokenizer) -> Result<String> {
    let ids: Vec<u32> = example
        .labels
        .iter()
        .filter(|&&l| l != IGNORE)
        .map(|&l| l as u32)
        .collect();
    Ok(tokenizer.decode(&ids, true)?.trim().to_owned())
}

impl ModelScores {
    /// The object of `metrics.json`.
    pub(crate) fn to_json(&self) -> Map<String, Value> {
        let mut out = Map::new();
        let mut put = |key: &str, value: Value| out.insert(key.to_owned(), value);
        if let Some((p, _)) = &self.perplexity {
            put("loss", json!(p.loss));
            put("loss_ci", json!(p.loss_ci));
            put("perplexity", json!(p.perplexity));
            put("perplexity_ci", json!(p.perplexity_ci));
            put("tokens", json!(p.tokens));
            put("examples", json!(p.examples));
        }
        if let Some(l) = &self.labels {
            for (key, score) in [("accuracy", &l.accuracy), ("macro_f1", &l.macro_f1)] {
                put(key, json!(score.value));
                put(
                    &format!("{key}_ci"),
                    json!(score.interval.map(|(low, high)| [low, high])),
                );
            }
            put("unparsed", json!(l.unparsed));
            put("examples", json!(l.examples));
            put("confusion_matrix", l.matrix.clone());
        }
        out
    }
}

/// Rows of the summary table, with paired tests.
pub(crate) fn compare(base: &ModelScores, adapted: &ModelScores) -> Result<Vec<Metric>> {
    let mut rows = Vec::new();
    if let (Some((b, base_losses)), Some((a, adapted_losses))) =
        (&base.perplexity, &adapted.perplexity)
    {
        let paired: PairedDifference =
            base_losses.compare(adapted_losses, &BootstrapConfig::default())?;
        let score = |r: &PerplexityReport| Score {
            value: r.perplexity,
            interval: Some((r.perplexity_ci[0], r.perplexity_ci[1])),
        };
        rows.push(Metric {
            name: "perplexity".into(),
            lower_is_better: true,
            base: Some(score(b)),
            adapted: Some(score(a)),
            p: Some(paired.p_value),
        });
    }
    if let (Some(b), Some(a)) = (&base.labels, &adapted.labels) {
        let p = mcnemar_exact(&b.correct, &a.correct)?.p_value;
        for (name, base, adapted, p) in [
            ("accuracy", b.accuracy, a.accuracy, Some(p)),
            ("macro F1", b.macro_f1, a.macro_f1, None),
        ] {
            rows.push(Metric {
                name: name.into(),
                lower_is_better: false,
                base: Some(base),
                adapted: Some(adapted),
                p,
            });
        }
    }
    Ok(rows)
}
