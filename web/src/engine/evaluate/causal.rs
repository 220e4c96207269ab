//! Language models: the loss of every target, labels read from answers, answers against references.

use qloom_core::data::{CollateOptions, Example, collate};
use qloom_core::evaluation::{
    ClassMetric, Measured, Predictions, Statistics, TextMetric, TextOptions, TokenLosses,
    gold_classes, label_set, metric_names, parse_label,
};
use qloom_core::generation::{Generation, Generator, SamplingConfig};
use qloom_core::models::llama::Llama;

use super::super::Surroundings;
use super::super::base::Base;
use super::super::failure::Ended;
use super::super::state::State;
use super::super::task::Task;
use super::data::Data;
use super::report::{Scored, finish};
use crate::protocol::{Column, EvalOptions, EvalRow, Event, Failure};

/// What is measured here: those of the trainer's metrics that take no more than losses and answers.
const METRICS: [&str; 10] = [
    "perplexity",
    "accuracy",
    "macro_f1",
    "bleu",
    "rouge1",
    "rouge2",
    "rougeL",
    "rougeLsum",
    "exact_match",
    "token_f1",
];

/// What is asked of every model.
struct Plan<'a> {
    base: &'a Base,
    examples: &'a [Example],
    references: Vec<String>,
    perplexity: bool,
    /// Labels, the right class of every example, and how to answer with one.
    labels: Option<(Vec<String>, Vec<usize>, SamplingConfig)>,
    class_metrics: Vec<ClassMetric>,
    text_metrics: Vec<TextMetric>,
    sampling: SamplingConfig,
}

/// What one column has answered so far.
#[derive(Default)]
struct Answers {
    losses: TokenLosses,
    labels: Vec<String>,
    texts: Vec<String>,
}

pub(super) async fn evaluate<S: Surroundings>(
    task: &Task<'_, S>,
    state: &State,
    columns: &[Column],
    options: &EvalOptions,
    data: Data,
) -> Result<(), Ended> {
    let models = state.language_models(columns)?;
    let plan = Plan::new(state.base()?, &data, options)?;
    let total = plan.examples.len();
    let mut answers: Vec<Answers> = models.iter().map(|_| Answers::default()).collect();
    for first in (0..total).step_by(options.batch_size) {
        let last = (first + options.batch_size).min(total);
        for (column, (model, answers)) in models.iter().zip(&mut answers).enumerate() {
            plan.batch(task, model, answers, first..last).await?;
            task.emit(Event::EvalProgress {
                column,
                done: last,
                total,
            });
        }
        task.emit(Event::EvalRows {
            rows: plan.rows(&answers, first..last)?,
        });
        task.pause().await?;
    }
    let statistics = Statistics::default();
    let mut scored = Vec::with_capacity(answers.len());
    for answers in answers {
        scored.push(plan.measure(answers, &statistics)?);
        task.pause().await?;
    }
    finish(task, scored, total, &statistics, data.notes).await
}

impl<'a> Plan<'a> {
    fn new(base: &'a Base, data: &'a Data, options: &EvalOptions) -> Result<Self, Failure> {
        let examples = data.examples.as_slice();
        let prompts = examples.iter().any(|e| e.prompt_len() > 1);
        let metrics = match options.metrics.is_empty() {
            true => suitable(prompts, !data.labels.is_empty()),
            false => metric_names(&options.metrics, &METRICS)
                .map_err(|e| Failure::request(e.to_string()))?,
        };
        let class_metrics: Vec<ClassMetric> = metrics
            .iter()
            .filter_map(|m| ClassMetric::from_name(m))
            .collect();
        let text_metrics: Vec<TextMetric> = metrics
            .iter()
            .filter_map(|m| TextMetric::from_name(m))
            .collect();
        let answers = !class_metrics.is_empty() || !text_metrics.is_empty();
        if answers && !prompts {
            return Err(Failure::request(
                "there is no prompt before the texts, so nothing can be answered; score such data by perplexity, or give \
                 it a format with prompts",
            ));
        }
        let references: Vec<String> = examples
            .iter()
            .map(|e| e.reference(&base.tokenizer))
            .collect::<Result<_, _>>()?;
        let labels = match class_metrics.is_empty() {
            true => None,
            false => Some(label_plan(base, data, &references)?),
        };
        Ok(Self {
            base,
            examples,
            references,
            perplexity: metrics.iter().any(|m| m == "perplexity"),
            labels,
            class_metrics,
            text_metrics,
            sampling: options.sampling.clone(),
        })
    }

    /// Asks `model` about the examples in `range`.
    async fn batch<S: Surroundings>(
        &self,
        task: &Task<'_, S>,
        model: &Llama,
        answers: &mut Answers,
        range: std::ops::Range<usize>,
    ) -> Result<(), Ended> {
        if self.perplexity {
            let rows: Vec<Vec<usize>> = range.clone().map(|i| vec![i]).collect();
            let collation = CollateOptions::new(self.base.tokenizer.pad_id());
            let batch = collate(self.examples, &rows, collation);
            for row in model.row_losses(&batch).await? {
                answers.losses.push(row.nll, row.tokens as u64)?;
            }
            task.breathe().await?;
        }
        if let Some((_, _, sampling)) = &self.labels {
            let found = self.answer(task, model, sampling, range.clone()).await?;
            answers.labels.extend(found);
        }
        if !self.text_metrics.is_empty() {
            let found = self.answer(task, model, &self.sampling, range).await?;
            answers.texts.extend(found);
        }
        Ok(())
    }

