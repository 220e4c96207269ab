//! Whole checkpoints, dense to NF4 and back, a tensor at a time: memory peaks at the largest tensor, not at the model.

use super::bitsandbytes::{COMPANIONS, padded_tensors, torch_dtype};
use super::config::model_dtype;
use super::{
    BLOCKSIZE, Nf4Tensor, QuantizationConfig, QuantizationError, Stored, dense_spec,
    is_quantizable, nf4_specs, read_bnb, stored_format,
};
use crate::weights::{Dtype, SafetensorsPlan, TensorSpec, WeightError, WeightSource};
use std::collections::BTreeMap;
use std::io::Write;

/// Key of the safetensors metadata that names the dense model from which a file was quantized.
pub const SOURCE_FINGERPRINT: &str = "qloom_source_fingerprint";

/// How to quantize a checkpoint.
#[derive(Clone, Debug)]
pub struct QuantizeOptions {
    /// Quantize the scales too. Default true: 4.13 instead of 4.5 bits a weight.
    pub double_quant: bool,
    /// Modules to leave dense besides embeddings, norms and heads: a path, or any whole part of one.
    pub skip_modules: Vec<String>,
    /// [`crate::weights::base_fingerprint`] of the dense source, put into the file's metadata under
    /// [`SOURCE_FINGERPRINT`], so that an adapter trained on either recognizes the other.
    pub source_fingerprint: Option<String>,
}

impl Default for QuantizeOptions {
    fn default() -> Self {
        Self {
            double_quant: true,
            skip_modules: Vec::new(),
            source_fingerprint: None,
        }
    }
}

/// What was done to a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointReport {
    /// The new `config.json`.
    pub config_json: Vec<u8>,
    /// Tensors converted.
    pub converted: usize,
    /// Tensors copied as they were.
    pub copied: usize,
    /// Size of the file written.
    pub total_bytes: u64,
}

/// What becomes of one tensor of the source.
enum Job {
    Copy(TensorSpec),
    Quantize(TensorSpec),
    Dequantize {
        weight: String,
        dtype: Dtype,
        shape: Vec<usize>,
    },
}

impl Job {
    fn outputs(&self, double_quant: bool) -> Vec<TensorSpec> {
        match self {
            Self::Copy(spec) => vec![spec.clone()],
            Self::Quantize(spec) => nf4_specs(&spec.name, &spec.shape, BLOCKSIZE, double_quant),
            Self::Dequantize {
                weight,
                dtype,
                shape,
            } => vec![TensorSpec::new(weight, *dtype, shape.clone())],
        }
    }
}

/// Quantizes the attention and MLP linears of `source` to NF4 and writes one safetensors file in bitsandbytes' layout.
///
/// `progress` is called with (tensors done, tensors in all). The sink is returned for the caller to close.
///
/// # Errors
/// A checkpoint already quantized, one without linears, a non-finite weight, a sink that refuses bytes.
pub fn quantize_checkpoint<S: WeightSource + ?Sized, W: Write>(
    source: &S,
    config_json: &[u8],
    options: &QuantizeOptions,
    out: W,
    mut progress: impl FnMut(usize, usize),
) -> Result<(W, CheckpointReport), QuantizationError> {
    if QuantizationConfig::from_config_json(config_json)?.is_some() {
        return Err(QuantizationError::AlreadyQuantized {
            name: "config.json: quantization_config".into(),
        });
    }
    let mut jobs = Vec::new();
    let mut dense_modules = Vec::new();
    for name in source.names() {
        let Some(spec) = source.spec(&name) else {
            continue;
        };
        if stored_format(source, &name)? == Stored::Nf4 {
            return Err(QuantizationError::AlreadyQuantized { name });
        }
        if is_quantizable(&name, &spec.shape, &options.skip_modules) {
            jobs.push(Job::Quantize(spec));
        } else {
            dense_modules.extend(dense_linear(&spec));
            jobs.push(Job::Copy(spec));
        }
    }
    if !jobs.iter().any(|j| matches!(j, Job::Quantize(_))) {
        return Err(QuantizationError::NothingToQuantize { found: jobs.len() });
    }

    let skip = match dense_modules.iter().all(|m| m == HEAD) {
        true => None, // what transformers leaves dense by itself
        false => Some(with_head(dense_modules, source)),
    };
    let compute = model_dtype(config_json)?.filter(|d| torch_dtype(d).is_some());
    let compute = compute.unwrap_or_else(|| "float32".into());
    let config =
        QuantizationConfig::nf4(options.double_quant, &compute, skip).put_into(config_json)?;
    let source_fingerprint = options
        .source_fingerprint
        .clone()
        .map(|f| (SOURCE_FINGERPRINT.to_owned(), f));
    run(
        source,
        jobs,
        options.double_quant,
        source_fingerprint,
        config,
        out,
        &mut progress,
    )
}

