//! Between adapters in files, parameters in training, and layers on a model.

use std::collections::HashMap;

use burn::tensor::{Device, Tensor, TensorData};

use super::fresh::{Tensors, tensors_of};
use super::methods::sparse;
use super::{AdapterLayer, Kind, LoraConfig, LoraLayer, Overlay};
use crate::adapters::{Adapter, AdapterError, LoraModule, PeftConfig};
use crate::train::{Parameter, Parameters, Role};
use crate::weights::OwnedTensor;

/// Parameters that continue an existing adapter, its saved weights included.
pub fn parameters_of(adapter: &Adapter, dropout: f64) -> Result<Tensors, AdapterError> {
    let mut tensors = Vec::new();
    let kind = adapter.kind();
    for module in adapter.pairs()? {
        let magnitude = adapter.magnitude(&module.path)?;
        let module = LoraModule { dropout, ..module };
        tensors.extend(tensors_of(kind, module, magnitude));
    }
    for (name, tensor) in adapter.saved() {
        let spec = Parameter {
            name: name.to_owned(),
            shape: tensor.shape.clone(),
            role: match name == EMBEDDING && adapter.unties_head() {
                true => Role::InputTable,
                false => Role::Weight,
            },
        };
        tensors.push((spec, tensor.to_f32()?));
    }
    Ok(tensors)
}

/// The file a fresh adapter with these parameters will have; `base` is recorded as
/// `base_model_name_or_path`.
pub fn peft_config(config: &LoraConfig, parameters: &Parameters, base: &str) -> PeftConfig {
    let paths: Vec<String> = parameters
        .specs()
        .iter()
        .filter_map(|spec| match &spec.role {
            Role::LoraA { path, .. } => Some(path.clone()),
            _ => None,
        })
        .collect();
    PeftConfig::from_lora(config, TASK, base, &paths)
}

/// The PEFT adapter of trained parameters. Closed gates are cut out of their pairs.
///
/// # Errors
/// Parameters that `config` does not describe; the device failed.
pub async fn to_adapter(
    config: &PeftConfig,
    parameters: &Parameters,
) -> Result<Adapter, AdapterError> {
    let mut modules: Vec<LoraModule> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut gates: HashMap<String, Vec<f32>> = HashMap::new();
    let mut saved = Vec::new();
    for (spec, values) in parameters.to_host().await? {
        match (spec.role, spec.shape.as_slice()) {
            (
                Role::LoraA {
                    path,
                    scaling,
                    dropout,
                    ..
                },
                &[rank, in_features],
            ) => {
                places.insert(path.clone(), modules.len());
                modules.push(LoraModule {
                    path,
                    a: values,
                    b: Vec::new(),
                    rank,
                    in_features,
                    out_features: 0,
                    alpha: 0.0,
                    scaling,
                    dropout,
                });
            }
            (Role::LoraB { path }, &[out_features, _]) => {
                if let Some(&place) = places.get(&path) {
                    modules[place].b = values;
                    modules[place].out_features = out_features;
                }
            }
            (Role::Gate { path }, _) => {
                gates.insert(path, values);
            }
            _ => saved.push((spec.name, OwnedTensor::from_f32(spec.shape, &values)?)),
        }
    }
    if gates.is_empty() {
        return Adapter::new(config.clone(), &modules, saved);
    }
    for module in &mut modules {
        if let Some(gates) = gates.get(&module.path) {
            *module = sparse::cut(module, gates, config.use_rslora);
        }
    }
    Adapter::new(sparse::with_ranks(config, &modules), &modules, saved)
}

/// The layers of `adapter` on `device`, ready to be laid over a model.
pub fn overlay(adapter: &Adapter, device: &Device) -> Result<Overlay, AdapterError> {
    let mut overlay = Overlay::default();
    let kind = adapter.kind();
    for module in adapter.pairs()? {
        let magnitude = adapter.magnitude(&module.path)?;
        let vector = magnitude.map(|values| vector(values, device));
        let path = module.path.clone();
        overlay.add_lora(&path, AdapterLayer::new(kind, pair(module, device), vector));
    }
    if adapter.unties_head() {
        overlay.keep_head();
    }
    for (name, tensor) in adapter.saved() {
        let values = tensor.to_f32()?;
        match tensor.shape.as_slice() {
            &[rows, columns] => overlay.set_matrix(
                name,
                Tensor::from_data(TensorData::new(values, [rows, columns]), device),
            ),
            _ => overlay.set_vector(name, vector(values, device)),
        }
    }
    Ok(overlay)
}

/// An overlay that takes `modules` away from a base.
pub fn subtraction(modules: &[LoraModule], device: &Device) -> Overlay {
    let mut overlay = Overlay::default();
    for module in modules {
        let negative = LoraModule {
            scaling: -module.scaling,
            ..module.clone()
        };
        let layer = AdapterLayer::new(Kind::Lora, pair(negative, device), None);
        overlay.add_lora(&module.path, layer);
    }
    overlay
}

const EMBEDDING: &str = "model.embed_tokens.weight";
const TASK: &str = "CAUSAL_LM";

fn pair(m: LoraModule, device: &Device) -> LoraLayer {
    LoraLayer {
        a: Tensor::from_data(TensorData::new(m.a, [m.rank, m.in_features]), device),
        b: Tensor::from_data(TensorData::new(m.b, [m.out_features, m.rank]), device),
        scaling: m.scaling,
        dropout: 0.0,
    }
}

fn vector(values: Vec<f32>, device: &Device) -> Tensor<1> {
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), device)
}
