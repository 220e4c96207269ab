//! A run from configuration to artifact, shared by `train`, `pretrain`, `demo`, `eval` and `data`.

mod adaptable;
mod artifact;
pub(crate) mod base_scores;
mod classifier;
mod classifier_scores;
mod classifier_start;
pub(crate) mod cost;
mod dataset;
mod describe;
mod finish;
mod host;
mod method;
mod metrics;
mod observer;
mod parameters;
pub(crate) mod preflight;
mod resume;
mod run;
mod samples;
mod scores;
mod stored;

pub(crate) use adaptable::Adaptable;
pub(crate) use artifact::Artifact;
pub(crate) use classifier::{class_losses, labels_of, load_classifier};
pub(crate) use classifier_scores::{
    ClassifierScores, check_class_metrics, class_probabilities, classifier_board, describe_class,
};
pub(crate) use classifier_start::{beginning, classifier_config};
pub(crate) use dataset::{Data, read_all, read_one};
pub(crate) use host::{TENSORS, is_checkpoint, latest, read_checkpoint};
pub(crate) use method::{ADAPTER, MODEL, RESIDUAL_BASE};
pub(crate) use metrics::refresh;
pub(crate) use parameters::with_head;
pub(crate) use run::{RunResult, pretrain, train};
pub(crate) use samples::{SAMPLES, read_samples, sample_lines};
pub(crate) use scores::{METRICS, ModelScores, Scoring, answer, long_examples};

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use qloom_core::adapters::{Adapter, RECEIPT, Receipt};
use qloom_core::lora::{Overlay, overlay};
use qloom_core::models::llama::Llama;
use qloom_core::tokenizer::Tokenizer;

use crate::base::BaseFiles;
use crate::files::read;
use crate::hub::settings::HubSettings;
use crate::progress::Mode;

/// The receipt of adapters trained on `base`.
pub(crate) fn receipt(base: &BaseFiles, tokenizer: &Tokenizer) -> Result<Receipt> {
    Ok(Receipt {
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        base: Some(base.name.clone()),
        base_fingerprint: Some(base.fingerprint()?),
        equivalent_bases: base.fingerprints()?.split_off(1),
        chat_template: tokenizer.chat_template_source().map(str::to_owned),
        ..Receipt::default()
    })
}

/// The folder of an adapter: a local one, or a hub id fetched on first use.
pub(crate) fn locate_adapter(adapter: &Path) -> Result<PathBuf> {
    crate::hub::resolve_adapter(
        &adapter.to_string_lossy(),
        &HubSettings::from_env(Mode::detect(false))?,
    )
}

/// Reads an adapter folder.
pub(crate) fn read_adapter(adapter: &Path) -> Result<Adapter> {
    let folder = locate_adapter(adapter)?;
    let config = read(&folder.join("adapter_config.json"))?;
    let tensors = read(&folder.join("adapter_model.safetensors"))?;
    Adapter::from_bytes(&config, &tensors).with_context(|| format!("adapter {}", folder.display()))
}

/// Reads the adapter in `folder`, checks that it belongs to `base`, and lays it over `model`.
pub(crate) fn load_adapter(adapter: &Path, base: &BaseFiles, model: &Llama) -> Result<Overlay> {
    let (adapter, _) = checked_adapter(adapter, base, |_| {
        (
            model.config.linear_modules(),
            model.config.adaptable_tensors(),
        )
    })?;
    Ok(overlay(&adapter, &model.device())?)
}

/// Modules and tensors an adapter is held to.
type Expected = (Vec<(String, [usize; 2])>, Vec<(String, Vec<usize>)>);

/// Reads an adapter and its receipt, and checks that they belong to `base`, whose modules and tensors for this adapter
/// `expected` names.
fn checked_adapter(
    adapter: &Path,
    base: &BaseFiles,
    expected: impl FnOnce(&Adapter) -> Expected,
) -> Result<(Adapter, Option<Receipt>)> {
    let folder = locate_adapter(adapter)?;
    let adapter = read_adapter(&folder)?;
    let wrong = || {
        format!(
            "adapter {} does not fit the base {}",
            folder.display(),
            base.name
        )
    };
    let (linears, tensors) = expected(&adapter);
    adapter.validate(&linears, &tensors).with_context(wrong)?;
    let path = folder.join(RECEIPT);
    if !path.is_file() {
        return Ok((adapter, None));
    }
    let known = Receipt::from_json(&read(&path)?)?;
    let template = base
        .tokenizer()
        .ok()
        .and_then(|t| t.chat_template_source().map(str::to_owned));
    let fingerprints = base.fingerprints()?;
    let fingerprints: Vec<&str> = fingerprints.iter().map(String::as_str).collect();
    for warning in known
        .check(&fingerprints, template.as_deref())
        .with_context(wrong)?
    {
        eprintln!("warning: adapter {}: {warning}", folder.display());
    }
    Ok((adapter, Some(known)))
}
