//! What a finished run's folder says of it, so that resuming a finished run reports the result and writes nothing.

use std::path::Path;

use anyhow::{Context, Result};
use qloom_core::train::{Outcome, Stop};
use serde_json::{Map, Value};

use super::cost::{self, Cost};
use super::latest;
use super::method::{Start, Summary};
use super::run::{Run, RunResult};
use super::samples::{SAMPLES, read_samples};
use crate::config::RunConfig;
use crate::files::{jsonl, read};
use crate::report::scores::Metric;
use crate::runs::record::{lower_is_better, score};

impl Run {
    /// The result of a resumed run that was over: its cost is recorded, and its newest checkpoint is that of the last
    /// step. None for a run that has steps, or its scores, still to make.
    pub(super) fn stored(
        &self,
        config: &RunConfig,
        start: &Start,
        task: &str,
    ) -> Result<Option<RunResult>> {
        if !self.resumed {
            return Ok(None);
        }
        let Some((metrics, cost)) = recorded(&self.dir.metrics())? else {
            return Ok(None);
        };
        let folder = self.dir.path().join(start.folder());
        let step = latest(&self.dir.path().join("checkpoints"))?.map(|c| c.state.step);
        if step != Some(cost.steps) || !folder.is_dir() {
            return Ok(None);
        }
        let rows = jsonl::read_rows(&self.dir.log())?;
        let mut losses = rows.iter().filter_map(|row| row.get("loss")?.as_f64());
        let outcome = Outcome {
            stop: Stop::Finished,
            steps: cost.steps,
            tokens: cost.target_tokens,
            last_loss: losses.next_back().unwrap_or(f64::NAN),
        };
        let samples = self.dir.path().join(SAMPLES);
        let samples = match samples.is_file() {
            true => read_samples(&samples, task, config.eval.samples)?,
            false => Vec::new(),
        };
        let examples = metrics["data"]["eval_examples"].as_u64().unwrap_or(0);
        let summary = Summary::of(config, start.parameters.count(), &folder)?;
        eprintln!(
            "{} is finished: nothing was trained or written",
            self.dir.path().display()
        );
        let scores = compared(&metrics);
        let examples = usize::try_from(examples)?;
        self.result(outcome, scores, samples, examples, summary, folder)
            .map(Some)
    }
}

/// `metrics.json` with the cost in it; none before a run is finished.
fn recorded(path: &Path) -> Result<Option<(Value, Cost)>> {
    if !path.is_file() {
        return Ok(None);
    }
    let wrong = || format!("{} is not what a run writes", path.display());
    let metrics: Value = serde_json::from_slice(&read(path)?).with_context(wrong)?;
    match metrics.get(cost::KEY) {
        None => Ok(None),
        Some(cost) => {
            let cost = serde_json::from_value(cost.clone()).with_context(wrong)?;
            Ok(Some((metrics, cost)))
        }
    }
}

/// The metrics that base and adapted have with an interval.
fn compared(metrics: &Value) -> Vec<Metric> {
    let empty = Map::new();
    let side = |name: &str| metrics[name].as_object().unwrap_or(&empty);
    let (base, adapted) = (side("base"), side("adapted"));
    let names = adapted.keys().filter_map(|key| key.strip_suffix("_ci"));
    let metric = |name: &str| {
        Some(Metric {
            name: name.to_owned(),
            lower_is_better: lower_is_better(name),
            base: score(base, name),
            adapted: Some(score(adapted, name)?),
            p: None,
        })
    };
    names.filter_map(metric).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_read_back_with_their_intervals() {
        let metrics = serde_json::json!({
            "base": {"loss": 2.0, "loss_ci": [1.5, 2.5]},
            "adapted": {"loss": 1.0, "loss_ci": [0.5, 1.5], "examples": 3},
        });
        let found = compared(&metrics);
        assert_eq!(found.len(), 1);
        assert!(found[0].lower_is_better);
        assert_eq!(found[0].base.unwrap().value, 2.0);
        assert_eq!(found[0].adapted.unwrap().interval, Some((0.5, 1.5)));
    }
}
