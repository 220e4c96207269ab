//! The pre-flight check of a run: gathers what the core's checks look at, and takes the probe steps they judge.

use std::time::Instant;

use anyhow::{Context, Result};
use qloom_core::adapters::{RECEIPT, Receipt};
use qloom_core::data::{BatchOptions, BatchPlan, Task};
use qloom_core::host::{LocalFuture, block_on};
use qloom_core::lora::Method;
use qloom_core::models::Architecture;
use qloom_core::preflight::{
    Evidence, Finding, LearningRate, Probe, Severity, check, judge_probe, ladder,
};
use qloom_core::tokenizer::Tokenizer;
use qloom_core::train::{
    Checkpoint, History, Host, Objective, Parameters, ScheduleKind, TrainConfig, TrainError,
    TrainSet, Trainer,
};

use super::run::collate_options;
use super::{Data, classifier, classifier_start, locate_adapter, method};
use crate::base::{BaseFiles, check_rows, check_vocabulary};
use crate::config::RunConfig;
use crate::device;
use crate::files::read;

/// Optimizer steps per learning rate of the probe.
pub(crate) const PROBE_STEPS: usize = 5;

/// Base, tokenizer and encoded data of a run that has not begun.
pub(crate) struct Examined {
    base: BaseFiles,
    tokenizer: Tokenizer,
    data: Data,
}

impl Examined {
    /// Opens what `config` names, without a device.
    ///
    /// # Errors
    /// Those of a run; one of the data pipeline may itself be a finding.
    pub(crate) fn open(config: &RunConfig) -> Result<Self> {
        let base = BaseFiles::open(&config.model.base)?;
        let tokenizer = base.tokenizer_for(&config.data)?;
        let data = match base.architecture()? {
            Architecture::Bert(bert) => {
                check_rows(&tokenizer, bert.vocab_size, &base.name)?;
                classifier::load_data(config, &tokenizer, &base, &bert)?
            }
            Architecture::Llama(llama) => {
                check_vocabulary(&tokenizer, &llama, &base.name)?;
                Data::load(&config.data, &tokenizer, llama.max_position_embeddings)?
            }
        };
        Ok(Self {
            base,
            tokenizer,
            data,
        })
    }

    /// The checks that need no device.
    pub(crate) fn findings(&self, config: &RunConfig) -> Result<Vec<Finding>> {
        findings(config, &self.base, &self.tokenizer, &self.data)
    }

    /// Takes a few steps on the base at the configured learning rate and above, each time from the same start, and says
    /// what they mean.
    pub(crate) fn probe(
        &self,
        config: &RunConfig,
        device_name: &str,
    ) -> Result<(Probe, Option<Finding>)> {
        let chosen = device::choose(device_name)?;
        let dtype = device::compute_type(&config.model.compute, &chosen)?;
        let (quantization, double_quant) = (&config.model.quantization, config.model.double_quant);
        let architecture = self.base.architecture()?;
        let probe = match &architecture {
            Architecture::Bert(_) => {
                let model =
                    self.base
                        .load_classifier(&chosen, quantization, double_quant, dtype)?;
                let classes = self.data.labels.len();
                let start = classifier_start::start(config, &self.base, &model, classes, &chosen)?;
                let folder = tempfile::tempdir().context("cannot create a folder for the probe")?;
                let path = folder.path();
                let place = start.place(config, &self.base, &model, path, &chosen, dtype)?;
                self.climb(config, &place.model, &start.parameters)?
            }
            Architecture::Llama(llama) => {
                let start = method::start(config, &self.base, llama, &chosen)?;
                let original = self.base.load(&chosen, quantization, double_quant, dtype)?;
                // Some initializations write a base of their own beside the run.
                let folder = tempfile::tempdir().context("cannot create a folder for the probe")?;
                let path = folder.path();
                let place = start.place(config, &self.base, &original, path, &chosen, dtype)?;
                self.climb(config, &place.model, &start.parameters)?
            }
        };
        let finding = judge_probe(&probe, learning_rate(config, width(&architecture)));
        Ok((probe, finding))
    }

