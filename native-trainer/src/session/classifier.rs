//! A run over an encoder: the same loop, with a head that is trained and saved beside the adapter.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use burn::tensor::DType;
use qloom_core::adapters::{Adapter, LABELS, RECEIPT, Receipt};
use qloom_core::data::{
    BatchOptions, BatchPlan, CollateOptions, DataConfig, DataError, Example, LabelNames, Task,
    class_names,
};
use qloom_core::host::block_on;
use qloom_core::lora::{Init, Method, overlay};
use qloom_core::models::bert::{BertClassifier, BertConfig, Head};
use qloom_core::tokenizer::Tokenizer;
use qloom_core::train::{ClassLosses, TrainSet, classify};
use qloom_core::weights::WeightSource;
use serde_json::{Map, Value, json};

use super::classifier_start;
use super::preflight;
use super::run::{Run, RunResult, eval_set};
use super::samples::{SAMPLES, write_samples};
use super::{
    ClassifierScores, Data, Expected, base_scores, check_class_metrics, checked_adapter,
    class_probabilities, classifier_board, describe_class, read_adapter,
};
use crate::base::{BaseFiles, check_rows};
use crate::config::RunConfig;
use crate::device::ChosenDevice;
use crate::files::{read, run_dir};
use crate::memory;
use crate::report::scores::{Metric, Sample};

/// A classifier with its adapter on it.
pub(crate) struct LoadedClassifier {
    /// Base and adapter.
    pub(crate) model: BertClassifier,
    /// Raw label to word, where the adapter says.
    pub(crate) label_names: Option<Map<String, Value>>,
}

/// Reads the adapter in `folder`, checks that it belongs to `base` and brings what the base lacks of a head, and lays
/// it over `model`.
pub(crate) fn load_classifier(
    folder: &Path,
    base: &BaseFiles,
    model: &BertClassifier,
) -> Result<LoadedClassifier> {
    let config = &model.encoder.config;
    let (adapter, known) = checked_adapter(folder, base, |adapter| expected(config, adapter))?;
    let adapted = model.with(&overlay(&adapter, &model.device())?);
    adapted
        .head
        .parts()
        .with_context(|| format!("adapter {} on {}", folder.display(), base.name))?;
    Ok(LoadedClassifier {
        model: adapted,
        label_names: known.and_then(|r| r.label_names().cloned()),
    })
}

/// What an adapter of this encoder may hold. Its own classifier says how many classes there are.
pub(super) fn expected(config: &BertConfig, adapter: &Adapter) -> Expected {
    (config.linear_modules(), config.adaptable_tensors(adapter))
}

/// Fine-tunes the encoder `base` as `config` says. `data` overrides the files it names.
#[allow(clippy::too_many_arguments)]
pub(super) fn train(
    config: &RunConfig,
    chosen: &ChosenDevice,
    dtype: DType,
    resume: bool,
    data: Option<Data>,
    base: &BaseFiles,
    bert: &BertConfig,
    task: &str,
) -> Result<RunResult> {
    check_class_metrics(&config.eval)?;
    let tokenizer = base.tokenizer_for(&config.data)?;
    check_rows(&tokenizer, bert.vocab_size, &base.name)?;
    let data = match data {
        Some(data) => data,
        None => load_data(config, &tokenizer, base, bert)?,
    };
    preflight::warn(config, base, &tokenizer, &data)?;
    if chosen.name == "cpu" {
        memory::check_room(config, &base.architecture()?, &data)?;
    }
    ensure!(
        !config.data.packing,
        "data.packing = true: an encoder computes no padding anyway and batch_size counts examples; remove it"
    );
    run_dir::refuse_occupied_unless(resume, config.output.dir.as_ref())?;
    let quantization = &config.model.quantization;
    let model = base.load_classifier(chosen, quantization, config.model.double_quant, dtype)?;
    note_labels(&model.head, bert, &data);
    let start = classifier_start::start(config, base, &model, data.labels.len(), chosen)?;
    let mut run = Run::open(config, resume)?;
    if let Some(result) = run.stored(config, &start, task)? {
        return Ok(result);
    }
    let place = start.place(config, base, &model, run.dir.path(), chosen, dtype)?;
    let artifact = classifier_start::artifact(&start, config, base, &place, &tokenizer, &data)?;
    let trained = run.produce(
        config,
        &place.model,
        &start,
        &data,
        &artifact,
        &tokenizer,
        chosen,
    )?;

    let adapted = place.adapted(&start, base, &model, &trained.folder, chosen, dtype)?;
    // Where training starts: an untrained head is part of what the run begins with.
    let before = place.model.with(&start.parameters.overlay());
    let parts = start_identity(config, base, chosen, &data)?;
    let untrained = model.head.classifier.is_none();
    let shown = score(
        &run, config, &before, &adapted, &data, &tokenizer, task, untrained, &parts,
    )?;
    run.conclude(config, base, &data, trained, shown, chosen, task)
}

