//! What `eval`, `generate` and `probe` do where the base is an encoder: classes instead of text.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use qloom_core::data::{Batch, DataConfig, Format, LabelNames, Task as DataTask, class_names};
use qloom_core::host::{block_on, to_vec};
use qloom_core::lora::parameters_of;
use qloom_core::models::bert::{BertClassifier, BertConfig};
use qloom_core::tokenizer::Tokenizer;
use qloom_core::train::{Accumulated, Objective, Parameters, StepOptions};
use qloom_core::weights::OwnedTensor;
use serde_json::{Map, Value, json};

use super::eval::{Task, parse_format};
use super::{Common, UsageError};
use crate::base::{BaseFiles, check_rows};
use crate::cli::{GenerateArguments, ProbeArguments};
use crate::device::{self, ChosenDevice};
use crate::files::{atomic, read};
use crate::session::{
    ClassifierScores, Data, beginning, check_class_metrics, class_losses, class_probabilities,
    classifier_board, describe_class, load_classifier, read_adapter, read_one,
};

/// Scores base and adapter on the same held-out examples.
pub(super) fn eval(
    common: &Common,
    mut task: Task,
    base: &BaseFiles,
    bert: &BertConfig,
) -> Result<()> {
    check_class_metrics(&task.config.eval)?;
    let config = &mut task.config;
    let chosen = device::choose(&common.device)?;
    let dtype = device::compute_type(&config.model.compute, &chosen)?;
    let tokenizer = base.tokenizer_for(&config.data)?;
    check_rows(&tokenizer, bert.vocab_size, &base.name)?;
    let model = base.load_classifier(
        &chosen,
        &config.model.quantization,
        config.model.double_quant,
        dtype,
    )?;
    let adapted = task
        .subject
        .load(base, &model, &config.model, &chosen, dtype)?;
    if adapted.is_none() {
        model.head.parts()?;
    }
    // What was trained knows which class is which; without it, the base's own names do.
    if config.data.label_names.is_none() {
        let names = match task.subject.label_names()? {
            Some(names) => names,
            None => class_names(&bert.labels),
        };
        config.data.label_names = Some(LabelNames::Map(names));
    }
    let data = Data::load_for(
        &config.data,
        &tokenizer,
        bert.max_position_embeddings,
        DataTask::SequenceClassification,
    )?;
    let (title, examples) = task.examples(&data)?;
    let score = |model: &BertClassifier| -> Result<ClassifierScores> {
        let classes = model.head.num_labels().unwrap_or(0);
        ensure!(
            classes == data.labels.len(),
            "the head has {classes} classes and the data {:?}: name them in data.label_names, in the order they were trained",
            data.labels
        );
        let losses = class_losses(model, examples, &tokenizer, task.batch_size)?;
        ClassifierScores::new(losses, &data.labels, &task.config.eval)
    };
    // A run's own base is where it began, an untrained head included; any other needs a head of its own.
    let config = &task.config;
    let before = match &task.run {
        Some(run) => Some(beginning(
            config,
            base,
            &model,
            data.labels.len(),
            run,
            &chosen,
            dtype,
        )?),
        None => {
            let comparable =
                model.head.parts().is_ok() && model.head.num_labels() == Some(data.labels.len());
            (comparable || adapted.is_none()).then(|| model.clone())
        }
    };
    let before = before.as_ref().map(score).transpose()?;
    let after = adapted.as_ref().map(score).transpose()?;
    let board = classifier_board(title, examples, &tokenizer, before.as_ref(), after.as_ref())?;
    task.show(common, &board, &data)
}

