//! What a run over an encoder trains under its method, on which base, and what it leaves: the encoder's side of
//! [`super::method`].

use std::path::Path;

use anyhow::{Context, Result, ensure};
use burn::tensor::DType;
use qloom_core::lora::{
    BaseWeights, Fresh, Method, Taken, Tensors, fresh, parameters_of, peft_config,
};
use qloom_core::models::bert::{BertClassifier, BertConfig, Family, Prefixed};
use qloom_core::quantization::is_quantizable;
use qloom_core::tokenizer::Tokenizer;
use qloom_core::train::{Parameter, Parameters, Role};
use qloom_core::weights::WeightSource;
use serde_json::{Map, Value};

use super::classifier::{expected, labelled};
use super::method::{Place, Start};
use super::{Artifact, Data, read_adapter};
use crate::base::BaseFiles;
use crate::config::RunConfig;
use crate::device::ChosenDevice;

/// How trained parameters become files: an adapter that names its classes, or a whole classifier.
pub(super) fn artifact(
    start: &Start,
    config: &RunConfig,
    base: &BaseFiles,
    place: &Place<BertClassifier>,
    tokenizer: &Tokenizer,
    data: &Data,
) -> Result<Artifact> {
    let mark = |receipt| labelled(receipt, data);
    if let Some(adapter) = start.adapter(config, base, place, tokenizer, mark)? {
        return Ok(adapter);
    }
    let mut whole = classifier_config(base, &data.labels)?;
    whole.shift_remove("quantization_config");
    whole.shift_remove("torch_dtype");
    whole.insert("dtype".to_owned(), "float32".into());
    Ok(Artifact::Classifier {
        config: serde_json::to_vec_pretty(&whole)?,
        text_files: base.text_files(),
    })
}

/// The `config.json` of `base` as that of a classifier of `labels`.
pub(crate) fn classifier_config(base: &BaseFiles, labels: &[String]) -> Result<Map<String, Value>> {
    let bert = base.bert_config()?;
    let class = match bert.family {
        Family::Bert => "BertForSequenceClassification",
        Family::DistilBert => "DistilBertForSequenceClassification",
    };
    let mut config = base.config.clone();
    let numbered = labels.iter().enumerate();
    let names: Map<String, Value> = numbered
        .clone()
        .map(|(i, l)| (i.to_string(), l.as_str().into()))
        .collect();
    let ids: Map<String, Value> = numbered.map(|(i, l)| (l.clone(), i.into())).collect();
    config.insert("architectures".to_owned(), vec![class].into());
    config.insert("id2label".to_owned(), names.into());
    config.insert("label2id".to_owned(), ids.into());
    Ok(config)
}

/// Every weight, from the values the base computes with; what it lacks of a head, afresh.
fn whole(
    bert: &BertConfig,
    classes: usize,
    source: &impl WeightSource,
    weights: &BaseWeights<'_>,
    seed: u64,
) -> Result<Tensors> {
    let head = bert.head_tensors(classes);
    let mut tensors = Vec::new();
    for (name, shape) in bert.expected_tensors(classes) {
        let fits = source.spec(&name).is_some_and(|s| s.shape == shape);
        let of_head = head.iter().any(|(n, _)| *n == name);
        let values = match name.strip_suffix(".weight") {
            Some(path) if is_quantizable(&name, &shape, &[]) => weights.effective(path)?,
            _ if of_head && !fits => bert.fresh_head_tensor(&name, &shape, seed),
            _ => source.get(&name)?.to_f32().map_err(|e| e.named(&name))?,
        };
        let role = Role::Weight;
        tensors.push((Parameter { name, shape, role }, values));
    }
    Ok(tensors)
}