/// Turns every NF4 weight of `source` back into the type it had (or into `dtype`) and writes one dense safetensors file.
pub fn dequantize_checkpoint<S: WeightSource + ?Sized, W: Write>(
    source: &S,
    config_json: &[u8],
    dtype: Option<Dtype>,
    out: W,
    mut progress: impl FnMut(usize, usize),
) -> Result<(W, CheckpointReport), QuantizationError> {
    QuantizationConfig::from_config_json(config_json)?;
    let names = source.names();
    let mut jobs = Vec::new();
    for name in &names {
        let Some(spec) = source.spec(name) else {
            continue;
        };
        if is_companion(source, name) {
            continue;
        }
        jobs.push(match stored_format(source, name)? {
            Stored::Dense => Job::Copy(spec),
            Stored::Nf4 => {
                let spec = dense_spec(source, name)?;
                Job::Dequantize {
                    weight: name.clone(),
                    dtype: dtype.unwrap_or(spec.dtype),
                    shape: spec.shape,
                }
            }
        });
    }
    let config = QuantizationConfig::take_from(config_json)?;
    run(source, jobs, false, None, config, out, &mut progress)
}

/// Plans the file, then converts and writes a tensor at a time.
fn run<S: WeightSource + ?Sized, W: Write>(
    source: &S,
    mut jobs: Vec<Job>,
    double_quant: bool,
    source_fingerprint: Option<(String, String)>,
    config_json: Vec<u8>,
    out: W,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<(W, CheckpointReport), QuantizationError> {
    jobs.sort_by_key(|j| std::cmp::Reverse(alignment(&j.outputs(double_quant))));
    let specs = jobs.iter().flat_map(|j| j.outputs(double_quant)).collect();
    let mut metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    metadata.extend(source_fingerprint);
    let plan = SafetensorsPlan::in_order(specs, &metadata)?;
    let mut writer = plan.begin(out)?;
    let mut converted = 0;
    for (done, job) in jobs.iter().enumerate() {
        match job {
            Job::Copy(spec) => writer.write(&spec.name, &source.get(&spec.name)?.bytes)?,
            Job::Quantize(spec) => {
                converted += 1;
                for (name, t) in
                    padded_tensors(&spec.name, &quantize_one(source, spec, double_quant)?)?
                {
                    writer.write(&name, &t.bytes)?;
                }
            }
            Job::Dequantize { weight, dtype, .. } => {
                converted += 1;
                writer.write(
                    weight,
                    &encode(&read_bnb(source, weight)?.dequantize()?, *dtype, weight)?,
                )?;
            }
        }
        progress(done + 1, jobs.len());
    }
    let report = CheckpointReport {
        config_json,
        converted,
        copied: jobs.len() - converted,
        total_bytes: plan.total_bytes(),
    };
    Ok((writer.finish()?, report))
}

/// The power of two that the job's size is a multiple of, at most 8: jobs in descending order keep every tensor aligned.
pub(super) fn alignment(outputs: &[TensorSpec]) -> u64 {
    let size: u64 = outputs.iter().filter_map(|s| s.byte_len().ok()).sum();
    1 << size.trailing_zeros().min(3)
}

fn quantize_one<S: WeightSource + ?Sized>(
    source: &S,
    spec: &TensorSpec,
    double_quant: bool,
) -> Result<Nf4Tensor, QuantizationError> {
    let dtype = match spec.dtype {
        Dtype::F16 => "float16",
        Dtype::BF16 => "bfloat16",
        _ => "float32",
    };
    let values = source
        .get(&spec.name)?
        .to_f32()
        .map_err(|e| e.named(&spec.name))?;
    let packed = Nf4Tensor::quantize(&values, &spec.shape, BLOCKSIZE, double_quant);
    Ok(packed.map_err(|e| e.of(&spec.name))?.with_dtype(dtype))
}

/// The module path of a matrix that stays dense and that transformers would otherwise take for a linear to quantize.
fn dense_linear(spec: &TensorSpec) -> Option<String> {
    let path = spec.name.strip_suffix(".weight")?;
    (spec.shape.len() == 2 && !path.contains("embed")).then(|| path.to_owned())
}

/// The output head of a causal model.
const HEAD: &str = "lm_head";

/// `modules` and, of a causal model, the head: a list replaces what transformers leaves dense by itself, and a head that
/// is tied to the embedding has no tensor that would put it there.
fn with_head<S: WeightSource + ?Sized>(mut modules: Vec<String>, source: &S) -> Vec<String> {
    let causal = source.contains("model.embed_tokens.weight");
    if causal && !modules.iter().any(|m| m == HEAD) {
        modules.push(HEAD.to_owned());
    }
    modules
}

/// Whether `name` belongs to an NF4 weight, as its scales and its state do.
pub(crate) fn is_companion<S: WeightSource + ?Sized>(source: &S, name: &str) -> bool {
    COMPANIONS.iter().any(|c| {
        let owner = name.strip_suffix(c).and_then(|n| n.strip_suffix('.'));
        owner.is_some_and(|o| matches!(stored_format(source, o), Ok(Stored::Nf4)))
    })
}

/// `values` as bytes of `dtype`, rounded to nearest even.
pub(crate) fn encode(values: &[f32], dtype: Dtype, name: &str) -> Result<Vec<u8>, WeightError> {
    Ok(match dtype {
        Dtype::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Dtype::F16 => values
            .iter()
            .flat_map(|v| half::f16::from_f32(*v).to_le_bytes())
            .collect(),
        Dtype::BF16 => values
            .iter()
            .flat_map(|v| half::bf16::from_f32(*v).to_le_bytes())
            .collect(),
        found => {
            return Err(WeightError::Dtype {
                name: name.to_owned(),
                expected: "F32, F16 or BF16",
                found,
            });
        }
    })
}
