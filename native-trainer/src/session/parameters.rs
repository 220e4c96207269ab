//! What a run trains: a fresh adapter, an existing one continued, a head, or every weight.

use anyhow::{Context, Result, ensure};
use qloom_core::adapters::PeftConfig;
use qloom_core::lora::{
    BaseWeights, Fresh, LoraConfig, Method, Taken, fresh, head_modules, parameters_of, peft_config,
};
use qloom_core::models::llama::LlamaConfig;
use qloom_core::quantization::is_quantizable;
use qloom_core::train::{Parameter, Parameters, Role};
use qloom_core::weights::WeightSource;

use super::read_adapter;
use crate::base::BaseFiles;
use crate::commands::UsageError;
use crate::config::RunConfig;
use crate::device::ChosenDevice;

/// A fresh adapter, a head, or the adapter the configuration starts from; and what its initialization took from the base.
pub(super) fn initial_parameters(
    config: &RunConfig,
    base: &BaseFiles,
    llama: &LlamaConfig,
    weights: &BaseWeights<'_>,
    chosen: &ChosenDevice,
) -> Result<(Parameters, PeftConfig, Taken)> {
    let device = &chosen.device;
    if let Some(folder) = &config.lora.adapter {
        let adapter = read_adapter(folder.as_ref())?;
        adapter
            .validate(&llama.linear_modules(), &llama.adaptable_tensors())
            .with_context(|| format!("adapter {folder} does not fit the base {}", base.name))?;
        let wanted = config.lora.method;
        if wanted != Method::default() && wanted.kind() != Some(adapter.kind()) {
            return Err(UsageError::new(format!(
                "lora.adapter = {folder:?} is a {} adapter and lora.method = \"{wanted}\"; leave lora.method out to \
                 continue it as what it is",
                adapter.kind()
            ))
            .into());
        }
        let parameters = Parameters::new(parameters_of(&adapter, config.lora.dropout)?, device);
        return Ok((parameters, adapter.config, Taken::Nothing));
    }
    let lora = with_head(&config.lora, &llama.expected_tensors());
    let Fresh { mut tensors, taken } = match lora.method {
        Method::Head => Fresh::default(),
        _ => fresh(
            &lora,
            &llama.linear_modules(),
            config.train.seed,
            Some(weights),
        )?,
    };
    tensors.extend(saved_modules(
        &lora.modules_to_save,
        llama,
        &base.source()?,
    )?);
    let parameters = Parameters::new(tensors, device);
    let mut peft = peft_config(&lora, &parameters, &base.name);
    if llama.tie_word_embeddings {
        // A trained embedding is the head as well; PEFT must be told.
        peft.tie_head();
    }
    Ok((parameters, peft, taken))
}

/// The configuration with the head among the modules to save, where the method is to train it. `tensors` are the model's.
pub(crate) fn with_head(lora: &LoraConfig, tensors: &[(String, Vec<usize>)]) -> LoraConfig {
    let mut lora = lora.clone();
    if lora.method == Method::Head {
        for module in head_modules(tensors.iter().map(|(name, _)| name.as_str())) {
            if !lora.modules_to_save.contains(&module) {
                lora.modules_to_save.push(module);
            }
        }
    }
    lora
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

/// Every weight of an existing model, as full fine-tuning starts: from the values the base computes with.
pub(super) fn whole_parameters(
    config: &LlamaConfig,
    source: &impl WeightSource,
    weights: &BaseWeights<'_>,
    chosen: &ChosenDevice,
) -> Result<Parameters> {
    let values = |name: &str, shape: &[usize]| -> Result<Vec<f32>> {
        match name.strip_suffix(".weight") {
            Some(path) if is_quantizable(name, shape, &[]) => Ok(weights.effective(path)?),
            _ => Ok(source.get(name)?.to_f32().map_err(|e| e.named(name))?),
        }
    };
    let tensors = config.expected_tensors().into_iter();
    let tensors = tensors
        .map(|(name, shape)| {
            let values = values(&name, &shape)?;
            let role = Role::Weight;
            Ok((Parameter { name, shape, role }, values))
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(Parameters::new(tensors, &chosen.device))
}