/// The initial parameters of `config`'s method: a fresh adapter with the head beside it, the adapter to continue, the head
/// alone, or every weight.
pub(super) fn start(
    config: &RunConfig,
    base: &BaseFiles,
    model: &BertClassifier,
    classes: usize,
    chosen: &ChosenDevice,
) -> Result<Start> {
    let bert = &model.encoder.config;
    let device = &chosen.device;
    if let Some(folder) = &config.lora.adapter {
        let adapter = read_adapter(folder.as_ref())?;
        let (linears, tensors) = expected(bert, &adapter);
        adapter
            .validate(&linears, &tensors)
            .with_context(|| format!("adapter {folder} does not fit the base {}", base.name))?;
        let parameters = Parameters::new(parameters_of(&adapter, config.lora.dropout)?, device);
        let head = model.head.with(&parameters.overlay());
        let found = head.num_labels().unwrap_or(0);
        ensure!(
            found == classes,
            "adapter {folder} has a head for {found} classes, the data has {classes}: use the labels it was trained on, \
             or start a new adapter"
        );
        return Ok(Start {
            parameters,
            peft: Some(adapter.config),
            taken: Taken::Nothing,
        });
    }
    let source = base.source()?;
    let source = Prefixed::new(&source, bert.family);
    let nf4 = config.model.quantization == "nf4";
    let weights = BaseWeights::new(&source, nf4, config.model.double_quant);
    let seed = config.train.seed;
    if config.lora.method == Method::Full {
        let tensors = whole(bert, classes, &source, &weights, seed)?;
        return Ok(Start {
            parameters: Parameters::new(tensors, device),
            peft: None,
            taken: Taken::Nothing,
        });
    }
    let mut lora = config.lora.clone();
    lora.modules_to_save = bert.head_modules(&model.head);
    for module in &config.lora.modules_to_save {
        if !lora.modules_to_save.contains(module) {
            lora.modules_to_save.push(module.clone());
        }
    }
    let Fresh { mut tensors, taken } = match lora.method {
        Method::Head => Fresh::default(),
        _ => fresh(&lora, &bert.linear_modules(), seed, Some(&weights))?,
    };
    for module in &lora.modules_to_save {
        tensors.extend(saved_module(
            module,
            bert,
            classes,
            &source,
            config.train.seed,
        )?);
    }
    let parameters = Parameters::new(tensors, device).with_method(&lora);
    let mut peft = peft_config(&lora, &parameters, &base.name);
    peft.task_type = Some("SEQ_CLS".to_owned());
    Ok(Start {
        parameters,
        peft: Some(peft),
        taken,
    })
}

/// The classifier that the run in `folder` began with, its untrained head included, on `original`.
pub(crate) fn beginning(
    config: &RunConfig,
    base: &BaseFiles,
    original: &BertClassifier,
    classes: usize,
    folder: &Path,
    chosen: &ChosenDevice,
    dtype: DType,
) -> Result<BertClassifier> {
    let start = start(config, base, original, classes, chosen)?;
    let place = start.place(config, base, original, folder, chosen, dtype)?;
    Ok(place.model.with(&start.parameters.overlay()))
}

/// The tensors of a module trained in full: the base's values, or fresh ones for what it lacks of a head.
fn saved_module(
    module: &str,
    bert: &BertConfig,
    classes: usize,
    source: &impl WeightSource,
    seed: u64,
) -> Result<Vec<(Parameter, Vec<f32>)>> {
    let inside = |name: &str| format!(".{name}").contains(&format!(".{module}."));
    let head = bert.head_tensors(classes);
    let mut found = Vec::new();
    for (name, shape) in bert.expected_tensors(classes) {
        if !inside(&name) {
            continue;
        }
        let stored = source.spec(&name).is_some_and(|s| s.shape == shape);
        let of_head = head.iter().any(|(n, _)| *n == name);
        let values = if of_head && !stored {
            bert.fresh_head_tensor(&name, &shape, seed)
        } else {
            source
                .get(&name)?
                .to_f32()
                .with_context(|| format!("lora.modules_to_save: {name} is stored quantized"))?
        };
        found.push((
            Parameter {
                name,
                shape,
                role: Role::Weight,
            },
            values,
        ));
    }
    ensure!(
        !found.is_empty(),
        "lora.modules_to_save: {module:?} is no module of this model; it has classifier, {}, LayerNorm, word_embeddings",
        bert.linear_modules()
            .last()
            .map_or("", |(path, _)| path.as_str())
    );
    Ok(found)
}
