//! Models, adapters and data sets from the Hugging Face hub, through the `hf-hub` crate and the field's shared cache.
//!
//! - [`settings`]: the environment variables of `huggingface_hub`, read once into a struct;
//! - [`mod@reference`]: `owner/name[@revision]` and `hf:owner/name[@revision]/path`;
//! - [`fetch`]: one consistent commit into the cache, resumed where a download broke off, checked when it is whole;
//! - [`dataset`]: which files of a data set hold a split;
//! - [`errors`]: what a refusal of the hub means and what to do.

pub(crate) mod dataset;
pub(crate) mod errors;
pub(crate) mod fetch;
pub(crate) mod reference;
pub(crate) mod settings;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use hf_hub::RepoType;

use crate::files::base::{INDEX, PICKLED, SINGLE};
use fetch::Hub;
use reference::{RepoRef, looks_like_path};
use settings::HubSettings;

/// Small files that come along with a base's weights, where the repository has them.
const BESIDE_WEIGHTS: [&str; 8] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.txt",
];

/// The folder of a base: a local one as it is, a hub id downloaded or found in the cache.
///
/// # Errors
/// Neither a folder nor a hub id; what [`Hub::snapshot`] refuses; a repository without safetensors.
pub(crate) fn resolve_base(base: &str, settings: &HubSettings) -> Result<PathBuf> {
    resolve(base, settings, "base", choose_base)
}

/// The folder of a PEFT adapter, as [`resolve_base`].
pub(crate) fn resolve_adapter(adapter: &str, settings: &HubSettings) -> Result<PathBuf> {
    resolve(adapter, settings, "adapter", choose_adapter)
}

fn resolve(
    name: &str,
    settings: &HubSettings,
    what: &str,
    choose: fn(&[String]) -> Result<Vec<String>>,
) -> Result<PathBuf> {
    let path = Path::new(name);
    if path.is_dir() {
        return Ok(path.to_path_buf());
    }
    if path.exists() {
        bail!("{what} {name} is a file: give the folder it lies in");
    }
    if looks_like_path(name) {
        bail!("{what} {name}: there is no such folder (a hub id would be owner/name)");
    }
    let repo = RepoRef::parse(name)?;
    let snapshot = Hub::new(settings.clone())?.snapshot(RepoType::Model, &repo, choose)?;
    Ok(snapshot.path)
}

/// The files of a base worth fetching, weights last: a download that breaks off is then visibly incomplete.
fn choose_base(held: &[String]) -> Result<Vec<String>> {
    let has = |name: &str| held.iter().any(|file| file == name);
    if !has("config.json") {
        let hint = match has("adapter_config.json") {
            true => " (it is an adapter: name it with --adapter, and its base with --base)",
            false => "",
        };
        bail!(
            "it has no config.json, so it is no base model{hint}; it holds {}",
            some_of(held)
        );
    }
    let mut wanted: Vec<String> = BESIDE_WEIGHTS
        .iter()
        .filter(|name| has(name))
        .map(|name| (*name).to_owned())
        .collect();
    if has(INDEX) {
        wanted.push(INDEX.to_owned()); // its shards follow once it has been read
    } else if has(SINGLE) {
        wanted.push(SINGLE.to_owned());
    } else if let Some(pickle) = held
        .iter()
        .find(|f| PICKLED.iter().any(|end| f.ends_with(end)))
    {
        bail!(
            "it has pickled weights only ({pickle}), and loading a pickle can run code. Look for a revision with \
             safetensors (often refs/pr/1), or convert it once with transformers: \
             model.save_pretrained(DIR, safe_serialization=True), then --base DIR"
        );
    } else {
        bail!(
            "it has neither {SINGLE} nor {INDEX}; it holds {}",
            some_of(held)
        );
    }
    Ok(wanted)
}

fn choose_adapter(held: &[String]) -> Result<Vec<String>> {
    let has = |name: &str| held.iter().any(|file| file == name);
    if !has("adapter_config.json") {
        bail!(
            "it has no adapter_config.json, so it is no PEFT adapter; it holds {}",
            some_of(held)
        );
    }
    if !has("adapter_model.safetensors") {
        bail!(
            "it has no adapter_model.safetensors (pickled adapters are not read); it holds {}",
            some_of(held)
        );
    }
    let beside = [
        "adapter_config.json",
        "chat_template.jinja",
        "tokenizer_config.json",
        "adapter_model.safetensors",
    ];
    Ok(beside
        .iter()
        .filter(|n| has(n))
        .map(|n| (*n).to_owned())
        .collect())
}

/// A few names, for an error.
fn some_of(names: &[String]) -> String {
    const SHOWN: usize = 12;
    match names.len() {
        0 => "nothing".into(),
        n if n <= SHOWN => names.join(", "),
        n => format!("{}, and {} more", names[..SHOWN].join(", "), n - SHOWN),
    }
}
