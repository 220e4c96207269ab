//! The merged adapter's configuration, and the tensors carried in full.

use super::{MergeError, MergeOptions, SavedModules, Source};
use crate::adapters::{OneOrMany, PeftConfig};
use crate::weights::{OwnedTensor, WeightError};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The first adapter's configuration with what the merge changes: one rank, alpha equal to it (scaling 1), no patterns, and
/// targets that mean exactly `paths`.
pub(super) fn config(
    sources: &[Source],
    paths: &[&str],
    rank: usize,
    options: &MergeOptions,
) -> PeftConfig {
    let first = &sources[0].adapter.config;
    let saved: BTreeSet<String> = sources
        .iter()
        .flat_map(|s| s.adapter.config.modules_to_save.iter().flatten().cloned())
        .collect();
    let bias = sources
        .iter()
        .map(|s| &s.adapter.config.bias)
        .find(|b| *b != "none");
    PeftConfig {
        r: rank,
        lora_alpha: rank as f64,
        rank_pattern: Vec::new(),
        alpha_pattern: Vec::new(),
        // PEFT copies the flag and multiplies the merged update by sqrt(rank).
        use_rslora: options.peft && first.use_rslora,
        target_modules: Some(targets(sources, paths)),
        exclude_modules: None,
        layers_to_transform: None,
        layers_pattern: None,
        modules_to_save: (!saved.is_empty()).then(|| saved.into_iter().collect()),
        bias: bias.unwrap_or(&first.bias).clone(),
        init_lora_weights: Value::Bool(true),
        inference_mode: true,
        ..first.clone()
    }
}

/// Names, where every adapter has names that hold for all layers; otherwise each module by its path.
fn targets(sources: &[Source], paths: &[&str]) -> OneOrMany<String> {
    let mut names = BTreeSet::new();
    let plain = sources.iter().all(|s| {
        let c = &s.adapter.config;
        let narrowed = c.exclude_modules.is_some()
            || c.layers_pattern.is_some()
            || c.layers_to_transform
                .as_ref()
                .is_some_and(|l| !l.to_vec().is_empty());
        match &c.target_modules {
            Some(OneOrMany::Many(list)) if !narrowed => {
                names.extend(list.iter().cloned());
                true
            }
            _ => false,
        }
    });
    let covers = |path: &&str| names.iter().any(|n| ends_with_name(path, n));
    if plain && paths.iter().all(covers) {
        return OneOrMany::Many(names.into_iter().collect());
    }
    OneOrMany::Many(paths.iter().map(|p| (*p).to_owned()).collect())
}

fn ends_with_name(path: &str, name: &str) -> bool {
    path.strip_suffix(name)
        .is_some_and(|head| head.is_empty() || head.ends_with('.'))
}

/// Tensors by name, and what was done, in words.
type Saved = (Vec<(String, OwnedTensor)>, Vec<String>);

/// Tensors trained in full: carried over where one adapter has them or all agree, otherwise as the options say.
pub(super) fn saved(sources: &[Source], options: &MergeOptions) -> Result<Saved, MergeError> {
    let mut owners: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, source) in sources.iter().enumerate() {
        for name in source.adapter.saved().into_keys() {
            owners.entry(name).or_default().push(at);
        }
    }
    let (mut tensors, mut notes) = (Vec::new(), Vec::new());
    for (name, owners) in owners {
        let of = |at: usize| sources[at].adapter.saved()[name];
        let first = of(owners[0]);
        let odd = owners.iter().find(|at| of(**at) != first).copied();
        let (tensor, how) = match (odd, options.saved) {
            (Some(odd), SavedModules::Refuse) => {
                return Err(MergeError::Saved {
                    tensor: name.to_owned(),
                    first: sources[owners[0]].name.clone(),
                    second: sources[odd].name.clone(),
                });
            }
            (Some(_), SavedModules::Average) => (
                average(sources, name, &owners, &options.weights)?,
                format!(
                    "averaged over {} adapters, weights normalized to sum 1",
                    owners.len()
                ),
            ),
            _ => (
                first.clone(),
                format!("taken from {} as it is", sources[owners[0]].name),
            ),
        };
        notes.push(format!("{name}, trained in full, was {how}"));
        tensors.push((name.to_owned(), tensor));
    }
    Ok((tensors, notes))
}

/// `Σ wᵢ Wᵢ / Σ wᵢ`: the base plus the weighted average of what training changed.
fn average(
    sources: &[Source],
    name: &str,
    owners: &[usize],
    weights: &[f64],
) -> Result<OwnedTensor, MergeError> {
    let sum: f64 = owners.iter().map(|at| weights[*at]).sum();
    if sum <= 0.0 {
        return Err(MergeError::SavedWeights {
            tensor: name.to_owned(),
            sum,
        });
    }
    let mut total: Vec<f64> = Vec::new();
    let mut shape: Option<Vec<usize>> = None;
    for at in owners {
        let tensor = sources[*at].adapter.saved()[name];
        let expected = shape.get_or_insert_with(|| tensor.shape.clone());
        if *expected != tensor.shape {
            return Err(WeightError::Shape {
                name: name.to_owned(),
                file: sources[*at].name.clone(),
                expected: expected.clone(),
                found: tensor.shape.clone(),
            }
            .into());
        }
        let values = tensor.to_f32().map_err(|e| e.named(name))?;
        total.resize(values.len(), 0.0);
        for (t, v) in total.iter_mut().zip(values) {
            *t += f64::from(v) * weights[*at] / sum;
        }
    }
    let values: Vec<f32> = total.into_iter().map(|v| v as f32).collect();
    Ok(OwnedTensor::from_f32(shape.unwrap_or_default(), &values).map_err(|e| e.named(name))?)
}