/// Scores both on the held-out examples, where there are any, and writes the files.
#[allow(clippy::too_many_arguments)]
fn score(
    run: &Run,
    config: &RunConfig,
    before: &BertClassifier,
    adapted: &BertClassifier,
    data: &Data,
    tokenizer: &Tokenizer,
    task: &str,
    untrained: bool,
    parts: &Value,
) -> Result<(Vec<Metric>, Vec<Sample>)> {
    if data.eval.is_empty() {
        run.write_scores(Map::new(), Map::new(), data)?;
        return Ok((Vec::new(), Vec::new()));
    }
    let set = eval_set(config, data, tokenizer)?;
    let before = base_scores::shared(parts, || Ok(block_on(classify(before, &set))?))?;
    let before = ClassifierScores::new(before, &data.labels, &config.eval)?;
    let after = block_on(classify(adapted, &set))?;
    let after = ClassifierScores::new(after, &data.labels, &config.eval)?;
    let mut base_json = before.to_json()?;
    if untrained {
        base_json.insert("head".into(), "untrained".into());
    }
    run.write_scores(base_json, after.to_json()?, data)?;
    let samples = samples(config, data, &before, &after, tokenizer, task)?;
    write_samples(&run.dir.path().join(SAMPLES), &samples)?;
    let (base, tuned) = (Some(&before), Some(&after));
    let board = classifier_board(task, &data.eval, tokenizer, base, tuned)?;
    board.write(run.dir.path())?;
    Ok((board.metrics(), samples))
}

/// All that decides what is scored as the base. A fresh adapter changes nothing yet, so runs that differ in it share
/// the scores; a head that the base lacks is drawn by the seed.
fn start_identity(
    config: &RunConfig,
    base: &BaseFiles,
    chosen: &ChosenDevice,
    data: &Data,
) -> Result<Value> {
    let lora = &config.lora;
    let unchanged = lora.adapter.is_none()
        && matches!(lora.init, Init::Default | Init::Gaussian)
        && lora.method != Method::Full
        && lora.modules_to_save.is_empty();
    let own = (!unchanged).then_some(lora);
    let fingerprint = base.fingerprint()?;
    let batch = config.eval.batch_size;
    Ok(json!([
        "classes",
        fingerprint,
        config.model,
        config.train.seed,
        own,
        chosen.name,
        data.hash_of_eval(),
        data.labels,
        batch
    ]))
}

/// The run's data. Where nothing names the classes and there is a head already, that of the adapter to continue or the
/// base's own, its classes are taken if they cover the data's labels: class 2 of three stays class 2 although a small
/// file holds no other.
pub(super) fn load_data(
    config: &RunConfig,
    tokenizer: &Tokenizer,
    base: &BaseFiles,
    bert: &BertConfig,
) -> Result<Data> {
    let load = |data: &DataConfig| {
        Data::load_for(
            data,
            tokenizer,
            bert.max_position_embeddings,
            Task::SequenceClassification,
        )
    };
    let known = match config.data.label_names {
        Some(_) => None,
        None => known_classes(config, base, bert)?,
    };
    let Some(names) = known else {
        return load(&config.data);
    };
    let named = DataConfig {
        label_names: Some(LabelNames::Map(names)),
        ..config.data.clone()
    };
    match load(&named) {
        Err(e) if matches!(e.downcast_ref(), Some(DataError::UnknownLabel { .. })) => {
            load(&config.data)
        }
        other => other,
    }
}

