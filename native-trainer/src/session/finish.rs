//! What every run does around its loop, whatever it trains: time it, keep the result, say what it is and what it cost.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use qloom_core::tokenizer::Tokenizer;
use qloom_core::train::{Objective, Outcome};

use super::cost::{self, Cost};
use super::describe;
use super::method::{Start, Summary};
use super::run::{Run, RunResult};
use super::{Artifact, Data};
use crate::base::BaseFiles;
use crate::config::RunConfig;
use crate::device::{self, ChosenDevice};
use crate::report::scores::{Metric, Sample};

/// A result in its folder, and what it took to get there.
pub(super) struct Trained {
    /// Where it lies.
    pub(super) folder: PathBuf,
    outcome: Outcome,
    summary: Summary,
    seconds: f64,
    peak_memory_bytes: Option<u64>,
}

impl Run {
    /// Trains `start` on `objective` and makes the best of it the run's result.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn produce(
        &mut self,
        config: &RunConfig,
        objective: &dyn Objective,
        start: &Start,
        data: &Data,
        artifact: &Artifact,
        tokenizer: &Tokenizer,
        chosen: &ChosenDevice,
    ) -> Result<Trained> {
        let began = Instant::now();
        let parameters = start.parameters.clone();
        let outcome = self.descend(config, objective, parameters, data, artifact, tokenizer)?;
        let seconds = began.elapsed().as_secs_f64();
        let peak_memory_bytes = device::peak_bytes(&chosen.device);
        self.finish_artifact(start.folder())?;
        let folder = self.dir.path().join(start.folder());
        let summary = Summary::of(config, start.parameters.count(), &folder)?;
        self.result = summary.to_json();
        Ok(Trained {
            folder,
            outcome,
            summary,
            seconds,
            peak_memory_bytes,
        })
    }

    /// Writes card, page and cost of a run whose scores are written.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn conclude(
        &self,
        config: &RunConfig,
        base: &BaseFiles,
        data: &Data,
        trained: Trained,
        (metrics, samples): (Vec<Metric>, Vec<Sample>),
        chosen: &ChosenDevice,
        task: &str,
    ) -> Result<RunResult> {
        let Trained {
            folder,
            outcome,
            summary,
            seconds,
            peak_memory_bytes,
        } = trained;
        let result = self.result(outcome, metrics, samples, data.eval.len(), summary, folder)?;
        let fingerprint = base.fingerprint()?;
        describe::write(config, &base.name, &fingerprint, data, &result, task)?;
        let cost = Cost {
            steps: result.outcome.steps,
            target_tokens: result.outcome.tokens,
            trainable_parameters: result.summary.trained_values as u64,
            adapter_bytes: result.summary.bytes,
            sparsity: result.summary.sparsity,
            seconds,
            resumed: self.resumed,
            tokens_per_s: result.tokens_per_s,
            peak_memory_bytes,
            device: chosen.name.clone(),
        };
        cost::record(&self.dir.metrics(), &cost)?;
        Ok(result)
    }
}
