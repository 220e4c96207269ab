//! The encoder behind BERTScore.

use std::path::Path;

use anyhow::{Result, bail};
use qloom_core::evaluation::Embedder;

/// Opens the BERT-class base in `model` as an embedder. `layer` counts from 0, the embedding; none takes the last.
///
/// # Errors
/// A folder that is no such base.
pub(crate) fn open(
    model: &Path,
    _layer: Option<usize>,
    _device: &str,
) -> Result<Box<dyn Embedder>> {
    bail!(
        "bertscore needs an encoder, and this build cannot load the one in {}: it has no BERT model yet; \
         leave bertscore out of --metrics",
        model.display()
    )
}
