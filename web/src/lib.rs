//! The browser half of Qloom: for now the part that proves the core loads an adapter's files in a page.
//!
//! The worker, the storage and the page come on top of this; no model or merge maths will live here.

pub mod archive;
pub mod engine;
pub mod fetch;
pub mod protocol;
pub mod state;
pub mod storage;
#[cfg(target_arch = "wasm32")]
pub mod ui;
#[cfg(target_arch = "wasm32")]
pub mod worker;

use qloom_core::adapters::{Adapter, AdapterError};

/// What the page shows of a dropped adapter before any weight is downloaded.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterSummary {
    /// The base it was trained on.
    pub base: Option<String>,
    /// Rank of the update.
    pub rank: usize,
    /// Numerator of the scaling.
    pub alpha: f64,
    /// Adapted modules.
    pub modules: usize,
}

/// Reads the two files of a PEFT adapter.
///
/// # Errors
/// Whatever makes the adapter unusable, in words a visitor can act on.
pub fn summarize(config_json: &[u8], safetensors: &[u8]) -> Result<AdapterSummary, AdapterError> {
    let adapter = Adapter::from_bytes(config_json, safetensors)?;
    Ok(AdapterSummary {
        base: adapter.config.base_model_name_or_path.clone(),
        rank: adapter.config.r,
        alpha: adapter.config.lora_alpha,
        modules: adapter.paths().count(),
    })
}