    fn climb(
        &self,
        config: &RunConfig,
        objective: &dyn Objective,
        parameters: &Parameters,
    ) -> Result<Probe> {
        let examples = &self.data.train;
        ladder(config.train.lr, PROBE_STEPS, |lr| {
            let options = BatchOptions::from_config(
                &config.data,
                config.train.batch_size,
                self.data.max_length,
            );
            let set = TrainSet {
                examples,
                plan: BatchPlan::new(examples, options)?,
                collate: collate_options(&config.data, &self.tokenizer),
            };
            let train = TrainConfig {
                lr,
                max_steps: Some(PROBE_STEPS as u64),
                schedule: ScheduleKind::Constant,
                warmup_steps: Some(0),
                warmup_ratio: 0.0,
                grad_accumulation: 1,
                eval_every: None,
                save_every: None,
                early_stopping: None,
                ..config.train.clone()
            };
            let mut seen = History::default();
            let print = String::from("probe");
            let mut trainer = Trainer::new(objective, parameters.clone(), train, set, None, print)?;
            match block_on(trainer.run(&mut Unkept(Instant::now()), &mut seen)) {
                Ok(_) | Err(TrainError::NonFinite { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            Ok(seen.steps.iter().map(|s| (s.loss, s.grad_norm)).collect())
        })
    }
}

/// Runs the checks that need no device.
pub(super) fn findings(
    config: &RunConfig,
    base: &BaseFiles,
    tokenizer: &Tokenizer,
    data: &Data,
) -> Result<Vec<Finding>> {
    let architecture = base.architecture()?;
    let ends = match &architecture {
        Architecture::Llama(llama) => base.end_ids(llama, tokenizer),
        Architecture::Bert(_) => Vec::new(),
    };
    let recorded = recorded_template(config)?;
    Ok(check(&Evidence {
        tokenizer,
        data: &config.data,
        train: &data.train,
        held_out: &data.eval,
        report: &data.report,
        held_out_report: data.eval_report.as_ref(),
        generates: data.task == Task::Causal,
        end_ids: &ends,
        adapter_template: recorded.as_deref(),
        learning_rate: learning_rate(config, width(&architecture)),
    }))
}

fn width(architecture: &Architecture) -> usize {
    match architecture {
        Architecture::Llama(config) => config.hidden_size,
        Architecture::Bert(config) => config.hidden_size,
    }
}

/// Prints what may cost quality, before training starts.
pub(super) fn warn(
    config: &RunConfig,
    base: &BaseFiles,
    tokenizer: &Tokenizer,
    data: &Data,
) -> Result<()> {
    data.note_losses();
    for finding in findings(config, base, tokenizer, data)? {
        match finding.severity {
            Severity::Info => {}
            Severity::Warning => eprintln!("warning: {finding}"),
            Severity::Error => eprintln!("warning (grave): {finding}"),
        }
    }
    Ok(())
}

/// Prints what of the data was left out, and what looks wrong in it.
pub(super) fn print_data_notes(data: &Data) {
    data.note_losses();
    let held_out = data.eval_report.iter().flat_map(|r| &r.warnings);
    for warning in data.report.warnings.iter().chain(held_out) {
        eprintln!("warning: {}", warning.message);
    }
}

/// What decides whether the configured rate is usual.
fn learning_rate(config: &RunConfig, hidden_size: usize) -> LearningRate {
    LearningRate {
        lr: config.train.lr,
        hidden_size,
        full: matches!(config.lora.method, Method::Full),
    }
}

/// The chat template in the receipt of the adapter that the run starts from.
fn recorded_template(config: &RunConfig) -> Result<Option<String>> {
    let Some(adapter) = &config.lora.adapter else {
        return Ok(None);
    };
    let receipt = locate_adapter(adapter.as_ref())?.join(RECEIPT);
    match receipt.is_file() {
        true => Ok(Receipt::from_json(&read(&receipt)?)?.chat_template),
        false => Ok(None),
    }
}

/// A host that keeps nothing: the probe leaves no trace.
struct Unkept(Instant);

impl Host for Unkept {
    fn seconds(&self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }

    fn interrupted(&self) -> bool {
        false
    }

    fn save<'a>(
        &'a mut self,
        _: &'a Checkpoint,
        _: &'a Parameters,
        _: bool,
    ) -> LocalFuture<'a, Result<(), String>> {
        Box::pin(std::future::ready(Ok(())))
    }
}
