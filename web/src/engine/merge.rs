//! Merging resident adapters, and exporting them, as `trainer merge` would.

use qloom_core::adapters::RECEIPT;
use qloom_core::merge::{self, MergeOptions, Source};

use super::Surroundings;
use super::adapters::Resident;
use super::failure::Ended;
use super::state::State;
use super::task::Task;
use crate::archive;
use crate::protocol::{
    AdapterOrigin, Event, Failure, MergeInfo, MergeMember, MergeSettings, Stage,
};

/// Merges `members` into an adapter called `name`.
pub(super) async fn merge<S: Surroundings>(
    task: &Task<'_, S>,
    state: &mut State,
    name: &str,
    members: &[MergeMember],
    settings: &MergeSettings,
) -> Result<(), Ended> {
    let began = task.now_ms();
    let base = state.base()?;
    let sources: Vec<Source> = members
        .iter()
        .map(|m| Ok(state.adapter(&m.name)?.source.clone()))
        .collect::<Result<_, Failure>>()?;
    let options = options(members, settings);
    let merged = merge::merge(&sources, &options, |done, total| {
        task.emit(Event::Progress {
            stage: Stage::Merge,
            done: done as u64,
            total: total as u64,
            rate: 0.0,
        });
    })?;
    task.pause().await?;
    let receipt = Some(merged.receipt);
    let resident = Resident::new(name, AdapterOrigin::Merge, merged.adapter, receipt, base)?;
    let info = resident.info.clone();
    state.put_adapter(resident);
    task.emit(Event::Merged {
        adapter: info,
        merge: MergeInfo {
            fidelity: merged.fidelity,
            notes: merged.notes,
            ms: task.now_ms() - began,
        },
    });
    Ok(())
}

/// The arguments of `trainer merge`, with its defaults where the page has no say.
fn options(members: &[MergeMember], settings: &MergeSettings) -> MergeOptions {
    MergeOptions {
        method: settings.method,
        weights: members.iter().map(|m| m.weight).collect(),
        density: settings.density,
        sign: settings.sign,
        rank: settings.rank,
        clamp: settings.clamp,
        seed: settings.seed,
        exact: settings.exact,
        ..MergeOptions::default()
    }
}

/// The adapter `name` as a zip of the files the trainer writes.
pub(super) fn export<S: Surroundings>(
    task: &Task<'_, S>,
    state: &State,
    name: &str,
) -> Result<(), Ended> {
    let resident = state.adapter(name)?;
    let (config, tensors) = resident.source.adapter.to_bytes()?;
    let receipt = match &resident.source.receipt {
        Some(receipt) => Some(receipt.to_json()?),
        None => None,
    };
    let mut files = vec![
        ("adapter_config.json", config.as_slice()),
        ("adapter_model.safetensors", tensors.as_slice()),
    ];
    files.extend(receipt.as_deref().map(|bytes| (RECEIPT, bytes)));
    let zip = archive::pack(&files)?;
    let file = format!("{}.zip", file_name(name));
    task.emit_with(Event::Exported { file }, vec![zip]);
    Ok(())
}

/// `name` as a file may be called anywhere.
fn file_name(name: &str) -> String {
    match qloom_core::adapters::gallery::slug_of(name) {
        slug if slug.is_empty() => "adapter".to_owned(),
        slug => slug,
    }
}
