//! A quantized checkpoint rewritten with some of its weights replaced; every other tensor keeps its bytes.

use super::bitsandbytes::padded_tensors;
use super::checkpoint::{alignment, encode, is_companion};
use super::{
    Absmax, CheckpointReport, Nf4Tensor, QuantizationConfig, QuantizationError, Stored, nf4_specs,
    read_bnb, stored_format,
};
use crate::weights::{SafetensorsPlan, TensorSpec, WeightError, WeightSource};
use std::collections::BTreeMap;
use std::io::Write;

/// New values for a weight, or `None` where it stays as it is.
pub type Replacement<'a, E> = dyn Fn(&str) -> Result<Option<Vec<f32>>, E> + 'a;

/// What becomes of a weight and the tensors that belong to it.
struct Job {
    weight: String,
    replaced: bool,
    outputs: Vec<TensorSpec>,
}

/// Writes `source` with the weights named in `replaced` taken from `values`: NF4 ones are quantized again with their own
/// settings, dense ones are rounded to their own type.
///
/// `progress` is called with (weights done, weights in all). The sink is returned for the caller to close.
///
/// # Errors
/// A checkpoint that is not quantized, values that cannot be had or are not finite, a sink that refuses bytes.
pub fn rewrite_quantized<S: WeightSource + ?Sized, W: Write, E: From<QuantizationError>>(
    source: &S,
    config_json: &[u8],
    replaced: &dyn Fn(&str) -> bool,
    values: &Replacement<'_, E>,
    out: W,
    mut progress: impl FnMut(usize, usize),
) -> Result<(W, CheckpointReport), E> {
    QuantizationConfig::from_config_json(config_json)?;
    let mut jobs = jobs(source, replaced)?;
    jobs.sort_by_key(|j| std::cmp::Reverse(alignment(&j.outputs)));
    let specs = jobs.iter().flat_map(|j| j.outputs.clone()).collect();
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    let plan = SafetensorsPlan::in_order(specs, &metadata).map_err(QuantizationError::from)?;
    let mut writer = plan.begin(out).map_err(QuantizationError::from)?;
    let mut converted = 0;
    for (done, job) in jobs.iter().enumerate() {
        let new = if job.replaced {
            values(&job.weight)?
        } else {
            None
        };
        converted += usize::from(new.is_some());
        for (name, bytes) in tensors(source, job, new)? {
            writer
                .write(&name, &bytes)
                .map_err(QuantizationError::from)?;
        }
        progress(done + 1, jobs.len());
    }
    let report = CheckpointReport {
        config_json: config_json.to_vec(),
        converted,
        copied: jobs.len() - converted,
        total_bytes: plan.total_bytes(),
    };
    Ok((writer.finish().map_err(QuantizationError::from)?, report))
}

fn jobs<S: WeightSource + ?Sized>(
    source: &S,
    replaced: &dyn Fn(&str) -> bool,
) -> Result<Vec<Job>, QuantizationError> {
    let mut jobs = Vec::new();
    for weight in source.names() {
        if is_companion(source, &weight) {
            continue;
        }
        let Some(spec) = source.spec(&weight) else {
            continue;
        };
        let replaced = replaced(&weight);
        let outputs = match (stored_format(source, &weight)?, replaced) {
            (Stored::Dense, _) => vec![spec],
            (Stored::Nf4, true) => {
                let old = read_bnb(source, &weight)?;
                nf4_specs(&weight, &old.shape, old.blocksize, is_double(&old))
            }
            (Stored::Nf4, false) => copied(source, &weight)?,
        };
        jobs.push(Job {
            weight,
            replaced,
            outputs,
        });
    }
    Ok(jobs)
}

/// The tensors of an NF4 weight as they are, in the order that keeps them aligned; the JSON is padded as new ones are.
fn copied<S: WeightSource + ?Sized>(
    source: &S,
    weight: &str,
) -> Result<Vec<TensorSpec>, QuantizationError> {
    let old = read_bnb(source, weight)?;
    let order = nf4_specs(weight, &old.shape, old.blocksize, is_double(&old));
    let mut specs: Vec<TensorSpec> = order.iter().filter_map(|s| source.spec(&s.name)).collect();
    let all: usize = specs
        .iter()
        .filter_map(|s| usize::try_from(s.byte_len().ok()?).ok())
        .sum();
    if let Some(state) = specs.last_mut() {
        let own: usize = state.shape.iter().product();
        state.shape = vec![own + all.next_multiple_of(8) - all];
    }
    Ok(specs)
}

fn is_double(tensor: &Nf4Tensor) -> bool {
    matches!(tensor.absmax, Absmax::Double { .. })
}

/// The job's tensors, as bytes, in the order of its outputs.
fn tensors<S: WeightSource + ?Sized>(
    source: &S,
    job: &Job,
    new: Option<Vec<f32>>,
) -> Result<Vec<(String, Vec<u8>)>, QuantizationError> {
    let Some(new) = new else {
        let copy = |spec: &TensorSpec| -> Result<_, WeightError> {
            let mut bytes = source.get(&spec.name)?.bytes.into_owned();
            let planned = usize::try_from(spec.byte_len()?).unwrap_or(bytes.len());
            bytes.resize(planned, b' ');
            Ok((spec.name.clone(), bytes))
        };
        return Ok(job.outputs.iter().map(copy).collect::<Result<_, _>>()?);
    };
    if stored_format(source, &job.weight)? == Stored::Dense {
        let dtype = job.outputs[0].dtype;
        return Ok(vec![(
            job.weight.clone(),
            encode(&new, dtype, &job.weight)?,
        )]);
    }
    let old = read_bnb(source, &job.weight)?;
    let packed = Nf4Tensor::quantize(&new, &old.shape, old.blocksize, is_double(&old));
    let packed = packed
        .map_err(|e| e.of(&job.weight))?
        .with_dtype(&old.dtype);
    Ok(padded_tensors(&job.weight, &packed)?
        .into_iter()
        .map(|(name, t)| (name, t.bytes.into_owned()))
        .collect())
}
