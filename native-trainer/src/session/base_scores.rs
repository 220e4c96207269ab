//! Scores of a base that several runs share: kept in a folder under what they depend on, so that each is made once.
//!
//! A sweep or a recipe names the folder to the commands it starts (see `runs::child`); a run on its own keeps none.

use std::path::Path;

use anyhow::Result;
use qloom_core::weights::sha256_hex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::files::{atomic, read};
use crate::runs::child;

/// The scores under `parts` (all that decides them), or those that `score` makes now.
pub(crate) fn shared<T: Serialize + DeserializeOwned>(
    parts: &Value,
    score: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let Some(folder) = child::base_scores() else {
        return score();
    };
    let name = sha256_hex(parts.to_string().as_bytes());
    let path = folder.join(format!("{}.json", &name[..16]));
    if let Some(known) = load(&path) {
        eprintln!("scored before: taken from {}", path.display());
        return Ok(known);
    }
    let made = score()?;
    std::fs::create_dir_all(&folder)?;
    atomic::write_file(&path, &serde_json::to_vec(&made)?)?;
    Ok(made)
}

/// Kept scores; a file that cannot be read (a base whose perplexity is infinite, say) is as good as none.
fn load<T: DeserializeOwned>(path: &Path) -> Option<T> {
    path.is_file()
        .then(|| serde_json::from_slice(&read(path).ok()?).ok())
        .flatten()
}
