//! A new adapter: which tensors it has, and where they start.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::init::{BaseWeights, Init, Taken, gaussian, loftq, principal, uniform};
use super::{Kind, LoraConfig, row_norms, scaling};
use crate::adapters::{AdapterError, LoraModule, PeftConfig, TargetSpec, resolve_targets};
use crate::train::{Parameter, Role};

/// Tensors to train, with their initial values.
pub type Tensors = Vec<(Parameter, Vec<f32>)>;

/// A new adapter.
#[derive(Clone, Debug, Default)]
pub struct Fresh {
    /// Its tensors: pairs with their magnitudes, module by module, then every gate.
    pub tensors: Tensors,
    /// What its initialization took from the base.
    pub taken: Taken,
}

/// [`fresh`] for configurations that need no weight of the base: LoRA, rsLoRA, sparse LoRA and HiRA from random
/// numbers.
///
/// # Errors
/// As [`fresh`]; a configuration that does need the base.
pub fn fresh_parameters(
    config: &LoraConfig,
    linears: &[(String, [usize; 2])],
    seed: u64,
) -> Result<Tensors, AdapterError> {
    Ok(fresh(config, linears, seed, None)?.tensors)
}

/// A new adapter on the modules `config` targets among `linears`. `weights` is asked for the base's weights by DoRA
/// and by initializations that decompose them.
///
/// # Errors
/// Targets that match nothing, an unusable pattern, an initialization that does not fit a module or the base.
pub fn fresh(
    config: &LoraConfig,
    linears: &[(String, [usize; 2])],
    seed: u64,
    weights: Option<&BaseWeights<'_>>,
) -> Result<Fresh, AdapterError> {
    let kind = config.method.kind().unwrap_or_default();
    let mut fresh = Fresh::default();
    let mut taken = Vec::new();
    let mut gates = Vec::new();
    for (index, mut module) in layout(config, linears)?.into_iter().enumerate() {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(index as u64);
        taken.extend(start(config, &mut module, weights, &mut rng)?);
        let magnitude = match kind {
            Kind::Dora => {
                let weight = needed(weights, &module.path)?.effective(&module.path)?;
                Some(row_norms(&weight, module.in_features))
            }
            _ => None,
        };
        if kind == Kind::Sparse {
            gates.push(gate(&module));
        }
        fresh.tensors.extend(tensors_of(kind, module, magnitude));
    }
    // Together at the end, so that one slice of the flat vector holds them all.
    fresh.tensors.extend(gates);
    fresh.taken = match weights {
        _ if taken.is_empty() => Taken::Nothing,
        Some(weights) if requantizes(config, weights, &taken) => Taken::Requantized(taken),
        _ => Taken::Subtracted(taken),
    };
    Ok(fresh)
}

/// The pairs a new adapter has, without values, in the order of `linears`.
pub fn layout(
    config: &LoraConfig,
    linears: &[(String, [usize; 2])],
) -> Result<Vec<LoraModule>, AdapterError> {
    let targets = resolve_targets(&TargetSpec::from(config), linears)?;
    let peft = PeftConfig::from_lora(config, "", "", &targets);
    let hira = config.method.kind() == Some(Kind::Hira);
    let shapes = linears.iter().filter(|(path, _)| targets.contains(path));
    shapes
        .map(|(path, [out, input])| {
            let (rank, alpha) = peft.rank_and_alpha(path)?;
            Ok(LoraModule {
                path: path.clone(),
                a: Vec::new(),
                b: Vec::new(),
                rank,
                in_features: *input,
                out_features: *out,
                alpha,
                scaling: if hira {
                    1.0
                } else {
                    scaling(alpha, rank, config.uses_rslora())
                },
                dropout: config.dropout,
            })
        })
        .collect()
}

/// How many values a new adapter trains, whole weights beside it left out.
pub fn adapter_values(
    config: &LoraConfig,
    linears: &[(String, [usize; 2])],
) -> Result<usize, AdapterError> {
    let Some(kind) = config.method.kind() else {
        return Ok(0);
    };
    let vector = |m: &LoraModule| match kind {
        Kind::Dora => m.out_features,
        Kind::Sparse => m.rank,
        Kind::Lora | Kind::Hira => 0,
    };
    let modules = layout(config, linears)?;
    let values = |m: &LoraModule| m.rank * (m.in_features + m.out_features) + vector(m);
    Ok(modules.iter().map(values).sum())
}

