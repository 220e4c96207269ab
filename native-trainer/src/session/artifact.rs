//! What a run leaves: a PEFT adapter, or a whole model.

use std::path::Path;

use anyhow::Result;
use qloom_core::adapters::{Adapter, LoraModule, PeftConfig, RECEIPT, Receipt};
use qloom_core::lora::init::fold;
use qloom_core::lora::to_adapter;
use qloom_core::models::llama::LlamaConfig;
use qloom_core::quantization::{QuantizeOptions, quantize_checkpoint};
use qloom_core::train::Parameters;
use qloom_core::weights::{Dtype, OwnedTensor, SafetensorsSource, serialize};

use crate::files::atomic;

/// How trained parameters become files.
#[derive(Debug)]
pub(crate) enum Artifact {
    /// An adapter folder.
    Adapter {
        /// Its `adapter_config.json`.
        config: Box<PeftConfig>,
        /// What must fit when it is loaded.
        receipt: Box<Receipt>,
        /// Pairs that were subtracted from the base while training, and are folded into the adapter.
        subtracted: Vec<LoraModule>,
    },
    /// A base folder of an encoder with its head, every weight trained.
    Classifier {
        /// `config.json`.
        config: Vec<u8>,
        /// The tokenizer's files.
        text_files: Vec<(&'static str, Vec<u8>)>,
    },
    /// A base folder.
    Model {
        /// Its sizes.
        config: Box<LlamaConfig>,
        /// `tokenizer.json`.
        tokenizer: Vec<u8>,
        /// `tokenizer_config.json`.
        tokenizer_config: Option<Vec<u8>>,
        /// Quantize the blocks to NF4 and keep the rest in f16.
        nf4: bool,
    },
}

impl Artifact {
    /// The files as they are to lie in a folder, of the parameters' present values.
    pub(crate) async fn files(&self, parameters: &Parameters) -> Result<Files> {
        Ok(Files(self.named(parameters).await?))
    }

    async fn named(&self, parameters: &Parameters) -> Result<Vec<(&'static str, Vec<u8>)>> {
        match self {
            Self::Adapter {
                config,
                receipt,
                subtracted,
            } => {
                let mut adapter: Adapter = to_adapter(config, parameters).await?;
                if !subtracted.is_empty() {
                    adapter = fold(&adapter, subtracted)?;
                }
                let mut receipt = receipt.clone();
                if let Some(sparsity) = parameters.sparsity().await? {
                    receipt.rest.insert("sparsity".to_owned(), sparsity.into());
                }
                let (config, tensors) = adapter.to_bytes()?;
                Ok(vec![
                    ("adapter_config.json", config),
                    ("adapter_model.safetensors", tensors),
                    (RECEIPT, receipt.to_json()?),
                ])
            }
            Self::Classifier { config, text_files } => {
                let tensors = parameters
                    .to_host()
                    .await?
                    .into_iter()
                    .map(|(spec, values)| {
                        Ok((spec.name, OwnedTensor::from_f32(spec.shape, &values)?))
                    })
                    .collect::<Result<Vec<_>>>()?;
                let weights = serialize(&tensors, &Default::default())?;
                let mut files = text_files.clone();
                files.push(("config.json", config.clone()));
                files.push(("model.safetensors", weights));
                Ok(files)
            }
            Self::Model {
                config,
                tokenizer,
                tokenizer_config,
                nf4,
            } => {
                let (config, weights) = model_files(config, parameters, *nf4).await?;
                let mut files = vec![("config.json", config), ("model.safetensors", weights)];
                // Bases of token ids alone have none.
                if !tokenizer.is_empty() {
                    files.push(("tokenizer.json", tokenizer.clone()));
                }
                files.extend(
                    tokenizer_config
                        .clone()
                        .map(|bytes| ("tokenizer_config.json", bytes)),
                );
                Ok(files)
            }
        }
    }
}

/// Names and bytes of an artifact's files.
pub(crate) struct Files(Vec<(&'static str, Vec<u8>)>);

impl Files {
    /// Writes them into the empty `folder`.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        for (name, bytes) in &self.0 {
            atomic::write_file(&folder.join(name), bytes)?;
        }
        Ok(())
    }
}

/// `config.json` and `model.safetensors` of a whole model.
async fn model_files(
    config: &LlamaConfig,
    parameters: &Parameters,
    nf4: bool,
) -> Result<(Vec<u8>, Vec<u8>)> {
    let tensors: Vec<(String, OwnedTensor)> = parameters
        .to_host()
        .await?
        .into_iter()
        .map(|(spec, values)| {
            let linear = spec.name.contains("_proj.");
            let tensor = match nf4 && !linear {
                true => half_precision(spec.shape, &values)?,
                false => OwnedTensor::from_f32(spec.shape, &values)?,
            };
            Ok((spec.name, tensor))
        })
        .collect::<Result<_>>()?;
    let plain = serialize(&tensors, &Default::default())?;
    let config = config.to_json();
    if !nf4 {
        return Ok((config, plain));
    }
    let source = SafetensorsSource::new(vec![("model.safetensors".to_owned(), plain.as_slice())])?;
    let options = QuantizeOptions::default();
    let (bytes, report) = quantize_checkpoint(&source, &config, &options, Vec::new(), |_, _| {})?;
    Ok((report.config_json, bytes))
}

fn half_precision(shape: Vec<usize>, values: &[f32]) -> Result<OwnedTensor> {
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|v| half::f16::from_f32(*v).to_le_bytes())
        .collect();
    Ok(OwnedTensor::new(Dtype::F16, shape, bytes)?)
}
