//! What the methods ask of a model, a language model or a classifier: to be loaded, overlaid, and given its result again.

use std::path::Path;

use anyhow::Result;
use burn::tensor::{DType, Device};
use qloom_core::adapters::LoraModule;
use qloom_core::lora::Overlay;
use qloom_core::models::bert::{BertClassifier, Prefixed};
use qloom_core::models::llama::Llama;

use super::{load_adapter, load_classifier};
use crate::base::BaseFiles;
use crate::device::ChosenDevice;

/// A model that a run can adapt.
pub(crate) trait Adaptable: Clone {
    /// Loads it. `quantization` is `nf4`, `none` or `auto` (as stored).
    fn load(
        base: &BaseFiles,
        chosen: &ChosenDevice,
        quantization: &str,
        double_quant: bool,
        dtype: DType,
    ) -> Result<Self>;

    /// The device its weights are on.
    fn device(&self) -> Device;

    /// It with adapters and trained weights laid over it.
    fn with(&self, overlay: &Overlay) -> Self;

    /// It with the adapter in `folder`, which must belong to `base`, its files.
    fn with_adapter(&self, folder: &Path, base: &BaseFiles) -> Result<Self>;

    /// `pairs` under the names that the files of `base` have for their modules.
    fn stored(pairs: &[LoraModule], base: &BaseFiles) -> Result<Vec<LoraModule>>;
}

impl Adaptable for Llama {
    fn load(
        base: &BaseFiles,
        chosen: &ChosenDevice,
        quantization: &str,
        double_quant: bool,
        dtype: DType,
    ) -> Result<Self> {
        base.load(chosen, quantization, double_quant, dtype)
    }

    fn device(&self) -> Device {
        self.device()
    }

    fn with(&self, overlay: &Overlay) -> Self {
        self.with(overlay)
    }

    fn with_adapter(&self, folder: &Path, base: &BaseFiles) -> Result<Self> {
        Ok(self.with(&load_adapter(folder, base, self)?))
    }

    fn stored(pairs: &[LoraModule], _: &BaseFiles) -> Result<Vec<LoraModule>> {
        Ok(pairs.to_vec())
    }
}

impl Adaptable for BertClassifier {
    fn load(
        base: &BaseFiles,
        chosen: &ChosenDevice,
        quantization: &str,
        double_quant: bool,
        dtype: DType,
    ) -> Result<Self> {
        base.load_classifier(chosen, quantization, double_quant, dtype)
    }

    fn device(&self) -> Device {
        self.device()
    }

    fn with(&self, overlay: &Overlay) -> Self {
        self.with(overlay)
    }

    fn with_adapter(&self, folder: &Path, base: &BaseFiles) -> Result<Self> {
        Ok(load_classifier(folder, base, self)?.model)
    }

    fn stored(pairs: &[LoraModule], base: &BaseFiles) -> Result<Vec<LoraModule>> {
        let source = base.source()?;
        let names = Prefixed::new(&source, base.bert_config()?.family);
        let renamed = |pair: &LoraModule| {
            let weight = names.stored(&format!("{}.weight", pair.path));
            LoraModule {
                path: weight.trim_end_matches(".weight").to_owned(),
                ..pair.clone()
            }
        };
        Ok(pairs.iter().map(renamed).collect())
    }
}