/// Prints the class probabilities of every prompt.
pub(super) fn predict(
    common: &Common,
    arguments: &GenerateArguments,
    base: &BaseFiles,
    bert: &BertConfig,
) -> Result<()> {
    let chosen = device::choose(&common.device)?;
    let dtype = device::compute_type(&arguments.model.compute, &chosen)?;
    let tokenizer = base.tokenizer()?;
    check_rows(&tokenizer, bert.vocab_size, &base.name)?;
    let model = base.load_classifier(&chosen, &arguments.model.quantization, true, dtype)?;
    let adapted = match &arguments.model.adapter {
        Some(folder) => Some(load_classifier(folder, base, &model)?),
        None => {
            model.head.parts()?;
            None
        }
    };
    let names = adapted.as_ref().and_then(|a| a.label_names.as_ref());
    let names = names.map(|map| map.values().map(word).collect::<Vec<String>>());
    let texts = texts(arguments)?;
    let classes_of = |model: &BertClassifier| -> Result<Option<Vec<Vec<f32>>>> {
        let known = model.head.parts().is_ok();
        known
            .then(|| probabilities(model, &texts, &tokenizer, arguments.batch_size))
            .transpose()
    };
    let before = match arguments.no_base {
        true => None,
        false => classes_of(&model)?,
    };
    let after = adapted
        .as_ref()
        .map(|a| classes_of(&a.model))
        .transpose()?
        .flatten();
    let base_labels = &bert.labels;
    let labels = names.unwrap_or_else(|| base_labels.clone());
    let answer = |all: &Option<Vec<Vec<f32>>>, i: usize, labels: &[String]| match all {
        Some(all) => json!({
            "answer": describe_class(&all[i], labels),
            "probabilities": class_probabilities(&all[i], labels),
        }),
        None => Value::Null,
    };
    let rows: Vec<Value> = texts
        .iter()
        .enumerate()
        .map(|(i, (text, pair))| {
            json!({
                "prompt": text, "text_pair": pair,
                "base": answer(&before, i, base_labels), "adapted": answer(&after, i, &labels),
            })
        })
        .collect();
    if let Some(out) = &arguments.out {
        let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
        atomic::write_file(out, lines.as_bytes())?;
        eprintln!("{} rows in {}", rows.len(), out.display());
    }
    if common.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    } else if arguments.out.is_none() {
        for row in &rows {
            let given = [&row["adapted"], &row["base"]];
            let best = given.into_iter().find(|a| !a.is_null());
            let best = best.and_then(|a| a["answer"].as_str()).unwrap_or_default();
            println!("{best}\t{}", row["prompt"].as_str().unwrap_or_default());
        }
    }
    Ok(())
}

fn word(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// Texts, or pairs, of `--prompt` or of a data file's `text` (or `sentence`) and `text_pair` columns.
fn texts(arguments: &GenerateArguments) -> Result<Vec<(String, Option<String>)>> {
    let Some(path) = &arguments.data else {
        if arguments.prompt.is_empty() {
            return Err(UsageError::new(
                "trainer generate needs --prompt or --data (see trainer generate --help)",
            )
            .into());
        }
        return Ok(arguments.prompt.iter().map(|p| (p.clone(), None)).collect());
    };
    let format = arguments.format.as_deref().map(parse_format).transpose()?;
    ensure!(
        format.is_none_or(|f| matches!(f, Format::Classification | Format::Text)),
        "--format: an encoder reads rows of `text` (and `text_pair`): classification or text"
    );
    let rows = read_one(path, &DataConfig::default())?.rows;
    let field = |record: &Map<String, Value>, name: &str| {
        record.get(name).filter(|v| !v.is_null()).map(word)
    };
    rows.iter()
        .map(|row| {
            let text = field(&row.record, "text")
                .or_else(|| field(&row.record, "sentence"))
                .with_context(|| format!("{}: no field \"text\"", row.source))?;
            Ok((text, field(&row.record, "text_pair")))
        })
        .collect()
}

fn probabilities(
    model: &BertClassifier,
    texts: &[(String, Option<String>)],
    tokenizer: &Tokenizer,
    batch_size: usize,
) -> Result<Vec<Vec<f32>>> {
    let limit = model.encoder.config.max_position_embeddings;
    let mut all = Vec::with_capacity(texts.len());
    for chunk in texts.chunks(batch_size.max(1)) {
        let encoded = chunk
            .iter()
            .map(|(text, pair)| {
                Ok(tokenizer.encode_sequences(text, pair.as_deref(), limit, false)?)
            })
            .collect::<Result<Vec<_>>>()?;
        let ids: Vec<Vec<u32>> = encoded.iter().map(|e| e.ids.clone()).collect();
        let mut batch = Batch::of_sequences(&ids);
        if encoded.iter().any(|e| !e.type_ids.is_empty()) {
            batch.token_type_ids = vec![0; batch.rows * batch.width];
            for (row, e) in encoded.iter().enumerate() {
                let at = row * batch.width;
                batch.token_type_ids[at..at + e.type_ids.len()].copy_from_slice(&e.type_ids);
            }
        }
        let found = model.probabilities(&batch)?;
        let [_, classes] = found.dims();
        all.extend(
            block_on(to_vec(found))?
                .chunks(classes)
                .map(<[f32]>::to_vec),
        );
    }
    Ok(all)
}

/// `logits`, and with classes the `loss`, and with `--grads` the adapter's gradients.
pub(super) fn probe(
    arguments: &ProbeArguments,
    chosen: &ChosenDevice,
    base: &BaseFiles,
    ids: &[Vec<i64>],
) -> Result<Vec<(String, OwnedTensor)>> {
    let dtype = device::compute_type(&arguments.model.compute, chosen)?;
    let sequences: Vec<Vec<u32>> = ids
        .iter()
        .map(|row| {
            let own = row.iter().take_while(|&&id| id >= 0);
            own.map(|&id| id as u32).collect()
        })
        .collect();
    let mut batch = Batch::of_sequences(&sequences);
    if let Some(path) = &arguments.labels {
        batch.classes = read_classes(path, batch.rows)?;
    }
    let model = base.load_classifier(chosen, &arguments.model.quantization, true, dtype)?;
    let adapted = match &arguments.model.adapter {
        Some(folder) => load_classifier(folder, base, &model)?.model,
        None => model.clone(),
    };
    let logits = adapted.logits(&batch)?;
    let shape = logits.dims().to_vec();
    let classes = shape[1];
    let values = block_on(to_vec(logits))?;
    let mut tensors = vec![("logits".to_owned(), OwnedTensor::from_f32(shape, &values)?)];
    if !batch.classes.is_empty() {
        if let Some(class) = batch.classes.iter().find(|&&c| c >= classes) {
            return Err(UsageError::new(format!(
                "--labels: class {class} is out of range, the head has {classes}"
            ))
            .into());
        }
        let rows = values.chunks(classes).zip(&batch.classes);
        let loss = rows
            .map(|(row, &class)| cross_entropy(row, class))
            .sum::<f64>();
        let mean = (loss / batch.rows as f64) as f32;
        tensors.push(("loss".to_owned(), OwnedTensor::from_f32(vec![1], &[mean])?));
    }
    if arguments.grads {
        let folder = arguments.model.adapter.as_deref();
        let (Some(folder), false) = (folder, batch.classes.is_empty()) else {
            return Err(UsageError::new("--grads needs --adapter and --labels").into());
        };
        tensors.extend(gradients(
            &model,
            folder,
            &batch,
            chosen,
            arguments.recompute,
        )?);
    }
    Ok(tensors)
}

/// `log(sum(exp(row))) - row[class]`.
fn cross_entropy(row: &[f32], class: usize) -> f64 {
    let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|&l| f64::from(l - most).exp()).sum();
    sum.ln() + f64::from(most) - f64::from(row[class])
}

