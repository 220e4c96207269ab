//! What a run trains: a fresh adapter, an existing one continued, or every weight.

use anyhow::{Context, Result, ensure};
use qloom_core::adapters::PeftConfig;
use qloom_core::lora::{fresh_parameters, parameters_of, peft_config};
use qloom_core::models::llama::LlamaConfig;
use qloom_core::train::{Parameter, Parameters, Role};
use qloom_core::weights::WeightSource;

use super::read_adapter;
use crate::base::BaseFiles;
use crate::config::RunConfig;
use crate::device::ChosenDevice;

/// A fresh adapter, or the one the configuration starts from.
pub(crate) fn initial_parameters(
    config: &RunConfig,
    base: &BaseFiles,
    llama: &LlamaConfig,
    chosen: &ChosenDevice,
) -> Result<(Parameters, PeftConfig)> {
    let device = &chosen.device;
    if let Some(folder) = &config.lora.adapter {
        let adapter = read_adapter(folder.as_ref())?;
        adapter
            .validate(&llama.linear_modules(), &llama.expected_tensors())
            .with_context(|| format!("adapter {folder} does not fit the base {}", base.name))?;
        let parameters = Parameters::new(parameters_of(&adapter, config.lora.dropout)?, device);
        return Ok((parameters, adapter.config));
    }
    let mut tensors = fresh_parameters(&config.lora, &llama.linear_modules(), config.train.seed)?;
    tensors.extend(saved_modules(
        &config.lora.modules_to_save,
        llama,
        &base.source()?,
    )?);
    let parameters = Parameters::new(tensors, device);
    let peft = peft_config(&config.lora, &parameters, &base.name);
    Ok((parameters, peft))
}

/// Whole weights trained beside the adapter, starting from the base's values.
fn saved_modules(
    modules: &[String],
    llama: &LlamaConfig,
    source: &impl WeightSource,
) -> Result<Vec<(Parameter, Vec<f32>)>> {
    let mut found = Vec::new();
    for module in modules {
        let suffix = format!(".{module}.weight");
        let names: Vec<String> = llama
            .expected_tensors()
            .into_iter()
            .map(|(name, _)| name)
            .filter(|name| format!(".{name}").ends_with(&suffix))
            .collect();
        let tied_head = module == "lm_head" && names.is_empty() && llama.tie_word_embeddings;
        let names = if tied_head {
            vec!["lm_head.weight".to_owned()]
        } else {
            names
        };
        ensure!(
            !names.is_empty(),
            "lora.modules_to_save: {module:?} is no module of this model; it has embed_tokens, lm_head, norm, \
             input_layernorm, post_attention_layernorm"
        );
        for name in names {
            let stored = if tied_head {
                "model.embed_tokens.weight"
            } else {
                name.as_str()
            };
            let tensor = source.get(stored)?;
            let values = tensor
                .to_f32()
                .with_context(|| format!("lora.modules_to_save: {stored} is stored quantized"))?;
            found.push((
                Parameter {
                    name,
                    shape: tensor.shape.clone(),
                    role: Role::Weight,
                },
                values,
            ));
        }
    }
    Ok(found)
}

/// Every weight of a new model.
pub(super) fn all_parameters(
    config: &LlamaConfig,
    source: &impl WeightSource,
    chosen: &ChosenDevice,
) -> Result<Parameters> {
    let tensors = config
        .expected_tensors()
        .into_iter()
        .map(|(name, shape)| {
            let values = source.get(&name)?.to_f32()?;
            Ok((
                Parameter {
                    name,
                    shape,
                    role: Role::Weight,
                },
                values,
            ))
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(Parameters::new(tensors, &chosen.device))
}
