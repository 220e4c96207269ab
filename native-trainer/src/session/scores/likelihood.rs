//! The likelihood of every label after every prompt.

use anyhow::{Result, ensure};
use qloom_core::data::{CollateOptions, Example, IGNORE, collate};
use qloom_core::evaluation::{
    ClassMetric, LabelLikelihoods, LikelihoodNorm, Measured, Predictions, label_targets,
};
use qloom_core::host::block_on;
use qloom_core::models::llama::Llama;
use serde_json::json;

use super::{ModelScores, Scoring};
use crate::progress::{Mode, task};
use crate::scoring::labels;

/// Prefixes of the keys: by total, and per token.
const NORMS: [(&str, LikelihoodNorm); 2] = [
    ("likelihood_", LikelihoodNorm::Sum),
    ("likelihood_mean_", LikelihoodNorm::Mean),
];

impl Scoring<'_> {
    pub(super) fn add_likelihood(
        &self,
        model: &Llama,
        what: &str,
        metrics: &[String],
        scores: &mut ModelScores,
    ) -> Result<()> {
        let wants = |name: &str| metrics.iter().any(|m| m == name);
        let (labels, gold) = self.gold()?;
        self.need_prompts()?;
        let likelihoods = self.likelihoods(model, &labels, &gold, what)?;
        let statistics = self.statistics();
        for (prefix, norm) in NORMS {
            let probabilities = likelihoods.probabilities(norm);
            let classes =
                Predictions::from_probabilities(labels.clone(), gold.clone(), probabilities)?;
            if wants("label_likelihood") {
                for metric in [ClassMetric::Accuracy, ClassMetric::MacroF1] {
                    let measured = Measured::classes(prefix, metric, &classes, &statistics)?;
                    scores.measured.push(measured);
                }
            }
            if norm == LikelihoodNorm::Mean {
                continue;
            }
            // Means of log-likelihoods are no distribution's, so only totals are held to their confidence.
            if wants("calibration") {
                for metric in ClassMetric::OF_PROBABILITIES {
                    scores
                        .measured
                        .push(Measured::classes("", metric, &classes, &statistics)?);
                }
                if let Some(report) = classes.calibration(&statistics.bootstrap)? {
                    scores
                        .facts
                        .insert("calibration_bins".to_owned(), json!(report.bins));
                }
            }
            scores.facts.insert(
                "likelihood".to_owned(),
                json!(labels::class_facts(&classes)?),
            );
            let named = classes
                .predicted()
                .iter()
                .map(|p| p.map_or("", |k| labels[k].as_str()));
            scores.column("likeliest", named);
            scores.column("likeliest_correct", classes.correct());
            scores.classes.get_or_insert(classes);
        }
        Ok(())
    }

    fn likelihoods(
        &self,
        model: &Llama,
        labels: &[String],
        gold: &[usize],
        what: &str,
    ) -> Result<LabelLikelihoods> {
        let trained = |e: &Example| -> Vec<u32> {
            let ids = e.labels.iter().filter(|&&l| l != IGNORE);
            ids.filter_map(|&l| u32::try_from(l).ok()).collect()
        };
        let seen: Vec<(usize, Vec<u32>)> = gold
            .iter()
            .zip(self.examples)
            .map(|(&g, e)| (g, trained(e)))
            .collect();
        let encode = |text: &str| self.tokenizer.encode(text, false).ok();
        let targets = label_targets(labels, &seen, self.end_ids, encode)?;
        let lengths: Vec<usize> = targets.iter().map(Vec::len).collect();
        let context = model.config.max_position_embeddings;
        let longest = lengths.iter().max().copied().unwrap_or(0);
        let options = CollateOptions::new(self.tokenizer.pad_id());
        let label = format!("likelihoods, {what}");
        let total = self.examples.len() as u64;
        let mut bar = task::Task::start(Mode::detect(false), &label, total, task::Unit::Items);
        let mut totals = Vec::with_capacity(self.examples.len());
        for chunk in self.examples.chunks(self.batch_size.max(1)) {
            for example in chunk {
                ensure!(
                    example.prompt_len() + longest <= context,
                    "{}: a prompt of {} tokens leaves no room for a label in {context} positions; lower data.max_length",
                    example.source,
                    example.prompt_len()
                );
            }
            let rows: Vec<Example> = chunk
                .iter()
                .flat_map(|e| targets.iter().map(|t| continued(e, t)))
                .collect();
            let indices: Vec<Vec<usize>> = (0..rows.len()).map(|i| vec![i]).collect();
            let mut found = Vec::with_capacity(rows.len());
            for batch in indices.chunks(self.batch_size.max(1)) {
                let losses = block_on(model.row_losses(&collate(&rows, batch, options)))?;
                found.extend(losses.into_iter().map(|row| -row.nll));
            }
            totals.extend(found.chunks(labels.len()).map(<[f64]>::to_vec));
            bar.advance(chunk.len() as u64);
        }
        bar.finish();
        Ok(LabelLikelihoods::new(totals, lengths)?)
    }
}

/// The prompt of `example` with `target` after it, of which only the target is scored.
fn continued(example: &Example, target: &[u32]) -> Example {
    let prompt = &example.input_ids[..example.prompt_len()];
    let labels = target.iter().map(|&id| i32::try_from(id).unwrap_or(IGNORE));
    Example {
        input_ids: [prompt, target].concat(),
        labels: prompt.iter().map(|_| IGNORE).chain(labels).collect(),
        ..example.clone()
    }
}