fn gradients(
    model: &BertClassifier,
    folder: &Path,
    batch: &Batch,
    chosen: &ChosenDevice,
    recompute: bool,
) -> Result<Vec<(String, OwnedTensor)>> {
    let model = undropped(model);
    let parameters = Parameters::new(parameters_of(&read_adapter(folder)?, 0.0)?, &chosen.device);
    let mut sum = Accumulated::new(&parameters);
    let options = StepOptions {
        recompute,
        loss_chunk: usize::MAX,
    };
    let scale = 1.0 / batch.rows as f64;
    model.accumulate(&parameters, batch, scale, 0, options, &mut sum);
    let flat = sum.flat(&parameters);
    block_on(parameters.split_host(&flat))?
        .into_iter()
        .map(|(spec, values)| {
            let name = format!("base_model.model.{}", spec.name);
            Ok((name, OwnedTensor::from_f32(spec.shape, &values)?))
        })
        .collect()
}

/// Without dropout: gradients to compare are of the model as it answers.
fn undropped(model: &BertClassifier) -> BertClassifier {
    let mut model = model.clone();
    model.encoder.embeddings.dropout = 0.0;
    for block in &mut model.encoder.blocks {
        block.dropout = 0.0;
        block.attention_output_dropout = 0.0;
        block.attention.dropout = 0.0;
    }
    model.head.dropout = 0.0;
    model
}

/// A class per row: `[0, 2, 1]`, or `[[0], [2], [1]]`.
fn read_classes(path: &Path, rows: usize) -> Result<Vec<usize>> {
    let wrong = || {
        format!(
            "--labels, {}: expected a JSON array of {rows} class numbers, one per row of --ids",
            path.display()
        )
    };
    let values: Vec<Value> = serde_json::from_slice(&read(path)?).with_context(wrong)?;
    let class = |value: &Value| match value {
        Value::Array(one) if one.len() == 1 => one[0].as_u64(),
        other => other.as_u64(),
    };
    let classes: Option<Vec<usize>> = values
        .iter()
        .map(|v| class(v).map(|c| c as usize))
        .collect();
    let classes = classes.with_context(wrong)?;
    ensure!(
        classes.len() == rows,
        "{}; found {}",
        wrong(),
        classes.len()
    );
    Ok(classes)
}
