//! `trainer probe`: numbers to hold against another implementation's.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use burn::tensor::Tensor;
use qloom_core::data::{Batch, IGNORE};
use qloom_core::host::{block_on, to_vec};
use qloom_core::lora::parameters_of;
use qloom_core::models::Architecture;
use qloom_core::train::{Accumulated, Parameters, StepOptions, accumulate};
use qloom_core::weights::{OwnedTensor, serialize};

use super::{Common, UsageError, classify};
use crate::base::BaseFiles;
use crate::cli::ProbeArguments;
use crate::device;
use crate::files::{atomic, read};
use crate::session::{load_adapter, read_adapter};

/// Marks padding in the ids file.
const PADDING: i64 = -1;

/// Writes `logits`, and with labels `loss`, and with `--grads` the adapter's gradients.
pub(super) fn run(common: &Common, arguments: ProbeArguments) -> Result<()> {
    let chosen = device::choose(&common.device)?;
    let dtype = device::compute_type(&arguments.model.compute, &chosen)?;
    let base = BaseFiles::open(arguments.model.base.as_deref().unwrap_or_default())?;
    let ids = read_rows(&arguments.ids)?;
    if let Architecture::Bert(_) = base.architecture()? {
        // Checks the padding as for a language model.
        batch(&ids, None)?;
        let tensors = classify::probe(&arguments, &chosen, &base, &ids)?;
        return finish(common, &arguments, tensors);
    }
    let labels = arguments.labels.as_deref().map(read_rows).transpose()?;
    let batch = batch(&ids, labels.as_deref())?;
    let config = base.llama_config()?;
    if let Some(id) = batch
        .input_ids
        .iter()
        .find(|&&id| id as usize >= config.vocab_size)
    {
        return Err(UsageError::new(format!(
            "token id {id} is outside the vocabulary of {}",
            config.vocab_size
        ))
        .into());
    }
    let outside = |&&label: &&i32| {
        label != IGNORE && !usize::try_from(label).is_ok_and(|l| l < config.vocab_size)
    };
    if let Some(label) = batch.labels.iter().find(outside) {
        return Err(UsageError::new(format!(
            "--labels: {label} is outside the vocabulary of {}; {IGNORE} marks what is not trained",
            config.vocab_size
        ))
        .into());
    }
    let model = base.load_for(
        &chosen,
        &arguments.model.quantization,
        true,
        dtype,
        batch.width,
    )?;
    let adapted = match &arguments.model.adapter {
        Some(folder) => model.with(&load_adapter(folder, &base, &model)?),
        None => model.clone(),
    };

    let mut tensors: Vec<(String, OwnedTensor)> = vec![host("logits", adapted.logits(&batch))?];
    if labels.is_some() {
        let (nll, count) = block_on(adapted.row_losses(&batch))?
            .iter()
            .fold((0.0, 0), |(nll, count), row| {
                (nll + row.nll, count + row.tokens)
            });
        ensure!(
            count > 0,
            "the labels leave no target: every one is -100 or in a row's first place"
        );
        tensors.push((
            "loss".to_owned(),
            OwnedTensor::from_f32(vec![1], &[(nll / count as f64) as f32])?,
        ));
    }
    if arguments.grads {
        let folder = arguments.model.adapter.as_deref();
        let (Some(folder), true) = (folder, labels.is_some()) else {
            return Err(UsageError::new("--grads needs --adapter and --labels").into());
        };
        let parameters =
            Parameters::new(parameters_of(&read_adapter(folder)?, 0.0)?, &chosen.device);
        let mut sum = Accumulated::new(&parameters);
        let options = StepOptions {
            recompute: arguments.recompute,
            loss_chunk: 512,
        };
        accumulate(
            &model,
            &parameters,
            &batch,
            1.0 / batch.target_tokens as f64,
            0,
            options,
            &mut sum,
        );
        let flat = sum.flat(&parameters);
        for (spec, values) in block_on(parameters.split_host(&flat))? {
            let name = format!("base_model.model.{}", spec.name);
            tensors.push((name, OwnedTensor::from_f32(spec.shape, &values)?));
        }
    }
    finish(common, &arguments, tensors)
}

/// Writes the tensors.
fn finish(
    common: &Common,
    arguments: &ProbeArguments,
    mut tensors: Vec<(String, OwnedTensor)>,
) -> Result<()> {
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    atomic::write_file(&arguments.out, &serialize(&tensors, &BTreeMap::new())?)?;
    if common.json {
        let names: Vec<&String> = tensors.iter().map(|(name, _)| name).collect();
        println!(
            "{}",
            serde_json::json!({ "out": arguments.out, "tensors": names })
        );
    }
    Ok(())
}

fn host<const D: usize>(name: &str, tensor: Tensor<D>) -> Result<(String, OwnedTensor)> {
    let shape = tensor.dims().to_vec();
    let values = block_on(to_vec(tensor))?;
    Ok((name.to_owned(), OwnedTensor::from_f32(shape, &values)?))
}

fn read_rows(path: &Path) -> Result<Vec<Vec<i64>>> {
    let rows: Vec<Vec<i64>> = serde_json::from_slice(&read(path)?).with_context(|| {
        format!(
            "{}: expected a JSON array of rows of integers, for --ids and --labels",
            path.display()
        )
    })?;
    let width = rows.first().map_or(0, Vec::len);
    ensure!(
        width > 0 && rows.iter().all(|row| row.len() == width),
        "--ids and --labels, {}: every row must have the same length, at least 1; pad with {PADDING} on the right",
        path.display()
    );
    Ok(rows)
}

fn batch(ids: &[Vec<i64>], labels: Option<&[Vec<i64>]>) -> Result<Batch> {
    let (rows, width) = (ids.len(), ids[0].len());
    let blank = vec![vec![i64::from(IGNORE); width]; rows];
    let labels = labels.unwrap_or(&blank);
    ensure!(
        labels.len() == rows && labels[0].len() == width,
        "--labels has {} rows of {}, --ids {rows} rows of {width}; they must match",
        labels.len(),
        labels[0].len()
    );
    let flat = |rows: &[Vec<i64>]| rows.iter().flatten().copied().collect::<Vec<i64>>();
    let ids = flat(ids);
    let labels = flat(labels);
    let wide = |&&value: &&i64| i32::try_from(value).is_err();
    for (flag, values) in [("--ids", &ids), ("--labels", &labels)] {
        if let Some(value) = values.iter().find(wide) {
            return Err(UsageError::new(format!(
                "{flag}: {value} is no token id of any vocabulary"
            ))
            .into());
        }
    }
    for row in ids.chunks(width) {
        let end = row.iter().position(|&id| id < 0).unwrap_or(width);
        ensure!(
            end > 0 && row[end..].iter().all(|&id| id == PADDING),
            "--ids: a row must hold token ids, then only {PADDING} for padding; found {row:?}"
        );
    }
    let mut batch = Batch {
        rows,
        width,
        input_ids: ids
            .iter()
            .map(|&id| if id == PADDING { 0 } else { id as u32 })
            .collect(),
        labels: labels.into_iter().map(|label| label as i32).collect(),
        token_type_ids: Vec::new(),
        position_ids: (0..rows).flat_map(|_| 0..width as u32).collect(),
        segment_ids: ids.iter().map(|&id| u32::from(id != PADDING)).collect(),
        target_tokens: 0,
        examples: (0..rows).collect(),
        classes: Vec::new(),
    };
    batch.target_tokens = batch.targets().0.len();
    Ok(batch)
}
