//! Resident adapters: from wherever they come to layers on the device, held to the base before they are used.

mod files;

use qloom_core::adapters::gallery::AdapterFacts;
use qloom_core::adapters::{Adapter, Receipt};
use qloom_core::lora::{Overlay, overlay};
use qloom_core::merge::Source;
use qloom_core::weights::sha256_hex;
use serde_json::Value;

use super::Surroundings;
use super::base::{Base, Model};
use super::failure::Ended;
use super::state::State;
use super::task::Task;
use crate::protocol::{AdapterInfo, AdapterOrigin, AdapterSource, Event, Failure};
pub(super) use files::AdapterFiles;

/// An adapter on the device, and on the host for merging and export.
pub(super) struct Resident {
    /// What the page is told of it.
    pub(super) info: AdapterInfo,
    /// As it lies in files.
    pub(super) source: Source,
    /// Its layers.
    pub(super) overlay: Overlay,
}

impl Resident {
    /// An adapter that fits the base.
    ///
    /// # Errors
    /// It belongs to another base, or is damaged.
    pub(super) fn new(
        name: &str,
        origin: AdapterOrigin,
        adapter: Adapter,
        receipt: Option<Receipt>,
        base: &Base,
    ) -> Result<Self, Failure> {
        let (_, tensors) = adapter.to_bytes()?;
        let named = receipt.as_ref().and_then(|r| r.base.clone());
        let info = AdapterInfo {
            name: name.to_owned(),
            origin,
            facts: AdapterFacts::of(&adapter),
            base: named.or_else(|| adapter.config.base_model_name_or_path.clone()),
            sha256: sha256_hex(&tensors),
            bytes: tensors.len() as u64,
            warnings: Vec::new(),
        };
        let source = Source {
            name: name.to_owned(),
            adapter,
            receipt,
            sha256: info.sha256.clone(),
        };
        let warnings = check(&source, base)?;
        let overlay = overlay(&source.adapter, &base.device())?;
        if let Model::Bert(model) = &base.model {
            model.with(&overlay).head.parts()?;
        }
        Ok(Self {
            info: AdapterInfo { warnings, ..info },
            source,
            overlay,
        })
    }

    /// The names of its classes, in order, where it is a classifier's and says.
    pub(super) fn labels(&self) -> Option<Vec<String>> {
        let names = self.source.receipt.as_ref()?.label_names()?;
        let word = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
        Some(names.values().map(word).collect())
    }
}

/// Adds the adapter at `source` under `name`.
pub(super) async fn add<S: Surroundings>(
    task: &Task<'_, S>,
    state: &mut State,
    name: &str,
    source: AdapterSource,
    files: Vec<S::File>,
) -> Result<(), Ended> {
    state.base()?;
    let origin = match &source {
        AdapterSource::Gallery { .. } => AdapterOrigin::Gallery,
        AdapterSource::Url { .. } => AdapterOrigin::Url,
        AdapterSource::Files { .. } => AdapterOrigin::File,
    };
    let found = AdapterFiles::read(task.around(), source, files).await?;
    task.pause().await?;
    let adapter = Adapter::from_bytes(&found.config, &found.tensors)?;
    let receipt = found
        .receipt
        .as_deref()
        .map(Receipt::from_json)
        .transpose()?;
    let mut resident = Resident::new(name, origin, adapter, receipt, state.base()?)?;
    // The hash is of the file that came, which may be ordered otherwise than one written here.
    resident.info.sha256 = sha256_hex(&found.tensors);
    resident.info.bytes = found.tensors.len() as u64;
    resident.source.sha256.clone_from(&resident.info.sha256);
    let info = resident.info.clone();
    state.put_adapter(resident);
    task.emit(Event::AdapterAdded { adapter: info });
    Ok(())
}

/// Holds every resident adapter to the base, which is new; returns the names of those that were dropped.
pub(super) fn refit(state: &mut State) -> Result<Vec<String>, Failure> {
    let adapters = std::mem::take(&mut state.adapters);
    let base = state.base()?;
    let mut dropped = Vec::new();
    let mut kept = Vec::new();
    for mut adapter in adapters {
        match check(&adapter.source, base) {
            Ok(warnings) => {
                adapter.info.warnings = warnings;
                kept.push(adapter);
            }
            Err(_) => dropped.push(adapter.info.name),
        }
    }
    state.adapters = kept;
    Ok(dropped)
}

/// Holds an adapter to a base: its tensors' places and shapes, then what its receipt says. Returns what to know.
///
/// # Errors
/// It belongs to another base; both are named.
fn check(source: &Source, base: &Base) -> Result<Vec<String>, Failure> {
    let adapter = &source.adapter;
    let wrong = |e: qloom_core::adapters::AdapterError| {
        let what = format!(
            "the adapter {} does not fit the base {}",
            source.name, base.info.name
        );
        Failure::from(e).of(&what)
    };
    let linears = base.architecture.linear_modules();
    let tensors = base.architecture.adaptable_tensors(adapter);
    adapter.validate(&linears, &tensors).map_err(wrong)?;
    let Some(receipt) = &source.receipt else {
        return Ok(vec![
            "it came without a receipt (qloom.json), so it cannot be told whether it was trained on these weights; its \
             shapes fit"
                .to_owned(),
        ]);
    };
    let fingerprints: Vec<&str> = base.fingerprints.iter().map(String::as_str).collect();
    let template = base.tokenizer.chat_template_source();
    let warnings = receipt.check(&fingerprints, template).map_err(wrong)?;
    Ok(warnings.iter().map(ToString::to_string).collect())
}