    async fn answer<S: Surroundings>(
        &self,
        task: &Task<'_, S>,
        model: &Llama,
        sampling: &SamplingConfig,
        range: std::ops::Range<usize>,
    ) -> Result<Vec<String>, Ended> {
        let (tokenizer, ends) = (&self.base.tokenizer, self.base.end_ids.clone());
        let generator = Generator::new(model, tokenizer, sampling.clone(), ends);
        let prompts: Vec<Vec<u32>> = self.examples[range.clone()]
            .iter()
            .map(|e| e.input_ids[..e.prompt_len()].to_vec())
            .collect();
        let mut generation: Generation<'_> = generator.begin(&prompts, range.start as u64)?;
        while !generation.done() {
            generation.step().await?;
            task.breathe().await?;
        }
        let texts = generation.finish().into_iter();
        Ok(texts.map(|a| a.text.trim().to_owned()).collect())
    }

    /// The examples in `range` with what every column made of them.
    fn rows(
        &self,
        columns: &[Answers],
        range: std::ops::Range<usize>,
    ) -> Result<Vec<EvalRow>, Failure> {
        let mut rows = Vec::with_capacity(range.len());
        for i in range {
            let example = &self.examples[i];
            let prompt = &example.input_ids[..example.prompt_len()];
            let values = columns.iter().map(|c| self.values(c, i));
            rows.push(EvalRow {
                line: example.source.line,
                prompt: self.base.tokenizer.decode(prompt, true)?,
                reference: self.references[i].clone(),
                answers: columns
                    .iter()
                    .map(|c| c.texts.get(i).or(c.labels.get(i)).cloned())
                    .collect(),
                values: values.collect::<Result<_, _>>()?,
            });
        }
        Ok(rows)
    }

    fn values(&self, answers: &Answers, i: usize) -> Result<Vec<(String, f64)>, Failure> {
        let mut values = Vec::new();
        if let Some(loss) = answers.losses.examples().get(i) {
            values.push(("loss".to_owned(), loss.nll / loss.tokens.max(1) as f64));
        }
        if let (Some((labels, gold, _)), Some(answer)) = (&self.labels, answers.labels.get(i)) {
            let correct = parse_label(answer, labels) == Some(gold[i]);
            values.push(("correct".to_owned(), f64::from(u8::from(correct))));
        }
        if let Some(answer) = answers.texts.get(i) {
            let (answer, reference) = ([answer.clone()], [vec![self.references[i].clone()]]);
            for metric in &self.text_metrics {
                let found = metric.score(&answer, &reference, &TextOptions::default())?;
                let value = found.per_example().first().copied().unwrap_or_default();
                values.push((metric.name().to_owned(), value));
            }
        }
        Ok(values)
    }

    /// The scores of a column over all examples.
    fn measure(&self, answers: Answers, statistics: &Statistics) -> Result<Scored, Failure> {
        let mut scored = Scored::default();
        if self.perplexity {
            scored.tokens = answers.losses.tokens();
            let losses = Measured::losses(answers.losses, statistics)?;
            scored.measured.extend(losses);
        }
        if let Some((labels, gold, _)) = &self.labels {
            let read = answers.labels.iter().map(|a| parse_label(a, labels));
            let classes = Predictions::new(labels.clone(), gold.clone(), read.collect())?;
            for metric in &self.class_metrics {
                let measured = Measured::classes("", *metric, &classes, statistics)?;
                scored.measured.push(measured);
            }
            scored.classes = Some(classes);
        }
        let references: Vec<Vec<String>> =
            self.references.iter().map(|r| vec![r.clone()]).collect();
        for metric in &self.text_metrics {
            let found = metric.score(&answers.texts, &references, &TextOptions::default())?;
            let measured = Measured::text(metric.name(), found, statistics)?;
            scored.measured.push(measured);
        }
        Ok(scored)
    }
}

/// What suits the data, where nothing was asked for.
fn suitable(prompts: bool, labels: bool) -> Vec<String> {
    let names: &[&str] = match (prompts, labels) {
        (true, true) => &["perplexity", "accuracy", "macro_f1"],
        (true, false) => &["perplexity", "exact_match", "rougeL"],
        (false, _) => &["perplexity"],
    };
    names.iter().map(|n| (*n).to_owned()).collect()
}

/// Labels, the class of every reference, and greedy answers just long enough for a label.
fn label_plan(
    base: &Base,
    data: &Data,
    references: &[String],
) -> Result<(Vec<String>, Vec<usize>, SamplingConfig), Failure> {
    let labels = label_set(&data.labels, references)?;
    let place = |i: usize| data.examples[i].source.to_string();
    let gold = gold_classes(&labels, references, place)?;
    let mut longest = 1;
    for label in &labels {
        longest = longest.max(base.tokenizer.encode(label, false)?.len());
    }
    let sampling = SamplingConfig {
        max_new_tokens: longest + 2,
        temperature: 0.0,
        ..SamplingConfig::default()
    };
    Ok((labels, gold, sampling))
}