/// The classes of the head the run starts from, if it starts from one.
fn known_classes(
    config: &RunConfig,
    base: &BaseFiles,
    bert: &BertConfig,
) -> Result<Option<Map<String, Value>>> {
    let Some(folder) = &config.lora.adapter else {
        let source = base.source()?;
        return Ok(source
            .contains("classifier.weight")
            .then(|| class_names(&bert.labels)));
    };
    if let Some(names) = labels_of(&super::locate_adapter(folder.as_ref())?)? {
        return Ok(Some(names));
    }
    let adapter = read_adapter(folder.as_ref())?;
    let saved = adapter.saved();
    let classes = saved.get("classifier.weight").and_then(|t| t.shape.first());
    let numbered = |n: &usize| {
        let labels: Vec<String> = (0..*n).map(|i| format!("LABEL_{i}")).collect();
        class_names(&labels)
    };
    Ok(classes.map(numbered))
}

/// The class names that the adapter in `folder` carries: raw label to word, in class order.
pub(crate) fn labels_of(folder: &Path) -> Result<Option<Map<String, Value>>> {
    let path = folder.join(RECEIPT);
    if !path.is_file() {
        return Ok(None);
    }
    let receipt = Receipt::from_json(&read(&path)?)?;
    Ok(receipt.label_names().cloned())
}

/// The receipt with the classes' names in it.
pub(super) fn labelled(mut receipt: Receipt, data: &Data) -> Receipt {
    receipt
        .rest
        .insert(LABELS.to_owned(), Value::Object(data.label_names.clone()));
    receipt
}

/// Says where the head comes from, and where the base's own classes are called otherwise than the data's.
fn note_labels(head: &Head, bert: &BertConfig, data: &Data) {
    match head.num_labels() {
        Some(found) if found != data.labels.len() => eprintln!(
            "the base's head has {found} classes and the data {}: the classifier starts afresh",
            data.labels.len()
        ),
        Some(_) => {
            let named = bert.labels.iter().any(|l| !l.starts_with("LABEL_"));
            let same = |(a, b): (&String, &String)| a.eq_ignore_ascii_case(b);
            if named && !bert.labels.iter().zip(&data.labels).all(same) {
                eprintln!(
                    "warning: the base's head calls its classes {:?}, in this order, and the data {:?}; set data.label_names if \
                     the order differs",
                    bert.labels, data.labels
                );
            }
        }
        None => eprintln!(
            "the base has no trained classification head: a new one for {:?} is trained with the adapter",
            data.labels
        ),
    }
}

/// Class probabilities of `examples` under `model`.
pub(crate) fn class_losses(
    model: &BertClassifier,
    examples: &[Example],
    tokenizer: &Tokenizer,
    batch_size: usize,
) -> Result<ClassLosses> {
    let set = TrainSet {
        examples,
        plan: BatchPlan::new(examples, BatchOptions::sequential(batch_size))?,
        collate: CollateOptions::new(tokenizer.pad_id()),
    };
    Ok(block_on(classify(model, &set))?)
}

/// The first held-out texts with both answers.
fn samples(
    config: &RunConfig,
    data: &Data,
    before: &ClassifierScores,
    after: &ClassifierScores,
    tokenizer: &Tokenizer,
    task: &str,
) -> Result<Vec<Sample>> {
    let chosen = data.eval.iter().take(config.eval.samples).enumerate();
    chosen
        .map(|(i, example)| {
            let right = example.class.and_then(|class| data.labels.get(class));
            Ok(Sample {
                task: task.to_owned(),
                prompt: tokenizer
                    .decode(&example.input_ids, true)?
                    .trim()
                    .to_owned(),
                reference: right.cloned(),
                base: describe_class(&before.losses.probabilities[i], &data.labels),
                adapted: describe_class(&after.losses.probabilities[i], &data.labels),
                probabilities: Some(
                    [before, after]
                        .map(|s| class_probabilities(&s.losses.probabilities[i], &data.labels)),
                ),
            })
        })
        .collect()
}