/// The parameters of one module: its pair, `A` before `B`, and DoRA's magnitude after them.
pub(super) fn tensors_of(kind: Kind, module: LoraModule, magnitude: Option<Vec<f32>>) -> Tensors {
    let (down, up) = match kind {
        Kind::Hira => ("hira_A", "hira_B"),
        _ => ("lora_A.weight", "lora_B.weight"),
    };
    let path = module.path;
    let a = Parameter {
        name: format!("{path}.{down}"),
        shape: vec![module.rank, module.in_features],
        role: Role::LoraA {
            path: path.clone(),
            scaling: module.scaling,
            dropout: module.dropout,
            kind,
        },
    };
    let b = Parameter {
        name: format!("{path}.{up}"),
        shape: vec![module.out_features, module.rank],
        role: Role::LoraB { path: path.clone() },
    };
    let mut tensors = vec![(a, module.a), (b, module.b)];
    tensors.extend(magnitude.map(|values| {
        let parameter = Parameter {
            name: format!("{path}.lora_magnitude_vector"),
            shape: vec![values.len()],
            role: Role::Magnitude { path },
        };
        (parameter, values)
    }));
    tensors
}

/// Open gates for every rank of `module`.
fn gate(module: &LoraModule) -> (Parameter, Vec<f32>) {
    let parameter = Parameter {
        name: format!("{}.lora_gate", module.path),
        shape: vec![module.rank],
        role: Role::Gate {
            path: module.path.clone(),
        },
    };
    (parameter, vec![1.0; module.rank])
}

/// Fills the pair of `module` as the configuration says; returns what that took from the base.
fn start(
    config: &LoraConfig,
    module: &mut LoraModule,
    weights: Option<&BaseWeights<'_>>,
    rng: &mut ChaCha8Rng,
) -> Result<Option<LoraModule>, AdapterError> {
    let (rank, input, out) = (module.rank, module.in_features, module.out_features);
    module.b = vec![0.0; out * rank];
    match config.init {
        Init::Default => module.a = uniform(rank, input, rng),
        Init::Gaussian => module.a = gaussian(rank, input, rng),
        Init::Pissa => {
            let weight = needed(weights, &module.path)?.stored(&module.path)?;
            let (shape, scaling) = ([out, input], module.scaling);
            (module.a, module.b) = principal(&module.path, &weight, shape, rank, scaling)?;
            return Ok(Some(module.clone()));
        }
        Init::Loftq => {
            let weights = needed(weights, &module.path)?;
            refuse_loftq(weights, &module.path)?;
            module.a = vec![0.0; rank * input];
            let weight = weights.stored(&module.path)?;
            return loftq(module, &weight, config.loftq_iter, weights.double_quant());
        }
    }
    Ok(None)
}

/// PiSSA on a base that is quantized while loading quantizes the rest, which the paper found to lose less; on a base
/// stored as NF4 there is nothing finer to quantize, and quantizing twice would only lose.
fn requantizes(config: &LoraConfig, weights: &BaseWeights<'_>, taken: &[LoraModule]) -> bool {
    config.init == Init::Loftq
        || (weights.is_nf4() && !taken.iter().any(|m| weights.is_stored_packed(&m.path)))
}

fn refuse_loftq(weights: &BaseWeights<'_>, path: &str) -> Result<(), AdapterError> {
    let reason = if !weights.is_nf4() {
        "LoftQ makes up for quantization, and this base is trained dense; set model.quantization = \"nf4\", or \
         lora.init = \"default\""
    } else if weights.is_stored_packed(path) {
        "LoftQ needs the full-precision weights, and this base is stored as NF4; name the base it was quantized from, or \
         set lora.init = \"default\" or \"pissa\""
    } else {
        return Ok(());
    };
    Err(AdapterError::initialization(path, reason))
}

fn needed<'a, 'b>(
    weights: Option<&'a BaseWeights<'b>>,
    path: &str,
) -> Result<&'a BaseWeights<'b>, AdapterError> {
    let reason = "this method starts from the base's weights, which were not given";
    weights.ok_or_else(|| AdapterError::initialization(path, reason))
}
