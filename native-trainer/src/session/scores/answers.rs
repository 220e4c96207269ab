//! Generated answers: compared with references as text, or read as labels.

use anyhow::{Result, ensure};
use qloom_core::data::Example;
use qloom_core::evaluation::{ClassMetric, Measured, TextMetric};
use qloom_core::generation::{Generated, Generator, SamplingConfig};
use qloom_core::host::block_on;
use qloom_core::models::llama::Llama;
use qloom_core::tokenizer::Tokenizer;
use serde_json::json;

use super::{ANSWER, ModelScores, Scoring};
use crate::progress::{Mode, task};
use crate::scoring::labels;

impl Scoring<'_> {
    /// Labels read from greedy answers. Those that name none are counted, and wrong.
    pub(super) fn add_labels(
        &self,
        model: &Llama,
        what: &str,
        metrics: &[String],
        scores: &mut ModelScores,
    ) -> Result<()> {
        let (labels, gold) = self.gold()?;
        let mut longest = 1;
        for label in &labels {
            longest = longest.max(self.tokenizer.encode(label, false)?.len());
        }
        let config = SamplingConfig {
            max_new_tokens: longest + 2,
            temperature: 0.0,
            ..SamplingConfig::default()
        };
        let answers = self.answers(model, config, what)?;
        let classes = labels::read_answers(&labels, gold, &answers)?;
        for metric in ClassMetric::OF_CLASSES {
            let measured = Measured::classes("", metric, &classes, &self.statistics())?;
            let asked = metrics.iter().any(|m| m == metric.name());
            scores
                .measured
                .push(if asked { measured } else { measured.hidden() });
        }
        scores.facts.extend(labels::class_facts(&classes)?);
        scores.column(ANSWER, answers);
        scores.column("correct", classes.correct());
        scores.classes = Some(classes);
        Ok(())
    }

    /// Metrics of generated text.
    pub(super) fn add_text(
        &self,
        model: &Llama,
        what: &str,
        metrics: &[TextMetric],
        scores: &mut ModelScores,
    ) -> Result<()> {
        let references: Vec<Vec<String>> =
            self.references()?.into_iter().map(|r| vec![r]).collect();
        let answers = self.answers(model, self.settings.generation.clone(), what)?;
        let options = self.text_options();
        let taken = scores.columns.iter().any(|(title, _)| title == ANSWER);
        scores.column(if taken { "text" } else { ANSWER }, &answers);
        for metric in metrics {
            let found = metric.score(&answers, &references, &options)?;
            scores.column(metric.name(), found.per_example());
            scores
                .measured
                .push(Measured::text(metric.name(), found, &self.statistics())?);
        }
        if metrics.contains(&TextMetric::Bleu) {
            let signature = options.bleu.signature(Some(1));
            scores
                .facts
                .insert("bleu_signature".to_owned(), json!(signature));
        }
        if metrics.iter().any(|m| matches!(m, TextMetric::Rouge(_))) {
            scores
                .facts
                .insert("rouge_stemmer".to_owned(), json!(options.stemmer));
        }
        Ok(())
    }

    /// The labels, and the class of every example.
    pub(super) fn gold(&self) -> Result<(Vec<String>, Vec<usize>)> {
        let references = self.references()?;
        let labels = labels::label_set(self.labels, &references)?;
        let place = |i: usize| self.examples[i].source.to_string();
        let gold = labels::gold_classes(&labels, &references, place)?;
        Ok((labels, gold))
    }

    fn answers(&self, model: &Llama, config: SamplingConfig, what: &str) -> Result<Vec<String>> {
        self.need_prompts()?;
        let label = format!("answers, {what}");
        let answers = answer(
            model,
            self.tokenizer,
            self.examples,
            config,
            self.end_ids,
            self.batch_size,
            &label,
        )?;
        Ok(answers
            .into_iter()
            .map(|a| a.text.trim().to_owned())
            .collect())
    }

    /// Refuses data that is all text to continue: the first token of a document is never a target, so there every
    /// prompt is that one token.
    pub(super) fn need_prompts(&self) -> Result<()> {
        let Some(first) = self.examples.first() else {
            return Ok(());
        };
        ensure!(
            self.examples.iter().any(|e| e.prompt_len() > 1),
            "{}: there is no prompt before the text, so nothing can be answered; score such data by perplexity, \
             or give it a format with prompts",
            first.source
        );
        Ok(())
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
        let first = answers.len() as u64;
        answers.extend(block_on(generator.generate(&prompts, first, |_, _| {}))?);
        bar.advance(chunk.len() as u64);
    }
    bar.finish();
    Ok(answers)
}
