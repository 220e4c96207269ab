//! The pre-flight check of a run: gathers what the core's checks look at, and takes the probe steps they judge.

use std::time::Instant;

use anyhow::{Context, Result};
use qloom_core::adapters::{RECEIPT, Receipt};
use qloom_core::data::{BatchOptions, BatchPlan};
use qloom_core::lora::Method;
use qloom_core::models::Architecture;
use qloom_core::preflight::{Evidence, Finding, LearningRate, Probe, Severity, check, ladder};
use qloom_core::tokenizer::Tokenizer;
use qloom_core::train::{
    Checkpoint, History, Host, Objective, Parameters, ScheduleKind, TrainConfig, TrainError,
    TrainSet, Trainer,
};

use super::classifier_start;
use super::method;
use super::run::collate_options;
use super::{Data, locate_adapter};
use crate::base::BaseFiles;
use crate::config::RunConfig;
use crate::device;
use crate::files::read;

/// Optimizer steps per learning rate of the probe.
pub(crate) const PROBE_STEPS: usize = 5;

/// Runs the checks that need no device.
pub(crate) fn findings(
    config: &RunConfig,
    base: &BaseFiles,
    tokenizer: &Tokenizer,
    data: &Data,
) -> Result<Vec<Finding>> {
    let architecture = base.architecture()?;
    let ends = match &architecture {
        Architecture::Llama(config) => base.end_ids(config, tokenizer),
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
        generates: matches!(architecture, Architecture::Llama(_)),
        end_ids: &ends,
        adapter_template: recorded.as_deref(),
        learning_rate: learning_rate(config, architecture.hidden_size()),
    }))
}

/// Prints what may cost quality, before training starts.
pub(super) fn warn(
    config: &RunConfig,
    base: &BaseFiles,
    tokenizer: &Tokenizer,
    data: &Data,
) -> Result<()> {
    for (what, report) in [
        ("training", Some(&data.report)),
        ("held-out", data.eval_report.as_ref()),
    ] {
        let Some(report) = report else { continue };
        if report.bad_lines > 0 {
            eprintln!(
                "skipped {} malformed lines of the {what} data",
                report.bad_lines
            );
        }
        if report.truncated > 0 {
            eprintln!(
                "{} of {} {what} examples were truncated to {} tokens",
                report.truncated, report.examples, report.max_length
            );
        }
    }
    for finding in findings(config, base, tokenizer, data)? {
        match finding.severity {
            Severity::Info => {}
            Severity::Warning => eprintln!("warning: {finding}"),
            Severity::Error => eprintln!("warning (grave): {finding}"),
        }
    }
    Ok(())
}

/// What decides whether the configured rate is usual.
pub(crate) fn learning_rate(config: &RunConfig, hidden_size: usize) -> LearningRate {
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

/// Takes a few steps on the base at the configured learning rate and above, each time from the same start.
pub(crate) fn probe(
    config: &RunConfig,
    base: &BaseFiles,
    tokenizer: &Tokenizer,
    data: &Data,
    device_name: &str,
) -> Result<Probe> {
    let chosen = device::choose(device_name)?;
    let dtype = device::compute_type(&config.model.compute, &chosen)?;
    let quantization = &config.model.quantization;
    let double_quant = config.model.double_quant;
    // Some initializations write a base of their own beside the run.
    let folder = tempfile::tempdir().context("cannot create a folder for the probe")?;
    let folder = folder.path();
    match base.architecture()? {
        Architecture::Llama(llama) => {
            let start = method::start(config, base, &llama, &chosen)?;
            let original = base.load(&chosen, quantization, double_quant, dtype)?;
            let place = start.place(config, base, &original, folder, &chosen, dtype)?;
            climb(config, tokenizer, data, &place.model, &start.parameters)
        }
        Architecture::Bert(_) => {
            let original = base.load_classifier(&chosen, quantization, double_quant, dtype)?;
            let classes = data.labels.len();
            let start = classifier_start::start(config, base, &original, classes, &chosen)?;
            let place = start.place(config, base, &original, folder, &chosen, dtype)?;
            climb(config, tokenizer, data, &place.model, &start.parameters)
        }
    }
}

/// The steps of the probe, from `parameters` on `model`.
fn climb(
    config: &RunConfig,
    tokenizer: &Tokenizer,
    data: &Data,
    model: &dyn Objective,
    parameters: &Parameters,
) -> Result<Probe> {
    ladder(config.train.lr, PROBE_STEPS, |lr| {
        let set = TrainSet {
            examples: &data.train,
            plan: BatchPlan::new(
                &data.train,
                BatchOptions::from_config(&config.data, config.train.batch_size, data.max_length),
            )?,
            collate: collate_options(&config.data, tokenizer),
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
        let mut trainer = Trainer::new(model, parameters.clone(), train, set, None, print)?;
        match trainer.run(&mut Unkept(Instant::now()), &mut seen) {
            Ok(_) | Err(TrainError::NonFinite { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(seen.steps.iter().map(|s| (s.loss, s.grad_norm)).collect())
    })
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

    fn save(&mut self, _: &Checkpoint, _: &Parameters, _: bool) -> Result<(), String> {
        Ok(())
    }
}
