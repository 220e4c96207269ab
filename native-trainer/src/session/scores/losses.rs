//! The loss of every target token: perplexity, over whole examples or in windows over long texts.

use anyhow::{Result, ensure};
use qloom_core::data::{BatchOptions, BatchPlan, CollateOptions, Example, IGNORE, collate};
use qloom_core::evaluation::{Measured, TokenLosses, windows};
use qloom_core::host::block_on;
use qloom_core::models::llama::Llama;
use qloom_core::tokenizer::Tokenizer;
use serde_json::json;

use super::{ModelScores, Scoring};
use crate::config::RunConfig;
use crate::progress::{Mode, task};
use crate::session::Data;

/// Longer than any text: nothing is cut.
const NO_LIMIT: usize = 1 << 30;

/// The held-out examples without truncation, where `eval.stride` asks for windows over them.
///
/// # Errors
/// Data that cannot be read again.
pub(crate) fn long_examples(
    config: &RunConfig,
    tokenizer: &Tokenizer,
) -> Result<Option<Vec<Example>>> {
    if config.eval.stride.is_none() || config.data.train.is_empty() {
        return Ok(None);
    }
    let mut whole = config.data.clone();
    whole.max_length = Some(NO_LIMIT);
    let data = Data::load(&whole, tokenizer, NO_LIMIT)?;
    Ok(Some(if data.eval.is_empty() {
        data.train
    } else {
        data.eval
    }))
}

impl Scoring<'_> {
    pub(super) fn add_losses(
        &self,
        model: &Llama,
        what: &str,
        scores: &mut ModelScores,
    ) -> Result<()> {
        let losses = match self.long {
            Some(long) => {
                let (window, stride) = self.window(model)?;
                scores.facts.insert("window".to_owned(), json!(window));
                scores.facts.insert("stride".to_owned(), json!(stride));
                self.losses(model, &cut(long, window, stride)?, what)?
            }
            None => {
                let losses = self.losses(model, self.examples, what)?;
                let per_token = losses
                    .examples()
                    .iter()
                    .map(|e| e.nll / e.tokens.max(1) as f64);
                scores.column("loss", per_token);
                losses
            }
        };
        scores
            .facts
            .insert("tokens".to_owned(), json!(losses.tokens()));
        scores
            .measured
            .extend(Measured::losses(losses, &self.statistics())?);
        Ok(())
    }

    fn losses(&self, model: &Llama, examples: &[Example], what: &str) -> Result<TokenLosses> {
        let plan = BatchPlan::new(examples, BatchOptions::sequential(self.batch_size))?;
        let options = CollateOptions::new(self.tokenizer.pad_id());
        let label = format!("losses, {what}");
        let total = examples.len() as u64;
        let mut bar = task::Task::start(Mode::detect(false), &label, total, task::Unit::Items);
        let mut losses = TokenLosses::default();
        for rows in plan.epoch(0) {
            let batch = collate(examples, &rows, options);
            for row in block_on(model.row_losses(&batch))? {
                losses.push(row.nll, row.tokens as u64)?;
            }
            bar.advance(rows.len() as u64);
        }
        bar.finish();
        Ok(losses)
    }

    /// Window and stride, the window being the model's context unless told otherwise.
    fn window(&self, model: &Llama) -> Result<(usize, usize)> {
        let context = model.config.max_position_embeddings;
        let window = self.settings.window.unwrap_or(context);
        ensure!(
            window <= context,
            "eval.window = {window}, but the model has {context} positions; choose at most that"
        );
        Ok((window, self.settings.stride.unwrap_or(window)))
    }
}

/// Every example as windows, each with the labels it scores. Windows without any are left out.
fn cut(examples: &[Example], window: usize, stride: usize) -> Result<Vec<Example>> {
    let mut pieces = Vec::new();
    for example in examples {
        for w in windows(example.len(), window, stride)? {
            let kept = |(t, label): (usize, &i32)| if t < w.scored_from { IGNORE } else { *label };
            let labels = example.labels[w.begin..w.end].iter().zip(w.begin..);
            let piece = Example {
                input_ids: example.input_ids[w.begin..w.end].to_vec(),
                labels: labels.map(|(label, t)| kept((t, label))).collect(),
                ..example.clone()
            };
            if piece.target_tokens() > 0 {
                pieces.push(piece);
            }
        }
    }
    Ok(pieces)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;
    use qloom_core::data::SourceLine;

    #[test]
    fn windows_score_each_target_once_and_keep_the_mask() {
        let ids: Vec<u32> = (0..25).collect();
        let labels: Vec<i32> = (0..25).map(|t| if t < 4 { IGNORE } else { t }).collect();
        let json = serde_json::json!({
            "input_ids": ids, "labels": labels, "class": null, "truncated": false,
            "source": SourceLine { file: "f".into(), line: 1 }, "token_type_ids": [],
        });
        let example: Example = serde_json::from_value(json).unwrap();
        let pieces = cut(std::slice::from_ref(&example), 8, 3).unwrap();
        let mut scored: Vec<i32> = pieces
            .iter()
            .flat_map(|p| p.labels.clone())
            .filter(|l| *l != IGNORE)
            .collect();
        scored.sort_unstable();
        assert_eq!(scored, (4..25).collect::<Vec<i32>>());
        assert!(pieces.iter().all(|p| p.len() <= 8 && p.labels[0] == IGNORE));
        let targets: usize = pieces.iter().map(Example::target_tokens).sum();
        assert_eq!(targets, example.target_tokens());
        assert_eq!(cut(&[example], 64, 64).unwrap().len(), 1);
    }
}
