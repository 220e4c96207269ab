//! Between adapters in files, parameters in training, and layers on a model.

use burn::tensor::{Device, Tensor, TensorData};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::{LoraConfig, LoraLayer, Overlay, scaling};
use crate::adapters::{Adapter, AdapterError, LoraModule, PeftConfig, TargetSpec, resolve_targets};
use crate::train::{Parameter, Parameters, Role};
use crate::weights::OwnedTensor;

/// Parameters of a new adapter on the modules `config` targets: `A` uniform in `±1/sqrt(in)` (PyTorch's
/// `kaiming_uniform_(a=sqrt(5))`, PEFT's default), `B` zero, so that training starts at the base.
///
/// # Errors
/// Targets that match nothing, or an unusable pattern.
pub fn fresh_parameters(
    config: &LoraConfig,
    linears: &[(String, [usize; 2])],
    seed: u64,
) -> Result<Vec<(Parameter, Vec<f32>)>, AdapterError> {
    let targets = resolve_targets(&TargetSpec::from(config), linears)?;
    let peft = PeftConfig::from_lora(config, TASK, "", &targets);
    let mut tensors = Vec::with_capacity(2 * targets.len());
    for (index, path) in targets.into_iter().enumerate() {
        let Some(&(_, [out, input])) = linears.iter().find(|(name, _)| *name == path) else {
            continue;
        };
        let (rank, alpha) = peft.rank_and_alpha(&path)?;
        let scaling = scaling(alpha, rank, config.rslora);
        let bound = (input as f64).sqrt().recip();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(index as u64);
        let a = (0..rank * input)
            .map(|_| (bound * (2.0 * unit(&mut rng) - 1.0)) as f32)
            .collect();
        let b = vec![0.0; out * rank];
        tensors.extend(pair(
            &path,
            [out, input],
            rank,
            scaling,
            config.dropout,
            a,
            b,
        ));
    }
    Ok(tensors)
}

/// Parameters that continue an existing adapter, its saved weights included.
pub fn parameters_of(
    adapter: &Adapter,
    dropout: f64,
) -> Result<Vec<(Parameter, Vec<f32>)>, AdapterError> {
    let mut tensors = Vec::new();
    for m in adapter.modules()? {
        tensors.extend(pair(
            &m.path,
            [m.out_features, m.in_features],
            m.rank,
            m.scaling,
            dropout,
            m.a,
            m.b,
        ));
    }
    for (name, tensor) in adapter.saved() {
        let spec = Parameter {
            name: name.to_owned(),
            shape: tensor.shape.clone(),
            role: Role::Weight,
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

/// The PEFT adapter of trained parameters.
pub fn to_adapter(config: &PeftConfig, parameters: &Parameters) -> Result<Adapter, AdapterError> {
    let mut modules: Vec<LoraModule> = Vec::new();
    let mut saved = Vec::new();
    for (spec, values) in parameters.to_host() {
        match (&spec.role, spec.shape.as_slice()) {
            (
                Role::LoraA {
                    path,
                    scaling,
                    dropout,
                },
                &[rank, in_features],
            ) => modules.push(LoraModule {
                path: path.clone(),
                a: values,
                b: Vec::new(),
                rank,
                in_features,
                out_features: 0,
                alpha: 0.0,
                scaling: *scaling,
                dropout: *dropout,
            }),
            (Role::LoraB { .. }, &[out_features, _]) => {
                if let Some(last) = modules.last_mut() {
                    last.b = values;
                    last.out_features = out_features;
                }
            }
            _ => saved.push((spec.name, OwnedTensor::from_f32(spec.shape, &values)?)),
        }
    }
    Adapter::new(config.clone(), &modules, saved)
}

/// The layers of `adapter` on `device`, ready to be laid over a model.
pub fn overlay(adapter: &Adapter, device: &Device) -> Result<Overlay, AdapterError> {
    let mut overlay = Overlay::default();
    for m in adapter.modules()? {
        let layer = LoraLayer {
            a: Tensor::from_data(TensorData::new(m.a, [m.rank, m.in_features]), device),
            b: Tensor::from_data(TensorData::new(m.b, [m.out_features, m.rank]), device),
            scaling: m.scaling,
            dropout: 0.0,
        };
        overlay.add_lora(&m.path, layer);
    }
    for (name, tensor) in adapter.saved() {
        let values = tensor.to_f32()?;
        match tensor.shape.as_slice() {
            &[rows, columns] => overlay.set_matrix(
                name,
                Tensor::from_data(TensorData::new(values, [rows, columns]), device),
            ),
            _ => {
                let count = values.len();
                overlay.set_vector(
                    name,
                    Tensor::from_data(TensorData::new(values, [count]), device),
                );
            }
        }
    }
    Ok(overlay)
}

const TASK: &str = "CAUSAL_LM";

fn pair(
    path: &str,
    [out, input]: [usize; 2],
    rank: usize,
    scaling: f64,
    dropout: f64,
    a: Vec<f32>,
    b: Vec<f32>,
) -> [(Parameter, Vec<f32>); 2] {
    let owned = path.to_owned();
    let down = Parameter {
        name: format!("{path}.lora_A.weight"),
        shape: vec![rank, input],
        role: Role::LoraA {
            path: owned.clone(),
            scaling,
            dropout,
        },
    };
    let up = Parameter {
        name: format!("{path}.lora_B.weight"),
        shape: vec![out, rank],
        role: Role::LoraB { path: owned },
    };
    [(down, a), (up, b)]
}

/// Uniform in `[0, 1)` with 53 bits.
fn unit(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}
